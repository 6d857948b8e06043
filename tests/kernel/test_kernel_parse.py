"""The parsers of netlink bytes: every layout, and every lack of one."""

import struct
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Key, Link, Neighbour, pack_address, pack_mac
from reconciler.errors import KernelError
from reconciler.kernel import netlink
from reconciler.kernel.netlink import (
    NetlinkRefusal,
    Nexthop,
    Probes,
    Route,
    answers,
    pack_attribute,
    pack_message,
)

# Recorded from Linux 6.18: 10.0.0.2 REACHABLE, and 2001:db8::9 STALE.
RECORDED_IPV4 = bytes.fromhex(
    "020000000200000002000001080001000a0000020a00020002000000000200000800040004000000"
    "1400030082000000820000008200000001000000"
)
RECORDED_IPV6 = bytes.fromhex(
    "0a00000002000000040000011400010020010db80000000000000000000000090a000200020000000009"
    "0000080004000000000014000300f2170000820000008200000000000000"
)
MAC = pack_mac("02:00:00:00:00:02")
DST = pack_attribute(1, pack_address("10.0.0.2"))
LLADDR = pack_attribute(2, MAC)
PROBES = pack_attribute(4, struct.pack("=I", 4))
CACHEINFO = pack_attribute(3, struct.pack("=4I", 130, 130, 130, 1))


def ndmsg(*attributes: bytes, family: int = 2, state: int = 2, flags: int = 0) -> bytes:
    """Lay out a neighbour message by hand."""
    return struct.pack("=B3xiHBB", family, 2, state, flags, 1) + b"".join(attributes)


def rtmsg(*attributes: bytes, family: int = 2, dst_len: int = 24, kind: int = 1) -> bytes:
    """Lay out a route message by hand."""
    head = struct.pack("=8BI", family, dst_len, 0, 0, 254, 3, 0, kind, 0)
    return head + b"".join(attributes)


def test_a_recorded_ipv4_entry_is_read_whole() -> None:
    """The usual layout gives address, MAC, state and the ages in seconds."""
    expected = Neighbour(2, pack_address("10.0.0.2"), MAC, 2, 0, 0, 1.3, 1.3, 1.3)
    assert expected == netlink.parse_neighbour(RECORDED_IPV4)


def test_a_recorded_ipv6_entry_is_read_whole() -> None:
    """The usual IPv6 layout gives the same."""
    mac = pack_mac("02:00:00:00:00:09")
    expected = Neighbour(2, pack_address("2001:db8::9"), mac, 4, 0, 0, 61.3, 1.3, 1.3)
    assert expected == netlink.parse_neighbour(RECORDED_IPV6)


def test_the_order_of_attributes_does_not_matter() -> None:
    """Any order gives the same entry as the usual one, also with an unknown attribute between."""
    usual = [DST, LLADDR, PROBES, CACHEINFO]
    expected = netlink.parse_neighbour(RECORDED_IPV4)
    for extra in ([], [pack_attribute(999, b"what?")]):
        for order in permutations(usual + extra):
            assert expected == netlink.parse_neighbour(ndmsg(*order))


def test_protocol_and_extended_flags_are_kept() -> None:
    """NDA_PROTOCOL is kept, and NDA_FLAGS_EXT stands above the low byte of the flags."""
    entry = netlink.parse_neighbour(
        ndmsg(
            DST,
            LLADDR,
            pack_attribute(12, b"\xba"),
            pack_attribute(15, struct.pack("=I", 5)),
            flags=0x80,
        )
    )
    assert entry is not None
    assert (186, 0x0580) == (entry.protocol, entry.flags)


@pytest.mark.parametrize("size", [1, 4, 8, 20, 32])
def test_a_link_layer_address_may_have_any_length(size: int) -> None:
    """Infiniband has 20 bytes, tunnels 4: the bytes are kept as they are."""
    entry = netlink.parse_neighbour(ndmsg(DST, pack_attribute(2, bytes(range(size)))))
    assert entry is not None
    assert bytes(range(size)) == entry.lladdr


