"""Random small worlds, dense enough that every rule is met."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from reconciler.core.judge import View, view
from reconciler.core.model import (
    Eni,
    Host,
    HostEni,
    Link,
    ManagedLink,
    Neighbour,
    NextHops,
    Policy,
    Prefix,
    Reading,
    Subnet,
    Table,
    pack_address,
)
from reconciler.core.ownership import Ownership

ACCOUNT = "111122223333"
SUBNETS = (
    Subnet(
        "subnet-a", "vpc-1", (Prefix.parse("10.0.0.0/27"), Prefix.parse("fd00:1::/64")), ACCOUNT
    ),
    # The same private range once more, in another VPC of the same host.
    Subnet("subnet-b", "vpc-2", (Prefix.parse("10.0.0.0/27"),), ACCOUNT),
)
LINKS = (Link(2, "eth0", b"\x02\0\0\0\0\x01"), Link(3, "eth1", b"\x02\0\0\0\0\x02"))
HOST = Host(
    "i-1",
    ACCOUNT,
    tuple(
        HostEni(f"eni-host-{n}", link.mac, subnet.subnet_id, subnet.vpc_id, ACCOUNT)
        for n, (link, subnet) in enumerate(zip(LINKS, SUBNETS, strict=True))
    ),
    "metadata",
)
HOST_ENIS = tuple(
    Eni(
        e.eni_id,
        e.subnet_id,
        e.vpc_id,
        e.mac,
        owner_id=ACCOUNT,
        instance_id="i-1",
        instance_owner_id=ACCOUNT,
        addresses=(pack_address("10.0.0.5"),),
    )
    for e in HOST.enis
)
MACS = [b"\x02\0\0\0\1" + bytes([n]) for n in range(6)]

addresses = st.one_of(
    st.integers(0, 31).map(lambda n: bytes([10, 0, 0, n])),
    st.integers(0, 31).map(lambda n: pack_address("fd00:1::")[:15] + bytes([n])),
    st.sampled_from(
        [
            pack_address(a)
            for a in (
                "10.0.1.7",
                "169.254.169.254",
                "fe80::1",
                "224.0.0.1",
                "ff02::1",
                "fd00:ec2::254",
            )
        ]
    ),
)
lladdrs = st.one_of(st.none(), st.sampled_from(MACS), st.binary(max_size=8))
neighbours = st.builds(
    Neighbour,
    ifindex=st.sampled_from([1, 2, 2, 2, 3, 3, 9]),
    address=addresses,
    lladdr=lladdrs,
    state=st.sampled_from([0, 1, 2, 2, 2, 4, 4, 8, 16, 32, 64, 128, 3]),
    flags=st.sampled_from([0, 0, 0, 0, 0, 8, 16, 128, 0x100, 0x200, 0x400, 0x8000]),
    protocol=st.sampled_from([0, 0, 3, 186]),
    confirmed=st.floats(0, 1e5),
)


def _eni(number: int) -> st.SearchStrategy[Eni]:
    subnet = st.sampled_from(SUBNETS)
    return st.builds(
        lambda subnet, mac, status, held, prefixes, kind: Eni(
            f"eni-{number}",
            subnet.subnet_id,
            subnet.vpc_id,
            mac,
            status=status,
            interface_type=kind,
            owner_id=ACCOUNT,
            addresses=tuple(held),
            prefixes=tuple(prefixes),
        ),
        subnet,
        st.sampled_from(MACS),
        st.sampled_from(["in-use", "in-use", "in-use", "available", "detaching", ""]),
        st.lists(addresses, max_size=6, unique=True),
        st.lists(
            st.sampled_from([Prefix.parse("10.0.0.16/28"), Prefix.parse("10.0.0.16/29")]),
            max_size=2,
        ),
        st.sampled_from(["interface", "interface", "lambda"]),
    )


enis = st.integers(0, 6).flatmap(lambda n: st.tuples(*map(_eni, range(n))))
tables = st.lists(neighbours, max_size=25, unique_by=lambda n: n.key)
policies = st.builds(
    Policy,
    on_mismatch=st.sampled_from(["delete", "probe", "replace", "report"]),
    on_orphan=st.sampled_from(["delete", "probe", "report"]),
    ignore_interface_types=st.sampled_from([frozenset[str](), frozenset({"lambda"})]),
    protect=st.sampled_from([(), (Prefix.parse("10.0.0.8/30"),)]),
)
subnet_owners = st.sampled_from([ACCOUNT, ACCOUNT, None, "999988887777"])
next_hops = st.builds(
    lambda every, default: NextHops(frozenset(every) | frozenset(default), frozenset(default)),
    st.lists(addresses, max_size=3),
    st.lists(addresses, max_size=1),
)


def make_view(
    enis: tuple[Eni, ...],
    policy: Policy = Policy(),  # noqa: B008 - a frozen value.
    hops: NextHops = NextHops(),  # noqa: B008 - the same.
    owner: str | None = ACCOUNT,
    *,
    sees_managed: bool = True,
) -> View:
    """Look at a small world with two managed links, 2 and 3."""
    subnets = {s.subnet_id: replace(s, owner_id=owner) for s in SUBNETS}
    reading = Reading(
        2.0,
        3.0,
        datetime(2026, 1, 1, tzinfo=UTC),
        (*HOST_ENIS, *enis),
        subnets,
        1,
        sees_managed=sees_managed,
    )
    table = Table(LINKS, frozenset({pack_address("10.0.0.5")}), hops, (), 1.0)
    links = {
        link.index: ManagedLink(link, eni, subnets[eni.subnet_id])
        for link, eni in zip(LINKS, HOST_ENIS, strict=True)
    }
    return view(table, HOST, reading, links, {1: "it is lo"}, policy, Ownership(reading.enis))
