"""Speak rtnetlink in bytes: one small socket, and parsers that work on packed messages.

The general decoder of pyroute2 costs some 120 µs and 4 KiB for each neighbour,
and lets an error inside NLMSG_DONE pass for an empty table. Everything that is
read comes through here instead; what is written stays with pyroute2.

The parsers are pure functions of bytes. Bytes that make no sense raise
KernelError, never anything else, since a table that was read in part must not
be judged. Sources: linux/netlink.h, rtnetlink.h, neighbour.h, nexthop.h,
if_link.h and if_addr.h.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import NamedTuple, TypeVar

from reconciler.core.model import Address, Key, Link, Neighbour
from reconciler.errors import KernelError

T = TypeVar("T")

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_DUMP = 0x300
NLM_F_ACK_TLVS = 0x200
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWNEIGHTBL, RTM_GETNEIGHTBL = 64, 66
RTM_NEWNEXTHOP, RTM_GETNEXTHOP = 104, 106
RTN_UNICAST = 1

_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

# Dumps come in datagrams of at most 32 KiB; one that outgrew this would be cut and is refused.
_BUFFER = 256 * 1024
_INTERRUPTED_TRIES = 5
_MAX_ERRNO = 4095  # linux/err.h

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_TYPE_MASK = 0x3FFF  # Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
_U16 = Struct("=H")
_U32 = Struct("=I")
_I32 = Struct("=i")

_NDMSG = Struct("=B3xiHBB")
_IFINFOMSG = Struct("=BxHiII")
_RTMSG = Struct("=8BI")
_NEXTHOP = Struct("=HBBi")
_CACHEINFO = Struct("=3I")
_AF_INET, _AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_ADDRESS_SIZES = {_AF_INET: 4, _AF_INET6: 16}

_NDA_DST, _NDA_LLADDR, _NDA_CACHEINFO, _NDA_PROTOCOL, _NDA_FLAGS_EXT = 1, 2, 3, 12, 15
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 10, 18
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID = 5, 9, 18, 30
_NHA_ID, _NHA_GROUP, _NHA_GATEWAY = 1, 2, 6
_NDTA_NAME, _NDTA_PARMS = 1, 6
_NDTPA_IFINDEX, _NDTPA_UCAST_PROBES = 1, 10
_ERROR_MESSAGE = 1

# A plain entry is what the kernel's neigh_fill_info() sends: DST, LLADDR of six
# bytes, PROBES, CACHEINFO. Almost every entry of a table is one, and is unpacked whole.
_PLAIN_IPV4 = Struct("=B3xiHBBI4sI6s2xIIIIIII")
_PLAIN_IPV6 = Struct("=B3xiHBBI16sI6s2xIIIIIII")
_ROUTE_TABLE = _ATTRIBUTE.pack(8, 15)
_ROUTE_DST_IPV4 = _ATTRIBUTE.pack(8, 1)
_ROUTE_DST_IPV6 = _ATTRIBUTE.pack(20, 1)
_PLAIN_DST_IPV4 = _U32.unpack(_ATTRIBUTE.pack(8, _NDA_DST))[0]
_PLAIN_DST_IPV6 = _U32.unpack(_ATTRIBUTE.pack(20, _NDA_DST))[0]
_PLAIN_LLADDR = _U32.unpack(_ATTRIBUTE.pack(10, _NDA_LLADDR))[0]
_PLAIN_PROBES = _U32.unpack(_ATTRIBUTE.pack(8, 4))[0]
_PLAIN_CACHEINFO = _U32.unpack(_ATTRIBUTE.pack(20, _NDA_CACHEINFO))[0]


class NetlinkRefusal(OSError):  # noqa: N818 - the kernel's answer to a request, not a fault.
    """The kernel answered the request with an errno; the socket is fine."""


class InterruptedDump(KernelError):  # noqa: N818 - named like the flag it stands for.
    """The table changed under the dump (NLM_F_DUMP_INTR); what was read is not whole."""


# ---------------------------------------------------------------- messages


def pack_attribute(kind: int, value: bytes) -> bytes:
    """Pack one attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def pack_message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Pack one message to the kernel (port 0)."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def pack_neighbour_request(key: Key) -> bytes:
    """Pack the body that names one neighbour: ndmsg and NDA_DST."""
    family = _AF_INET if len(key.address) == 4 else _AF_INET6
    return _NDMSG.pack(family, key.ifindex, 0, 0, 0) + pack_attribute(_NDA_DST, key.address)