@pytest.mark.parametrize("attributes", [(DST,), (DST, pack_attribute(2, b""))])
def test_no_link_layer_address_is_none(attributes: tuple[bytes, ...]) -> None:
    """A missing one and one of no bytes are the same: there is none."""
    entry = netlink.parse_neighbour(ndmsg(*attributes, state=1))
    assert entry is not None
    assert entry.lladdr is None


def test_other_families_are_passed_over() -> None:
    """A bridge's forwarding entry (family 7) is no neighbour."""
    assert netlink.parse_neighbour(ndmsg(LLADDR, family=7)) is None


@pytest.mark.parametrize("dst", [b"", b"\x0a\x00\x00", bytes(16)])
def test_an_address_of_another_length_is_an_error(dst: bytes) -> None:
    """An entry that cannot be named cannot be judged."""
    with pytest.raises(KernelError):
        netlink.parse_neighbour(ndmsg(pack_attribute(1, dst), LLADDR))


def test_a_message_cut_anywhere_raises_or_ends_at_an_attribute() -> None:
    """No cut yields another address, MAC or exception: at most the later attributes lack."""
    for message in (RECORDED_IPV4, RECORDED_IPV6):
        whole = netlink.parse_neighbour(message)
        assert whole is not None
        for size in range(len(message)):
            try:
                entry = netlink.parse_neighbour(message[:size])
            except KernelError:
                continue
            assert entry is not None
            assert whole.address == entry.address
            assert entry.lladdr in (None, whole.lladdr)


def test_links_give_kind_and_master() -> None:
    """IFLA_INFO_KIND is read out of its nest; what hangs on a bridge names it."""
    info = pack_attribute(1, b"vlan\0") + pack_attribute(2, bytes(12))
    message = (
        struct.pack("=BxHiII", 0, 1, 7, 0, 0)
        + pack_attribute(3, b"eth0.5\0")
        + pack_attribute(1, MAC)
        + pack_attribute(10, struct.pack("=I", 9))
        + pack_attribute(18 | 0x8000, info)
    )
    assert Link(7, "eth0.5", MAC, "vlan", 9) == netlink.parse_link(message)


def test_a_port_of_a_bond_is_itself_of_no_kind() -> None:
    """IFLA_INFO_SLAVE_KIND is the master's kind, not the link's."""
    message = (
        struct.pack("=BxHiII", 0, 1, 7, 0, 0)
        + pack_attribute(3, b"eth0\0")
        + pack_attribute(18, pack_attribute(4, b"bond\0"))
    )
    assert Link(7, "eth0", b"", None, None) == netlink.parse_link(message)


def test_on_a_point_to_point_link_the_peer_is_not_our_address() -> None:
    """IFA_LOCAL is ours wherever there is one; else IFA_ADDRESS is."""
    ours, peer = pack_address("10.0.0.1"), pack_address("10.9.9.9")
    head = struct.pack("=BBBBI", 2, 32, 0, 0, 3)
    both = head + pack_attribute(1, peer) + pack_attribute(2, ours)
    assert [ours, peer] == [
        netlink.parse_local_address(both),
        netlink.parse_local_address(head + pack_attribute(1, peer)),
    ]


def test_every_way_to_name_a_gateway_is_read() -> None:
    """RTA_GATEWAY, RTA_VIA, both inside RTA_MULTIPATH, and a nexthop id."""
    four, six = pack_address("10.0.0.9"), pack_address("fe80::9")
    gateway, via = pack_attribute(5, four), pack_attribute(18, struct.pack("=H", 10) + six)
    hops = b"".join(
        struct.pack("=HBBi", 8 + len(inner), 0, 0, 3) + inner for inner in (gateway, via)
    )
    assert [
        Route(default=False, gateways=(four,), nexthop_id=0),
        Route(default=True, gateways=(six,), nexthop_id=0),
        Route(default=True, gateways=(four, six), nexthop_id=0),
        Route(default=False, gateways=(), nexthop_id=77),
    ] == [
        netlink.parse_route(rtmsg(gateway)),
        netlink.parse_route(rtmsg(via, dst_len=0)),
        netlink.parse_route(rtmsg(pack_attribute(9, hops), dst_len=0)),
        netlink.parse_route(rtmsg(pack_attribute(30, struct.pack("=I", 77)))),
    ]


