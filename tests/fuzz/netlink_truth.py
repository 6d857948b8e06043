"""Read mutated netlink bytes a second time, by other means than the code under test.

Messages and attributes are walked here anew, slowly and plainly; the values of
a neighbour are taken from pyroute2's general decoder where it decodes them.
"""

import ipaddress
import struct
from collections import defaultdict
from typing import Any

from fuzz.recorded import PORT, TRUNCATED, Datagram
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from reconciler.core.model import Address, pack_mac

Attributes = dict[int, list[bytes]]

# What kernels before 5.3 answer when they are asked for nexthop objects: there are none.
_EOPNOTSUPP = struct.pack("=i", -95)


def payloads(said: tuple[int, list[Datagram]], kind: int) -> list[bytes] | None:
    """Return the payloads of one answer, or None where it is not whole.

    Whole means: every length inside its datagram, an end without an error, and
    no message that says the dump was interrupted.
    """
    sequence, datagrams = said
    found: list[bytes] = []
    interrupted = False
    for data, sender, flags in datagrams:
        if flags & TRUNCATED or not data:
            return None
        rest = b"" if sender else data
        while rest:
            if len(rest) < 16:
                return None
            length, message, marks, answered, port = struct.unpack_from("=IHHII", rest)
            if not 16 <= length <= len(rest):
                return None
            body, rest = rest[16:length], rest[(length + 3) & ~3 :]
            if (answered, port) != (sequence, PORT):
                continue
            interrupted |= bool(marks & 0x10)
            if message in (2, 3):
                if kind == 104 and body[:4] == _EOPNOTSUPP:
                    return []
                well = body[:4] == bytes(4) or (message == 3 and not body)
                return found if well and not interrupted else None
            if message == kind:
                found.append(body)
    return None


def attributes(body: bytes) -> Attributes:
    """Collect every value of every attribute, as far as the lengths make sense."""
    found: Attributes = defaultdict(list)
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        if not 4 <= length <= len(body):
            break
        found[kind & 0x3FFF].append(body[4:length])
        body = body[(length + 3) & ~3 :]
    return found


def decoded(payload: bytes) -> dict[str, Any] | None:
    """Say what pyroute2 makes of a neighbour, or None where it cannot decode what counts.

    Of an attribute that comes twice the last one counts, as in the kernel's own
    parser; extended flags add up, since each of them forbids.
    """
    message = ndmsg(struct.pack("=IHHII", 16 + len(payload), 28, 2, 1, PORT) + payload)
    message.decode()
    values: dict[str, Any] = {"NDA_LLADDR": "", "NDA_PROTOCOL": 0}
    extended = 0
    for name, value in message["attrs"]:
        if name in ("NDA_DST", "NDA_LLADDR") and not isinstance(value, str):
            return None
        if name == "NDA_FLAGS_EXT":
            if not isinstance(value, int):
                return None
            extended |= value
        values[name] = value
    try:
        address = ipaddress.ip_address(values["NDA_DST"]).packed
        lladdr = pack_mac(values["NDA_LLADDR"]) if values["NDA_LLADDR"] else None
    except (KeyError, ValueError):
        return None
    return {
        "ifindex": message["ifindex"],
        "address": address,
        "lladdr": lladdr,
        "state": message["state"],
        "flags": message["flags"] | extended << 8,
    }


_FAMILIES = (struct.pack("=H", 2), struct.pack("=H", 10))


def gateways(payload: bytes) -> set[Address]:
    """Return every gateway that a unicast route names, itself or in its next hops."""
    if len(payload) < 12 or payload[0] not in (2, 10) or payload[7] != 1:
        return set()
    return _gateways(payload[12:])


def _gateways(body: bytes) -> set[Address]:
    found = attributes(body)
    via = (value[2:] for value in found[18] if value[:2] in _FAMILIES)
    named = {*found[5], *via}
    for value in found[9]:
        rest = value
        while len(rest) >= 8 and 8 <= (length := struct.unpack_from("=H", rest)[0]) <= len(rest):
            named |= _gateways(rest[8:length])
            rest = rest[(length + 3) & ~3 :]
    return named


__all__ = ["attributes", "decoded", "gateways", "payloads"]
