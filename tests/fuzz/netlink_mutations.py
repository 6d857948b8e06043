"""Bend netlink answers: first their messages and attributes, then their datagrams' bytes.

A message is taken apart, changed and laid out again, so that most mutations
reach the parsers behind the first length check; lies about lengths are written
over the true ones at the end.
"""

import struct
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

from fuzz.recorded import PORT, TRUNCATED, Datagram

from reconciler.kernel import netlink

_FIXED = {16: 16, 20: 8, 24: 12, 28: 12, 64: 4, 104: 8}
_KINDS = (0, 1, 2, 3, 4, 16, 17, 20, 24, 28, 29, 64, 104, 999, 0xFFFF)
_LENGTHS = (0, 1, 2, 3, 4, 5, 8, 12, 16, 20, 0x7FFF, 0xFFFF)
_SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 12, 15, 16, 17, 20, 32)
# Every attribute that is read, in one message or another, and a few that are not.
_NAMES = (0, 1, 2, 3, 5, 6, 9, 10, 12, 15, 18, 30, 39, 0x3FFF)
_BYTES = (0, 1, 2, 3, 4, 7, 8, 10, 16, 28, 32, 64, 128, 255)
_ERRNOS = (-1, -4, -11, -12, -22, -95, -105, -4095, -4096, -(2**31), 1, 0, 0)


@dataclass
class Attribute:
    """One attribute; ``length`` is a lie about its length, if any."""

    kind: int
    value: bytes
    length: int | None = None

    def pack(self) -> bytes:
        """Lay it out."""
        packed = netlink.pack_attribute(self.kind, self.value)
        return packed if self.length is None else struct.pack("=H", self.length) + packed[2:]


@dataclass
class Message:
    """One message taken apart; ``length`` is a lie about its length, if any."""

    kind: int
    flags: int
    sequence: int
    fixed: bytes
    attributes: list[Attribute] = field(default_factory=list)
    port: int = PORT
    length: int | None = None

    def pack(self) -> bytes:
        """Lay it out, padded as inside a datagram."""
        body = self.fixed + b"".join(attribute.pack() for attribute in self.attributes)
        length = 16 + len(body) if self.length is None else self.length
        head = struct.pack("=IHHII", length, self.kind, self.flags, self.sequence, self.port)
        return head + body + bytes(-len(body) % 4)


Packet = list[Message]


def take_apart(datagram: bytes) -> Packet:
    """Take an honest datagram apart."""
    packet, at = [], 0
    while at < len(datagram):
        length, kind, flags, sequence, port = struct.unpack_from("=IHHII", datagram, at)
        body = datagram[at + 16 : at + length]
        size = _FIXED.get(kind, len(body))
        message = Message(kind, flags, sequence, body[:size], port=port)
        while size < len(body):
            span, name = struct.unpack_from("=HH", body, size)
            message.attributes.append(Attribute(name, body[size + 4 : size + span]))
            size += (span + 3) & ~3
        packet.append(message)
        at += (length + 3) & ~3
    return packet


# ------------------------------------------------- what is done to one message


def _lie_about_message(rng: Random, message: Message) -> None:
    true = len(message.pack())
    message.length = rng.choice(
        (*_LENGTHS, 2**32 - 1, 2**31, true - 1, true - 4, true + 1, true + 4)
    )


def _change_header(rng: Random, message: Message) -> None:
    match rng.randrange(5):
        case 0:
            message.flags |= netlink.NLM_F_DUMP_INTR
        case 1:
            message.flags ^= 1 << rng.randrange(16)
        case 2:
            message.kind = rng.choice(_KINDS)
        case 3:
            message.sequence = rng.choice((0, message.sequence - 1, message.sequence + 1)) % 2**32
        case _:
            message.port = rng.choice((0, PORT + 1))


def _change_fixed(rng: Random, message: Message) -> None:
    if rng.random() < 0.1:
        message.fixed = message.fixed[: rng.randrange(len(message.fixed) + 1)]
    elif message.fixed:
        changed = bytearray(message.fixed)
        changed[rng.randrange(len(changed))] = rng.choice(_BYTES)
        message.fixed = bytes(changed)


def _change_attribute(rng: Random, message: Message) -> None:
    if not message.attributes:
        _add_attribute(rng, message)
        return
    attribute = rng.choice(message.attributes)
    value = attribute.value
    match rng.randrange(6):
        case 0:
            true = 4 + len(value)
            attribute.length = rng.choice((*_LENGTHS, true - 1, true + 1, true + 4)) % 2**16
        case 1:
            attribute.kind = rng.choice((*_NAMES, attribute.kind ^ 0x8000))
        case 2:
            attribute.value = (value + rng.randbytes(32))[: rng.choice(_SIZES)]
        case 3 if len(value) == 4:
            attribute.value = bytes((10, 0, 0, rng.randrange(45)))
        case 4 if value:
            at = rng.randrange(len(value))
            attribute.value = value[:at] + bytes([rng.choice(_BYTES)]) + value[at + 1 :]
        case _:
            # The two bytes at an even place are a length wherever something is nested.
            at = rng.randrange(0, len(value) + 1, 2)
            lie = struct.pack("=H", rng.choice(_LENGTHS))
            attribute.value = value[:at] + lie + value[at + 2 :]