@pytest.mark.parametrize("message", [rtmsg(), rtmsg(kind=2), rtmsg(family=28), rtmsg(kind=7)])
def test_routes_without_gateway_say_nothing(message: bytes) -> None:
    """On-link, local, blackhole and MPLS routes have no next hop here."""
    assert netlink.parse_route(message) is None


def test_routes_of_one_tail_share_their_next_hops() -> None:
    """The tail is what follows table and destination; a default route has none to share."""
    table, dst = pack_attribute(15, struct.pack("=I", 254)), pack_attribute(1, bytes(4))
    gateway = pack_attribute(5, pack_address("10.0.0.9"))
    assert [gateway, None, None, None] == [
        netlink.route_tail(rtmsg(table, dst, gateway)),
        netlink.route_tail(rtmsg(table, dst, gateway, dst_len=0)),
        netlink.route_tail(rtmsg(table, dst, gateway, kind=7)),
        netlink.route_tail(rtmsg(dst, table, gateway)),
    ]


def test_a_next_hop_of_no_length_does_not_loop() -> None:
    """A multipath walk that would not advance is an error."""
    with pytest.raises(KernelError):
        netlink.parse_route(rtmsg(pack_attribute(9, bytes(8))))


def test_nexthop_objects_and_groups_are_read() -> None:
    """An object has a gateway, a group has members."""
    number = pack_attribute(1, struct.pack("=I", 5))
    address = pack_address("10.0.0.7")
    group = struct.pack("=IBBH", 1, 0, 0, 0) + struct.pack("=IBBH", 2, 0, 0, 0)
    assert [Nexthop(5, address, ()), Nexthop(5, None, (1, 2))] == [
        netlink.parse_nexthop(bytes(8) + number + pack_attribute(6, address)),
        netlink.parse_nexthop(bytes(8) + number + pack_attribute(2, group)),
    ]


def test_unicast_probes_are_read_per_link() -> None:
    """NDTPA_UCAST_PROBES comes with the link it counts for; other tables are passed over."""
    parms = pack_attribute(1, struct.pack("=I", 3)) + pack_attribute(10, struct.pack("=I", 0))
    message = bytes(4) + pack_attribute(1, b"arp_cache\0") + pack_attribute(6, parms)
    other = bytes(4) + pack_attribute(1, b"clip_arp_cache\0") + pack_attribute(6, parms)
    assert [Probes(3, 0), None] == [netlink.parse_probes(message), netlink.parse_probes(other)]


# ------------------------------------------------------------ whole answers

SEQUENCE, PORT, KIND = 7, 42, netlink.RTM_NEWNEIGH


def reply(kind: int, body: bytes, *, flags: int = 2, sequence: int = SEQUENCE) -> bytes:
    """Lay out one message from the kernel, padded as in a datagram of several."""
    message = pack_message(kind, flags, sequence, body)
    message = message[:12] + struct.pack("=I", PORT) + message[16:]
    return message + bytes(-len(message) % 4)


def read(*datagrams: bytes) -> list[bytes]:
    """Read datagrams as one answer."""
    return list(answers(datagrams, SEQUENCE, PORT, KIND))


DONE = reply(netlink.NLMSG_DONE, bytes(4))


def test_the_end_may_share_a_datagram_with_data() -> None:
    """What stands before NLMSG_DONE in its datagram counts, and what comes after does not."""
    one, two = reply(KIND, b"aaaa"), reply(KIND, b"bbbbb")
    assert [b"aaaa", b"bbbbb"] == read(one, two + DONE + reply(KIND, b"no"))


def test_strangers_are_passed_over() -> None:
    """Another request's messages, another port's and unknown types do not count."""
    port = bytearray(reply(KIND, b"port"))
    port[12] = 43
    late = reply(KIND, b"late", sequence=6)
    ended = reply(netlink.NLMSG_DONE, struct.pack("=i", -1), sequence=6)
    assert [b"ours"] == read(
        late + bytes(port) + reply(99, b""), ended, reply(KIND, b"ours") + DONE
    )


