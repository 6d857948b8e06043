"""One small description of a VPC. It drives the wire, the endpoint and the namespaces alike.

A ``Vpc`` is a value: the lab's wire and the lab's EC2 endpoint each hold one,
and usually the same one. Giving them different ones is how the API lags the
wire, or the other way round.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from reconciler.core.model import Address, Eni, Mac, Prefix, Subnet, pack_address

ACCOUNT = "111122223333"


@dataclass(frozen=True)
class Vpc:
    """Subnets and ENIs, as EC2 would list them (several VPCs may live in one description)."""

    subnets: tuple[Subnet, ...]
    enis: tuple[Eni, ...]

    def eni(self, eni_id: str) -> Eni:
        """Return one ENI by its id.

        Raises:
            KeyError: there is none.
        """
        for eni in self.enis:
            if eni.eni_id == eni_id:
                return eni
        raise KeyError(eni_id)

    def subnet(self, subnet_id: str) -> Subnet:
        """Return one subnet by its id.

        Raises:
            KeyError: there is none.
        """
        for subnet in self.subnets:
            if subnet.subnet_id == subnet_id:
                return subnet
        raise KeyError(subnet_id)

    def owner(self, subnet_id: str, address: Address) -> Eni | None:
        """Return the live ENI that answers for an address on the wire of a subnet.

        Exact address first, then the longest delegated prefix. None: nobody answers.
        """
        here = [eni for eni in self.enis if eni.subnet_id == subnet_id and eni.live]
        for eni in here:
            if address in eni.addresses:
                return eni
        covering = [(p.length, eni) for eni in here for p in eni.prefixes if p.covers(address)]
        return max(covering, key=lambda pair: pair[0])[1] if covering else None

    def with_eni(self, eni: Eni) -> Self:
        """Add an ENI, or put it in the place of the one with its id."""
        return replace(self, enis=(*(e for e in self.enis if e.eni_id != eni.eni_id), eni))

    def without_eni(self, eni_id: str) -> Self:
        """Terminate: the ENI and its addresses are nobody's now."""
        return replace(self, enis=tuple(e for e in self.enis if e.eni_id != eni_id))

    def with_moved(self, address: str, to_eni: str) -> Self:
        """Recycle an address: every other ENI of that subnet loses it, ``to_eni`` gets it."""
        packed = pack_address(address)
        subnet_id = self.eni(to_eni).subnet_id

        def moved(eni: Eni) -> Eni:
            if eni.subnet_id != subnet_id:
                return eni
            kept = tuple(a for a in eni.addresses if a != packed)
            return replace(eni, addresses=(*kept, packed) if eni.eni_id == to_eni else kept)

        return replace(self, enis=tuple(moved(eni) for eni in self.enis))


def eni(  # noqa: PLR0913 - a description names everything an ENI has.
    number: int,
    addresses: Iterable[str],
    *,
    subnet: Subnet,
    prefixes: Iterable[str] = (),
    instance: str | None = None,
    status: str = "in-use",
    interface_type: str = "interface",
    owner_id: str = ACCOUNT,
    description: str = "",
    mac: Mac | None = None,
) -> Eni:
    """Describe an ENI by a number that gives its id and its MAC (02:00:00:00:00:NN)."""
    return Eni(
        eni_id=f"eni-{number:017x}",
        subnet_id=subnet.subnet_id,
        vpc_id=subnet.vpc_id,
        mac=mac or b"\x02" + number.to_bytes(5, "big"),
        status=status,
        interface_type=interface_type,
        owner_id=owner_id,
        instance_id=instance,
        instance_owner_id=ACCOUNT if instance else None,
        description=description,
        addresses=tuple(map(pack_address, addresses)),
        prefixes=tuple(map(Prefix.parse, prefixes)),
    )


def subnet(
    number: int, cidrs: Iterable[str], *, vpc: int = 1, owner_id: str | None = ACCOUNT
) -> Subnet:
    """Describe a subnet by a number that gives its id."""
    return Subnet(
        subnet_id=f"subnet-{number:017x}",
        vpc_id=f"vpc-{vpc:017x}",
        cidrs=tuple(map(Prefix.parse, cidrs)),
        owner_id=owner_id,
    )


__all__ = ["ACCOUNT", "Vpc", "eni", "subnet"]