def _add_attribute(rng: Random, message: Message) -> None:
    value = rng.randbytes(rng.choice(_SIZES))
    if rng.random() < 0.3:
        value = Attribute(rng.choice(_NAMES), value, rng.choice((None, *_LENGTHS))).pack()
    added = Attribute(rng.choice(_NAMES) | rng.choice((0, 0, 0x8000)), value)
    message.attributes.insert(rng.randint(0, len(message.attributes)), added)


def _move_attributes(rng: Random, message: Message) -> None:
    attributes = message.attributes
    if not attributes:
        return
    at = rng.randrange(len(attributes))
    match rng.randrange(4):
        case 0:
            del attributes[at]
        case 1:
            attributes.insert(rng.randint(0, len(attributes)), deepcopy(attributes[at]))
        case 2:
            attributes.insert(rng.randrange(len(attributes)), attributes.pop(at))
        case _:
            del attributes[at:]


_TO_A_MESSAGE: tuple[Callable[[Random, Message], None], ...] = (
    _lie_about_message,
    _change_header,
    _change_fixed,
    _change_fixed,
    _change_attribute,
    _change_attribute,
    _change_attribute,
    _add_attribute,
    _move_attributes,
)

# ------------------------------------------------- what is done to the answer


def _change_end(rng: Random, packets: list[Packet]) -> None:
    """Let the end say something else, come earlier, share a datagram, or not come at all."""
    last = packets[-1][-1]
    match rng.randrange(6):
        case 0:
            text = netlink.pack_attribute(rng.choice((1, 2, 9)), b"Because\0")
            last.flags |= rng.choice((0, netlink.NLM_F_ACK_TLVS))
            last.fixed = struct.pack("=i", rng.choice(_ERRNOS)) + rng.choice((b"", text, text[:5]))
        case 1:
            last.fixed = last.fixed[: rng.randrange(4)]
        case 2:
            last.kind = netlink.NLMSG_ERROR
            code = struct.pack("=i", rng.choice(_ERRNOS))
            last.fixed = code + rng.choice((b"", bytes(15), bytes(16), b"\xff" * 16))
        case 3:
            packets[-1].pop()
        case 4:
            packet = rng.choice(packets)
            packet.insert(rng.randint(0, len(packet)), deepcopy(last))
        case _ if len(packets) > 1:
            packets[-2].extend(packets.pop())
        case _:
            packets.append([packets[-1].pop()])


def _move_messages(rng: Random, packets: list[Packet]) -> None:
    packet = rng.choice(packets)
    if not packet:
        return
    at = rng.randrange(len(packet))
    match rng.randrange(4):
        case 0:
            del packet[at]
        case 1:
            rng.choice(packets).insert(0, deepcopy(packet[at]))
        case 2:
            other = rng.choice(packets)
            other.insert(rng.randint(0, len(other)), packet.pop(at))
        case _:
            packets[packets.index(packet)] = packet[at:]
            packets.insert(0, packet[:at])


def _spoil_bytes(rng: Random, datagrams: list[Datagram]) -> None:
    if not datagrams:
        return
    at = rng.randrange(len(datagrams))
    data, sender, flags = datagrams[at]
    cut = rng.randint(0, len(data))
    match rng.randrange(9):
        case 0:
            data = data[:cut]
        case 1:
            data = data[cut:]
        case 2:
            data += rng.randbytes(rng.randrange(24))
        case 3 | 4 if data:
            changed = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(len(changed))] = rng.choice(_BYTES)
            data = bytes(changed)
        case 5:
            sender = 77
        case 6:
            flags |= TRUNCATED
        case 7:
            del datagrams[at]
            return
        case _:
            datagrams.insert(rng.randint(0, len(datagrams)), datagrams[at])
            return
    datagrams[at] = Datagram(data, sender, flags)


def mutate(rng: Random, answer: list[bytes]) -> list[Datagram]:
    """Bend one honest answer in one to four places."""
    packets = list(map(take_apart, answer))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.12:
            _change_end(rng, packets)
        elif rng.random() < 0.12:
            _move_messages(rng, packets)
        elif message := rng.choice([m for packet in packets for m in packet] or [None]):
            rng.choice(_TO_A_MESSAGE)(rng, message)
        packets = [packet for packet in packets if packet]
        if not packets:
            break
    datagrams = [Datagram(b"".join(m.pack() for m in packet)) for packet in packets]
    if rng.random() < 0.15:
        _spoil_bytes(rng, datagrams)
    return datagrams


__all__ = ["Message", "mutate", "take_apart"]