def answers(datagrams: Iterable[bytes], sequence: int, port: int, kind: int) -> Iterator[bytes]:
    """Yield the payloads of ``kind`` that answer one request, up to its NLMSG_DONE or ack.

    Messages of another request, another port or an unknown type are passed over.

    Raises:
        NetlinkRefusal: NLMSG_ERROR, or an error inside NLMSG_DONE (strict
            checking answers a wrong header of a dump there).
        InterruptedDump: the dump is not whole.
        KernelError: a length makes no sense, or the datagrams end too early.
    """
    interrupted = False
    unpack = _HEADER.unpack_from
    for datagram in datagrams:
        size = len(datagram)
        start = 0
        while start < size:
            if size - start < 16:
                raise _malformed("a message header is cut")
            length, message, flags, answered, receiver = unpack(datagram, start)
            end = start + length
            if length < 16 or end > size:
                raise _malformed("a message is longer than its datagram")
            if answered == sequence and receiver == port:
                if flags & NLM_F_DUMP_INTR:
                    interrupted = True
                if message == kind:
                    yield datagram[start + 16 : end]
                elif message in (NLMSG_DONE, NLMSG_ERROR):
                    _raise_refusal(datagram[start + 16 : end], message, flags)
                    if interrupted:
                        raise InterruptedDump("The kernel's table changed while it was read.")
                    return
            start += (length + 3) & ~3
    raise _malformed("the answer has no end")


def _raise_refusal(payload: bytes, message: int, flags: int) -> None:
    if len(payload) < 4:
        # An old kernel's NLMSG_DONE may be empty; an error never is.
        if message == NLMSG_DONE and not payload:
            return
        raise _malformed("an error message is cut")
    (code,) = _I32.unpack_from(payload)
    if code == 0:
        return
    if not -_MAX_ERRNO <= code < 0:
        raise _malformed("an error has no errno")
    start = 4
    if message == NLMSG_ERROR:
        # The refused request follows, whole unless it was capped to its header.
        if len(payload) < 20:
            raise _malformed("an error message is cut")
        asked = 16 if flags & NLM_F_CAPPED else _U32.unpack_from(payload, 4)[0]
        start += (asked + 3) & ~3
    text = os.strerror(-code)
    if flags & NLM_F_ACK_TLVS:
        for kind, first, end in attributes(payload, start):
            if kind == _ERROR_MESSAGE:
                text += f" ({_text(payload[first:end])})"
    raise NetlinkRefusal(-code, text)


