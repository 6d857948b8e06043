"""The reader against the real kernel, with iproute2 and pyroute2 as oracles."""

from pathlib import Path
from typing import Any

import pytest
from kernel.host import Host, standing
from pyroute2 import IPRoute

from reconciler.clock import boottime
from reconciler.core.model import (
    Key,
    Neighbour,
    NextHops,
    Ntf,
    Nud,
    format_address,
    format_mac,
    pack_address,
    pack_mac,
)
from reconciler.errors import KernelError
from reconciler.kernel.read import NetlinkReader
from reconciler.testing.clock import ManualClock

pytestmark = pytest.mark.kernel


def fill(host: Host) -> None:
    """Put a few hundred entries of every sort into the table."""
    sorts = (
        "nud reachable",
        "nud stale",
        "nud stale proto 17",
        "nud permanent",
        "nud noarp",
        "nud reachable extern_learn",
        "nud stale router",
        "nud permanent proto 186",
        "nud reachable managed proto 42",
    )
    lines = []
    for number in range(300):
        mac = f"lladdr 02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        sort = sorts[number % len(sorts)]
        lines += [
            f"neigh add 10.0.0.{number} {mac} dev v0 {sort}" if 10 <= number < 250 else "",
            f"neigh add 2001:db8::1:{number:x} {mac} dev v0 {sort}",
        ]
    lines += ["neigh add 10.0.0.251 dev v0 use", "neigh add 2001:db8::2:1 dev v0 use"]
    host.ip(*filter(None, lines))


def as_ip_prints(entry: Neighbour) -> dict[str, Any]:
    """Say of an entry what ``ip -json -statistics neigh`` says of it."""
    printed: dict[str, Any] = {"dst": format_address(entry.address), "state": [entry.nud]}
    if entry.lladdr is not None:
        printed["lladdr"] = format_mac(entry.lladdr)
    if entry.protocol:
        printed["protocol"] = str(entry.protocol)
    for flag, name in (
        (Ntf.ROUTER, "router"),
        (Ntf.EXT_LEARNED, "extern_learn"),
        (Ntf.MANAGED, "managed"),
    ):
        if entry.flags & flag:
            printed[name] = None
    return printed


def entries(reader: NetlinkReader) -> list[Neighbour]:
    """Read the table without multicast groups, which the kernel joins when it likes."""
    return [entry for entry in reader.table().neighbours if entry.address[0] != 0xFF]


def test_the_table_is_what_ip_neigh_prints(host: Host, reader: NetlinkReader) -> None:
    """Address, MAC, state, flags, protocol and ages of hundreds of mixed entries agree."""
    fill(host)
    printed = host.show("-Numeric", "neigh", "show", "nud", "all")
    said = {element["dst"]: element for element in printed if element["dst"][:2] != "ff"}
    read = {format_address(entry.address): entry for entry in entries(reader)}
    assert len(read) > 500
    assert said.keys() == read.keys()
    for address, entry in read.items():
        ages = [said[address].pop(age) for age in ("confirmed", "used", "updated")]
        for name in ("dev", "refcnt", "probes"):
            said[address].pop(name, None)
        assert said[address] == as_ip_prints(entry)
        assert ages == pytest.approx([entry.confirmed, entry.used, entry.updated], abs=1.5)


def test_the_table_is_what_pyroute2_decodes(host: Host, reader: NetlinkReader) -> None:
    """The general decoder sees the same entries with the same flags."""
    fill(host)
    with IPRoute() as ipr:
        decoded = [message for message in ipr.get_neighbours() if message["family"] in {2, 10}]

    def name(message: Any) -> tuple[object, ...]:
        extended = message.get_attr("NDA_FLAGS_EXT") or 0
        return (
            message["ifindex"],
            message.get_attr("NDA_DST"),
            message.get_attr("NDA_LLADDR"),
            message["state"],
            message["flags"] | extended << 8,
            message.get_attr("NDA_PROTOCOL") or 0,
        )

    def name_ours(entry: Neighbour) -> tuple[object, ...]:
        lladdr = None if entry.lladdr is None else format_mac(entry.lladdr)
        address = format_address(entry.address)
        return entry.ifindex, address, lladdr, entry.state, entry.flags, entry.protocol

    named = [name(message) for message in decoded if message.get_attr("NDA_DST")[:2] != "ff"]
    assert sorted(named, key=str) == sorted(map(name_ours, entries(reader)), key=str)


def test_links_and_addresses_are_what_ip_prints(host: Host, reader: NetlinkReader) -> None:
    """Index, name, MAC, kind and master; the own addresses, not a point-to-point peer's."""
    host.ip(
        "link add br0 type bridge",
        "link add m0 link v0 type macvlan",
        "link add x0 type vxlan id 5 dstport 4789",
        "link set x0 master br0",
        "addr add 10.7.0.1 peer 10.7.0.2 dev br0",
        "addr add 2001:db8:7::1 peer 2001:db8:7::2 dev br0",
    )
    table = reader.table()
    printed = host.show("link")
    index = {element["ifname"]: element["ifindex"] for element in printed}
    assert {
        (
            element["ifindex"],
            element["ifname"],
            pack_mac(element["address"]),
            element.get("linkinfo", {}).get("info_kind"),
            index.get(element.get("master", "")),
        )
        for element in printed
    } == {(link.index, link.name, link.mac, link.kind, link.master) for link in table.links}
    assert {
        pack_address(info["local"])
        for element in host.show("addr")
        for info in element["addr_info"]
    } == table.addresses
    assert pack_address("10.7.0.2") not in table.addresses


