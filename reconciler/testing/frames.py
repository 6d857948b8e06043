"""The frames that the lab's wire reads and writes: ARP, neighbour discovery, TCP."""

import ctypes
import socket
import struct
from typing import NamedTuple

from reconciler.core.model import Address, Mac

ETH_P_ALL = 0x0003
ARP = b"\x08\x06"
IPV4 = b"\x08\x00"
IPV6 = b"\x86\xdd"

# Where things stand in a frame, for ``accept_only``.
DESTINATION_AT = 0
ETHERTYPE_AT = 12
IPV4_PROTOCOL_AT = 23
IPV4_DESTINATION_AT = 30
IPV6_NEXT_HEADER_AT = 20
IPV6_DESTINATION_AT = 38
ICMPV6_TYPE_AT = 54

_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_ATTACH_FILTER = 26
_ICMPV6 = 58
_SOLICITATION = 135
_ADVERTISEMENT = 136
_TARGET_LLADDR = 2


class Request(NamedTuple):
    """An ARP request or a neighbour solicitation: who asks for which address."""

    target: Address
    sender: Address
    sender_mac: Mac


def parse_request(frame: bytes) -> Request | None:
    """Read an ARP request (RFC 826) or a neighbour solicitation (RFC 4861); None for others."""
    kind = frame[ETHERTYPE_AT:14]
    if kind == ARP and len(frame) >= 42 and frame[14:22] == b"\x00\x01\x08\x00\x06\x04\x00\x01":
        return Request(target=frame[38:42], sender=frame[28:32], sender_mac=frame[22:28])
    if kind == IPV6 and len(frame) >= 78 and (frame[20], frame[54]) == (_ICMPV6, _SOLICITATION):
        return Request(target=frame[62:78], sender=frame[22:38], sender_mac=frame[6:12])
    return None


def answer(request: Request, lladdr: Mac, *, source: Mac, router: bool) -> bytes:
    """Write the reply that says the target is at ``lladdr``, in a frame sent by ``source``."""
    if len(request.target) == 4:
        return b"".join(
            (
                request.sender_mac + source + ARP,
                b"\x00\x01\x08\x00\x06\x04\x00\x02",
                lladdr + request.target,
                request.sender_mac + request.sender,
            )
        )
    # Solicited and Override always; Router where it is one (RFC 4861, 4.4).
    flags = 0xE0000000 if router else 0x60000000
    option = bytes((_TARGET_LLADDR, 1)) + lladdr
    body = struct.pack("!I", flags) + request.target + option
    addresses = request.target + request.sender
    pseudo = addresses + struct.pack("!II", len(body) + 4, _ICMPV6)
    checksum = _checksum(pseudo + bytes((_ADVERTISEMENT, 0, 0, 0)) + body)
    message = struct.pack("!BBH", _ADVERTISEMENT, 0, checksum) + body
    # Receivers drop neighbour discovery whose hop limit is not 255.
    header = struct.pack("!IHBB", 0x60000000, len(message), _ICMPV6, 255) + addresses
    return request.sender_mac + source + IPV6 + header + message


def tcp_ports(frame: bytes) -> tuple[int, int] | None:
    """Return a TCP frame's source and destination port; None for anything else."""
    kind = frame[ETHERTYPE_AT:14]
    if kind == IPV4 and len(frame) >= 34 and frame[IPV4_PROTOCOL_AT] == socket.IPPROTO_TCP:
        start = 14 + (frame[14] & 0x0F) * 4
    elif kind == IPV6 and len(frame) >= 54 and frame[IPV6_NEXT_HEADER_AT] == socket.IPPROTO_TCP:
        start = 54
    else:
        return None
    if len(frame) < start + 4:
        return None
    ports: tuple[int, int] = struct.unpack_from("!HH", frame, start)
    return ports


def accept_only(sock: socket.socket, *tests: tuple[int, bytes]) -> None:
    """Let the kernel drop every received frame but those with these bytes at these offsets.

    A classic BPF program (linux/filter.h). Frames that were queued before are
    still delivered, and our own sent frames never are (PACKET_IGNORE_OUTGOING).

    Raises:
        OSError: the kernel refused.
    """
    words = []
    for offset, value in tests:
        done = 0
        while done < len(value):
            size = next(size for size in (4, 2, 1) if size <= len(value) - done)
            words.append((size, offset + done, value[done : done + size]))
            done += size
    load = {4: 0x20, 2: 0x28, 1: 0x30}
    program = b""
    for index, (size, offset, value) in enumerate(words):
        to_drop = 2 * (len(words) - index) - 1
        program += struct.pack("HBBI", load[size], 0, 0, offset)
        program += struct.pack("HBBI", 0x15, 0, to_drop, int.from_bytes(value, "big"))
    program += struct.pack("HBBI", 0x06, 0, 0, 0xFFFF) + struct.pack("HBBI", 0x06, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


__all__ = [
    "DESTINATION_AT",
    "ETHERTYPE_AT",
    "ETH_P_ALL",
    "ICMPV6_TYPE_AT",
    "IPV4_DESTINATION_AT",
    "IPV6_DESTINATION_AT",
    "IPV6_NEXT_HEADER_AT",
    "Request",
    "accept_only",
    "answer",
    "parse_request",
    "tcp_ports",
]