def test_an_error_inside_the_end_is_an_error() -> None:
    """An errno in NLMSG_DONE is no empty table; its text comes along."""
    body = struct.pack("=i", -22) + pack_attribute(1, b"Invalid header\0")
    with pytest.raises(NetlinkRefusal, match="Invalid header") as caught:
        read(reply(netlink.NLMSG_DONE, body, flags=0x202))
    assert caught.value.errno == 22


@pytest.mark.parametrize("capped", [True, False])
def test_a_refusal_gives_errno_and_text(capped: bool) -> None:  # noqa: FBT001 - a parameter.
    """NLMSG_ERROR repeats the request, whole or capped, before it says why."""
    asked = pack_message(KIND, 1, SEQUENCE, b"body")
    echoed = asked[:16] if capped else asked
    body = struct.pack("=i", -1) + echoed + pack_attribute(1, b"Because\0")
    with pytest.raises(NetlinkRefusal, match="Because") as caught:
        read(reply(netlink.NLMSG_ERROR, body, flags=0x300 if capped else 0x200))
    assert caught.value.errno == 1


def test_an_interrupted_dump_is_not_whole() -> None:
    """NLM_F_DUMP_INTR on any message voids the dump, once its end was read."""
    with pytest.raises(netlink.InterruptedDump):
        read(reply(KIND, b"aaaa", flags=0x12), DONE)


@pytest.mark.parametrize(
    "datagrams",
    [
        (),
        (reply(KIND, b"aaaa"),),
        (b"\1\2\3",),
        (bytes(16),),
        (struct.pack("=IHHII", 17, KIND, 0, SEQUENCE, PORT),),
        (reply(netlink.NLMSG_ERROR, b""),),
        (reply(netlink.NLMSG_ERROR, struct.pack("=i", -1)),),
        (reply(netlink.NLMSG_DONE, b"\1"),),
        (reply(netlink.NLMSG_DONE, struct.pack("=i", 5)),),
        (reply(netlink.NLMSG_DONE, struct.pack("=i", -(2**31))),),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(datagrams: tuple[bytes, ...]) -> None:
    """No end, cut headers, lengths of nothing or too much, codes that are no errno."""
    with pytest.raises(KernelError, match="Nothing was changed"):
        read(*datagrams)


def test_a_message_that_overruns_its_datagram_is_not_believed() -> None:
    """Half a message is no message, even when the end follows in the next datagram."""
    with pytest.raises(KernelError, match="longer than its datagram"):
        read(reply(KIND, b"whole")[:-4], DONE)


PARSERS: list[Callable[[bytes], object]] = [
    netlink.parse_neighbour,
    netlink.parse_link,
    netlink.parse_local_address,
    netlink.parse_route,
    netlink.route_tail,
    netlink.parse_nexthop,
    netlink.parse_probes,
    read,
]


@given(
    st.sampled_from(PARSERS),
    st.binary(max_size=80)
    | st.lists(
        st.builds(pack_attribute, st.integers(0, 40), st.binary(max_size=24)), max_size=6
    ).map(lambda parts: ndmsg(*parts))
    | st.lists(
        st.builds(pack_attribute, st.integers(0, 40), st.binary(max_size=24)), max_size=6
    ).map(lambda parts: rtmsg(*parts))
    | st.builds(reply, st.sampled_from([2, 3, 28]), st.binary(max_size=40)),
    st.integers(0, 200),
)
def test_any_bytes_are_read_or_refused(
    parse: Callable[[bytes], object], payload: bytes, cut: int
) -> None:
    """Whatever comes: a value, KernelError or the kernel's errno, and an end."""
    for given_bytes in (payload, payload[:cut]):
        try:
            parse(given_bytes)
        except (KernelError, NetlinkRefusal):
            continue


def test_a_neighbour_is_named_in_four_byte_steps() -> None:
    """The request for one entry is ndmsg and NDA_DST, padded."""
    body = netlink.pack_neighbour_request(Key(2, pack_address("10.0.0.2")))
    assert ndmsg(DST, state=0)[:11] + b"\0" + DST == body