def packed(*addresses: str) -> frozenset[bytes]:
    """Pack a set of addresses."""
    return frozenset(map(pack_address, addresses))


@pytest.mark.parametrize("compatible", [0, 1])
def test_next_hops_of_every_kind_are_found(
    host: Host, reader: NetlinkReader, compatible: int
) -> None:
    """Plain, via, multipath, other tables, nexthop objects and groups, shown or not shown."""
    Path("/proc/sys/net/ipv4/nexthop_compat_mode").write_text(str(compatible), "ascii")
    host.ip(
        "nexthop add id 1 via 10.0.0.7 dev v0",
        "nexthop add id 2 via 10.0.0.8 dev v0",
        "nexthop add id 3 via 2001:db8::7 dev v0",
        "nexthop add id 4 via 10.0.0.9 dev v0",
        "nexthop add id 10 group 1/2",
        "route add default nhid 10",
        "route add 10.1.0.0/24 nhid 4",
        "route add 10.2.0.0/24 via 10.0.0.20",
        "route add 10.3.0.0/24 via inet6 2001:db8::20",
        "route add 10.4.0.0/24 nexthop via 10.0.0.21 nexthop via inet6 2001:db8::22",
        "route add default via 10.0.0.30 table 77",
        "route add blackhole 10.5.0.0/24",
    )
    host.ip6(
        "route add 2001:db8:1::/48 via 2001:db8::40",
        "route add 2001:db8:2::/48 nexthop via 2001:db8::41 nexthop via 2001:db8::42",
        "route add default nhid 3",
    )
    default = packed("10.0.0.7", "10.0.0.8", "10.0.0.30", "2001:db8::7")
    others = packed(
        "10.0.0.9",
        "10.0.0.20",
        "10.0.0.21",
        *("2001:db8::20", "2001:db8::22", "2001:db8::40", "2001:db8::41", "2001:db8::42"),
    )
    assert NextHops(default | others, default) == reader.table().next_hops


def test_thousands_of_routes_give_their_few_next_hops(host: Host, reader: NetlinkReader) -> None:
    """One odd route among thousands of alike is seen."""
    host.ip(
        *(f"route add 10.{n >> 8}.{n & 255}.0/24 via 10.0.0.{n % 3 + 2}" for n in range(512, 4000)),
        "route add 10.200.0.0/24 via 10.0.0.99",
        *(f"route add 2001:db9:{n:x}::/48 via 2001:db8::{n % 3 + 2:x}" for n in range(2000)),
        "route add 2001:dba::/48 via 2001:db8::99",
    )
    expected = packed(
        *(f"10.0.0.{n}" for n in (2, 3, 4, 99)),
        *(f"2001:db8::{n}" for n in (2, 3, 4, 99)),
    )
    assert NextHops(expected, frozenset()) == reader.table().next_hops


def test_one_entry_is_read_as_the_table_has_it(host: Host, reader: NetlinkReader) -> None:
    """A single reading gives address, MAC, state, flags and protocol, for both families."""
    fill(host)
    for entry in reader.table().neighbours:
        assert standing(reader, entry.key).same_entry(entry)


def test_an_absent_entry_is_none(host: Host, reader: NetlinkReader) -> None:
    """ENOENT and a link that is gone are no errors."""
    assert [None, None, None] == [
        reader.neighbour(host.key("10.0.0.77")),
        reader.neighbour(host.key("2001:db8::77")),
        reader.neighbour(Key(999, pack_address("10.0.0.77"))),
    ]


def test_the_entry_was_seen_when_the_dump_began(host: Host) -> None:
    """The time of the look is read once, from the clock that was given."""
    clock = ManualClock(50.0)
    reader = NetlinkReader(clock)
    table = reader.table()
    reader.close()
    assert len(table.links) == len(host.show("link"))
    assert [50.0 + ManualClock.TICK] * 2 == [table.seen_at, clock.now]


def test_the_fewest_unicast_probes_of_both_families_count(
    host: Host, reader: NetlinkReader
) -> None:
    """NDTPA_UCAST_PROBES is read for the very link."""
    assert reader.ucast_solicit(host.index) == 3
    host.ip("ntable change name ndisc_cache dev v0 ucast_probes 0")
    assert reader.ucast_solicit(host.index) == 0
    assert reader.ucast_solicit(1) == 3


def test_a_link_that_is_gone_has_no_probes(host: Host, reader: NetlinkReader) -> None:
    """Nothing is guessed about an unknown link."""
    assert host.index != 999
    with pytest.raises(KernelError, match="gone"):
        reader.ucast_solicit(999)


def test_a_kernel_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure to read says what was read, what was left alone and what to do."""
    reader = NetlinkReader(boottime)

    def refuse(*_: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr("reconciler.kernel.netlink.socket.socket", refuse)
    for ask in (
        reader.table,
        lambda: reader.neighbour(Key(1, b"\x0a\0\0\1")),
        lambda: reader.ucast_solicit(1),
    ):
        with pytest.raises(KernelError, match=r"Nothing was changed.*AF_NETLINK"):
            ask()


def test_a_reader_stays_in_its_namespace(host: Host, reader: NetlinkReader) -> None:
    """What is read after the thread moved on is still the first namespace's."""
    host.ip("neigh add 10.0.0.5 lladdr 02:00:00:00:00:05 dev v0 nud stale")
    key = host.key("10.0.0.5")
    reader.neighbour(host.key("10.0.0.77"))  # A refusal does not lose the socket.
    with host.peer.entered():
        entry = standing(reader, key)
    assert [Nud.STALE, pack_mac("02:00:00:00:00:05")] == [entry.state, entry.lladdr]
