"""The soak's VPC, and what is done to whom in it."""

from dataclasses import dataclass

from reconciler.core.model import Eni, Subnet, format_address
from reconciler.testing.vpc import Vpc, eni, subnet

HOST = "i-0b000000000000001"
BROKER = ("10.0.0.10", "2001:db8:0:1::10")
PORT = 1883  # The namespace is the soak's own, so the port is free.


@dataclass(frozen=True)
class Place:
    """Who is who.

    Attributes:
        steady: clients whose entries are right all the time; they are deleted
            on purpose, and EC2 lies about them.
        shaken: clients whose entries are addled.
        former: the owner of every address of ``recycled``, to begin with.
        successor: the client that gets the recycled and the reborn addresses.
        stand_in: whose a steady client's address is when EC2 lies.
        bystanders: nobody does anything to them or to their entries.
        recycled: addresses that move from ``former`` to ``successor``.
        reborn: addresses that are nobody's, and later the successor's.
        orphaned: addresses that are nobody's to the end.
    """

    vpc: Vpc
    steady: tuple[Eni, ...]
    shaken: tuple[Eni, ...]
    former: Eni
    successor: Eni
    stand_in: Eni
    bystanders: tuple[Eni, ...]
    recycled: tuple[str, ...]
    reborn: tuple[str, ...]
    orphaned: tuple[str, ...]

    @property
    def clients(self) -> tuple[Eni, ...]:
        """The ENIs that have a namespace."""
        return (*self.steady, *self.shaken, self.successor)


def place(incidents: int) -> Place:
    """Describe the VPC, with this many addresses to recycle and as many to be reborn.

    An address changes its owner once: a second change within five minutes makes
    EC2's word on it worth nothing, and the daemon rightly leaves it alone.
    """
    home = subnet(1, ("10.0.0.0/16", "2001:db8:0:1::/64"))
    broker = eni(1, BROKER, subnet=home, instance=HOST, description="broker")
    steady = tuple(_both(n, 9 + n, home, "steady client") for n in range(2, 6))
    shaken = tuple(_both(n, 14 + n, home, "shaken client") for n in range(6, 8))
    recycled = tuple(f"10.0.{100 + n // 200}.{10 + n % 200}" for n in range(incidents))
    former = _instance(8, ["10.0.0.30", *recycled], home, "former owner")
    successor = _instance(9, ["10.0.0.31"], home, "successor")
    stand_in = _instance(10, ["10.0.0.32"], home, "stand-in")
    bystanders = tuple(
        _instance(n, [f"10.0.1.{n}"], home, "bystander") for n in range(100, 100 + 30)
    )
    enis = (broker, *steady, *shaken, former, successor, stand_in, *bystanders)
    return Place(
        Vpc((home,), enis),
        steady,
        shaken,
        former,
        successor,
        stand_in,
        bystanders,
        recycled,
        tuple(f"10.0.{150 + n // 200}.{10 + n % 200}" for n in range(incidents)),
        tuple(f"10.0.200.{10 + n}" for n in range(3)),
    )


def addresses(enis: tuple[Eni, ...]) -> dict[str, str]:
    """Return the MAC of every address of these ENIs, both as ``ip neigh`` writes them."""
    return {format_address(a): e.mac.hex(":") for e in enis for a in e.addresses}


def _instance(number: int, its: list[str], home: Subnet, description: str) -> Eni:
    instance = f"i-0c{number:015x}"
    return eni(number, its, subnet=home, instance=instance, description=description)


def _both(number: int, host: int, home: Subnet, description: str) -> Eni:
    return _instance(number, [f"10.0.0.{host}", f"2001:db8:0:1::{host}"], home, description)


__all__ = ["BROKER", "HOST", "PORT", "Place", "addresses", "place"]