def attributes(payload: bytes, start: int, stop: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield (type, first byte, end) of each attribute between two offsets.

    Raises:
        KernelError: a length leaves the message.
    """
    end = len(payload) if stop is None else stop
    while start < end:
        if end - start < 4:
            raise _malformed("an attribute header is cut")
        length, kind = _ATTRIBUTE.unpack_from(payload, start)
        if length < 4 or start + length > end:
            raise _malformed("an attribute is longer than its message")
        yield kind & _TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def _malformed(what: str) -> KernelError:
    return KernelError(
        f"The kernel's netlink answer cannot be understood: {what}. Nothing was changed. "
        "Run again; if it stays, report it with the kernel's version (uname -r)."
    )


def _fixed(payload: bytes, layout: Struct) -> tuple[int, ...]:
    if len(payload) < layout.size:
        raise _malformed("a message is shorter than its fixed part")
    return layout.unpack_from(payload)


def _number(payload: bytes, start: int, end: int, layout: Struct = _U32) -> int:
    if end - start < layout.size:
        raise _malformed("a number is cut")
    value: int = layout.unpack_from(payload, start)[0]
    return value


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


# ----------------------------------------------------------------- parsers


def parse_neighbour(payload: bytes) -> Neighbour | None:
    """Read one RTM_NEWNEIGH payload; None for families other than IPv4 and IPv6.

    The ages of NDA_CACHEINFO (1/100 s, whatever the kernel's HZ) become seconds.

    Raises:
        KernelError: the bytes make no sense.
    """
    size = len(payload)
    if size == 60 and payload[0] == _AF_INET:
        plain, dst_header = _PLAIN_IPV4.unpack(payload), _PLAIN_DST_IPV4
    elif size == 72 and payload[0] == _AF_INET6:
        plain, dst_header = _PLAIN_IPV6.unpack(payload), _PLAIN_DST_IPV6
    else:
        return _parse_any_neighbour(payload)
    (_, ifindex, state, flags, _, dst, address, lladdr_header, lladdr) = plain[:9]
    probes, _, cacheinfo, confirmed, used, updated, _ = plain[9:]
    if (dst, lladdr_header, probes, cacheinfo) != (
        dst_header,
        _PLAIN_LLADDR,
        _PLAIN_PROBES,
        _PLAIN_CACHEINFO,
    ):
        return _parse_any_neighbour(payload)
    return Neighbour(
        ifindex, address, lladdr, state, flags, 0, confirmed / 100, used / 100, updated / 100
    )


def _parse_any_neighbour(payload: bytes) -> Neighbour | None:
    family, ifindex, state, flags, _ = _fixed(payload, _NDMSG)
    if family not in _ADDRESS_SIZES:
        return None
    address = lladdr = b""
    protocol = confirmed = used = updated = 0
    for kind, start, end in attributes(payload, _NDMSG.size):
        if kind == _NDA_DST:
            address = payload[start:end]
        elif kind == _NDA_LLADDR:
            lladdr = payload[start:end]
        elif kind == _NDA_CACHEINFO:
            if end - start < _CACHEINFO.size:
                raise _malformed("a neighbour's ages are cut")
            confirmed, used, updated = _CACHEINFO.unpack_from(payload, start)
        elif kind == _NDA_PROTOCOL:
            protocol = payload[start] if end > start else 0
        elif kind == _NDA_FLAGS_EXT:
            flags |= _number(payload, start, end) << 8
    if len(address) != _ADDRESS_SIZES[family]:
        raise _malformed("a neighbour has no address of its family")
    return Neighbour(
        ifindex,
        address,
        lladdr or None,
        state,
        flags,
        protocol,
        confirmed / 100,
        used / 100,
        updated / 100,
    )


def parse_link(payload: bytes) -> Link:
    """Read one RTM_NEWLINK payload; a link without hardware address has an empty one.

    Raises:
        KernelError: the bytes make no sense.
    """
    index = _fixed(payload, _IFINFOMSG)[2]
    name, mac, kind, master = "", b"", None, None
    for attribute, start, end in attributes(payload, _IFINFOMSG.size):
        if attribute == _IFLA_IFNAME:
            name = _text(payload[start:end])
        elif attribute == _IFLA_ADDRESS:
            mac = payload[start:end]
        elif attribute == _IFLA_MASTER:
            master = _number(payload, start, end)
        elif attribute == _IFLA_LINKINFO:
            for nested, first, last in attributes(payload, start, end):
                if nested == _IFLA_INFO_KIND:
                    kind = _text(payload[first:last])
    return Link(index, name, mac, kind, master)


def parse_local_address(payload: bytes) -> Address | None:
    """Read the host's own address out of one RTM_NEWADDR payload.

    On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL is ours;
    where there is no IFA_LOCAL, IFA_ADDRESS is ours. None: another family.

    Raises:
        KernelError: the bytes make no sense.
    """
    if len(payload) < 8:
        raise _malformed("a message is shorter than its fixed part")
    if payload[0] not in _ADDRESS_SIZES:
        return None
    found = {kind: payload[start:end] for kind, start, end in attributes(payload, 8)}
    address = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
    if address is not None and len(address) != _ADDRESS_SIZES[payload[0]]:
        raise _malformed("an own address is not of its family")
    return address


class Route(NamedTuple):
    """What a route says about next hops: gateways in its own message, and a nexthop id or 0."""

    default: bool
    gateways: tuple[Address, ...]
    nexthop_id: int


def parse_route(payload: bytes) -> Route | None:
    """Read one RTM_NEWROUTE payload; None when it is no unicast route or names no gateway.

    Raises:
        KernelError: the bytes make no sense.
    """
    fixed = _fixed(payload, _RTMSG)
    if fixed[0] not in _ADDRESS_SIZES or fixed[7] != RTN_UNICAST:
        return None
    gateways, nexthop_id = _gateways(payload, _RTMSG.size, len(payload))
    if not gateways and not nexthop_id:
        return None
    return Route(fixed[1] == 0, gateways, nexthop_id)


def route_tail(payload: bytes) -> bytes | None:
    """Return what the kernel writes after a unicast route's table and destination.

    Routes of equal tails have equal next hops, whatever their destination. None
    for a default route, and for one laid out in no usual way.
    """
    usual = payload[12:16] == _ROUTE_TABLE
    if usual and payload[1] and payload[7] == RTN_UNICAST:
        if payload[0] == _AF_INET and payload[20:24] == _ROUTE_DST_IPV4:
            return payload[28:]
        if payload[0] == _AF_INET6 and payload[20:24] == _ROUTE_DST_IPV6:
            return payload[40:]
    return None


def _gateways(payload: bytes, start: int, stop: int) -> tuple[tuple[Address, ...], int]:
    gateways: tuple[Address, ...] = ()
    nexthop_id = 0
    for kind, first, end in attributes(payload, start, stop):
        if kind == _RTA_GATEWAY:
            gateways += (_gateway(payload[first:end]),)
        elif kind == _RTA_VIA:
            # IPv4 over an IPv6 hop (and the reverse): struct rtvia, a family and an address.
            if _number(payload, first, end, _U16) in _ADDRESS_SIZES:
                gateways += (_gateway(payload[first + 2 : end]),)
        elif kind == _RTA_NH_ID:
            nexthop_id = _number(payload, first, end)
        elif kind == _RTA_MULTIPATH:
            while first < end:
                if end - first < _NEXTHOP.size:
                    raise _malformed("a next hop is cut")
                length = _NEXTHOP.unpack_from(payload, first)[0]
                if length < _NEXTHOP.size or first + length > end:
                    raise _malformed("a next hop is longer than its route")
                gateways += _gateways(payload, first + _NEXTHOP.size, first + length)[0]
                first += (length + 3) & ~3  # noqa: PLW2901 - the walk inside this attribute.
    return gateways, nexthop_id


def _gateway(address: bytes) -> Address:
    if len(address) not in _ADDRESS_SIZES.values():
        raise _malformed("a gateway is no address")
    return address


class Nexthop(NamedTuple):
    """A nexthop object: a gateway, or the ids of the members of a group."""

    number: int
    gateway: Address | None
    members: tuple[int, ...]


def parse_nexthop(payload: bytes) -> Nexthop:
    """Read one RTM_NEWNEXTHOP payload.

    Raises:
        KernelError: the bytes make no sense.
    """
    if len(payload) < 8:
        raise _malformed("a message is shorter than its fixed part")
    number = 0
    gateway: Address | None = None
    members: tuple[int, ...] = ()
    for kind, start, end in attributes(payload, 8):
        if kind == _NHA_ID:
            number = _number(payload, start, end)
        elif kind == _NHA_GATEWAY:
            gateway = _gateway(payload[start:end])
        elif kind == _NHA_GROUP:
            if (end - start) % 8:
                raise _malformed("a nexthop group is cut")
            members = tuple(_number(payload, at, at + 4) for at in range(start, end, 8))
    return Nexthop(number, gateway, members)


class Probes(NamedTuple):
    """How many unicast probes one table sends on one link (``ifindex`` 0: the default)."""

    ifindex: int
    ucast: int


def parse_probes(payload: bytes) -> Probes | None:
    """Read NDTPA_UCAST_PROBES out of one RTM_NEWNEIGHTBL payload; None for other tables.

    Raises:
        KernelError: the bytes make no sense.
    """
    if len(payload) < 4:
        raise _malformed("a message is shorter than its fixed part")
    name, ifindex, ucast = "", 0, None
    for kind, start, end in attributes(payload, 4):
        if kind == _NDTA_NAME:
            name = _text(payload[start:end])
        elif kind == _NDTA_PARMS:
            for nested, first, last in attributes(payload, start, end):
                if nested == _NDTPA_IFINDEX:
                    ifindex = _number(payload, first, last)
                elif nested == _NDTPA_UCAST_PROBES:
                    ucast = _number(payload, first, last)
    if name not in ("arp_cache", "ndisc_cache") or ucast is None:
        return None
    return Probes(ifindex, ucast)


# ------------------------------------------------------------------ socket


class NetlinkSocket:
    """Ask the kernel, one request at a time, on a socket that is opened when first needed.

    The socket stays in the network namespace of the thread that opened it. Any
    fault closes it and the next request opens another, so that none sticks; a
    refusal by the kernel is no fault. ``timeout`` is in seconds for each datagram.
    """

    def __init__(self, *, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._port = 0
        self._sequence = 0
        self._buffer = memoryview(bytearray(_BUFFER))

    def dump(
        self, ask: int, body: bytes, answer: int, consume: Callable[[Iterator[bytes]], T]
    ) -> T:
        """Dump a table; ``consume`` gets the payloads, and gets them anew if interrupted.

        Raises:
            OSError: the kernel refused, or did not answer in time.
            KernelError: the answer makes no sense, or was interrupted every time.
        """
        for _ in range(_INTERRUPTED_TRIES):
            try:
                return self._ask(ask, NLM_F_DUMP, body, answer, consume)
            except InterruptedDump:
                continue
        raise KernelError(
            f"The kernel's table changed during each of {_INTERRUPTED_TRIES} readings, so none "
            "was whole. Nothing was changed. Run again when fewer routes and links change."
        )

    def get(self, ask: int, body: bytes, answer: int) -> bytes:
        """Ask for one object.

        Raises:
            OSError: the kernel refused (ENOENT: there is none), or did not answer in time.
            KernelError: the answer makes no sense.
        """
        # The acknowledgement ends the answer, so that nothing is left for the next request.
        payloads = self._ask(ask, NLM_F_ACK, body, answer, list)
        if not payloads:
            raise _malformed("it is empty")
        return payloads[0]

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(
        self,
        ask: int,
        flags: int,
        body: bytes,
        answer: int,
        consume: Callable[[Iterator[bytes]], T],
    ) -> T:
        try:
            sock = self._opened()
            self._sequence = self._sequence % 0xFFFFFFFF + 1
            sock.send(pack_message(ask, NLM_F_REQUEST | flags, self._sequence, body))
            payloads = answers(self._datagrams(sock), self._sequence, self._port, answer)
            result = consume(payloads)
            # What the consumer left would answer the next request.
            for _ in payloads:
                pass
        except (NetlinkRefusal, InterruptedDump):
            raise
        except BaseException:
            self.close()
            raise
        return result

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
            self._socket.settimeout(self._timeout)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            self._socket.bind((0, 0))
            self._port = self._socket.getsockname()[0]
        return self._socket

    def _datagrams(self, sock: socket.socket) -> Iterator[bytes]:
        while True:
            size, _, flags, sender = sock.recvmsg_into([self._buffer])
            if flags & socket.MSG_TRUNC:
                raise _malformed("a datagram is longer than the buffer")
            if size == 0:
                raise _malformed("it is empty")
            if sender[0] == 0:  # Only the kernel has port 0.
                yield bytes(self._buffer[:size])
