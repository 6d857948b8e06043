"""Who owns an address: the index of one reading, per subnet.

Private addresses repeat across VPCs, so everything is keyed by subnet; the MAC
of an ENI is looked up within its VPC, for the same reason.
"""

from collections.abc import Iterable
from typing import NamedTuple

from reconciler.core.model import Address, Eni, Mac, Prefix, Reading


class Claim(NamedTuple):
    """Every ENI that lists an address, at the most specific level where any does.

    ``live`` are the ENIs in use, ``idle`` the others; each ENI stands once, and
    the order is that of their ids, so that no answer depends on the order of a
    reading.
    """

    live: tuple[Eni, ...] = ()
    idle: tuple[Eni, ...] = ()

    @property
    def owner(self) -> Eni | None:
        """The one live ENI, or None when there is none or more than one."""
        return self.live[0] if len(self.live) == 1 else None


_NOBODY = Claim()


class Ownership:
    """Find the owners of addresses and MACs in one reading."""

    def __init__(self, enis: Iterable[Eni]) -> None:
        self._exact: dict[str, dict[Address, list[Eni]]] = {}
        self._prefix: dict[str, dict[Prefix, list[Eni]]] = {}
        self._macs: dict[tuple[str, Mac], Eni] = {}
        for eni in enis:
            exact = self._exact.setdefault(eni.subnet_id, {})
            for address in eni.addresses:
                exact.setdefault(address, []).append(eni)
            if eni.prefixes:
                prefixes = self._prefix.setdefault(eni.subnet_id, {})
                for prefix in eni.prefixes:
                    prefixes.setdefault(prefix, []).append(eni)
            if eni.live:
                key = (eni.vpc_id, eni.mac)
                known = self._macs.get(key)
                if known is None or eni.eni_id < known.eni_id:
                    self._macs[key] = eni
        # Longest first; each (family size, length) is looked up once per question.
        self._lengths = {
            subnet_id: sorted({(len(p.address), p.length) for p in prefixes}, reverse=True)
            for subnet_id, prefixes in self._prefix.items()
        }

    def claim(self, subnet_id: str, address: Address) -> Claim:
        """Return who lists the address: exactly, else by the longest delegated prefix."""
        listed = self._exact.get(subnet_id, {}).get(address)
        if listed is not None:
            return _claim(listed)
        size = len(address)
        for family, length in self._lengths.get(subnet_id, ()):
            if family != size:
                continue
            network = Prefix(Prefix(address, length).truncate(address), length)
            delegated = self._prefix[subnet_id].get(network)
            if delegated is not None:
                return _claim(delegated)
        return _NOBODY

    def mac_owner(self, vpc_id: str, mac: Mac) -> Eni | None:
        """Return the live ENI of the VPC that has this MAC."""
        return self._macs.get((vpc_id, mac))


class TargetedOwnership(Ownership):
    """A reading of whole subnets, with a targeted one laid over it.

    An address that was asked for and is listed has the owners that the targeted
    reading names; absence in it removes nothing. A MAC that it shows alive is
    alive.
    """

    def __init__(self, below: Ownership, reading: Reading) -> None:
        super().__init__(reading.enis)
        self._below = below
        self._targets = reading.targets or frozenset()

    def claim(self, subnet_id: str, address: Address) -> Claim:
        """Return who lists the address, by the targeted reading where it names somebody."""
        if (subnet_id, address) in self._targets:
            listed = self._exact.get(subnet_id, {}).get(address)
            if listed is not None:
                return _claim(listed)
        return self._below.claim(subnet_id, address)

    def mac_owner(self, vpc_id: str, mac: Mac) -> Eni | None:
        """Return the live ENI of the VPC that has this MAC, by either reading."""
        return super().mac_owner(vpc_id, mac) or self._below.mac_owner(vpc_id, mac)


def _claim(listed: list[Eni]) -> Claim:
    # One ENI may stand twice in a reading, once per page or once per prefix.
    live = {eni.eni_id: eni for eni in listed if eni.live}
    idle = {eni.eni_id: eni for eni in listed if not eni.live}
    return Claim(
        tuple(live[eni_id] for eni_id in sorted(live)),
        tuple(idle[eni_id] for eni_id in sorted(idle)),
    )
