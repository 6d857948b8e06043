"""The real kernel's answers, recorded once, played again with what a mutation made of them.

``fuzz.record`` made the recording; it stands beside this file so that a case
is the same bytes on every machine.
"""

import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from reconciler.kernel.netlink import NetlinkSocket
from reconciler.kernel.read import NetlinkReader
from reconciler.testing.clock import ManualClock

RECORDING = Path(__file__).with_name("recording.txt")

PORT = 4242
TRUNCATED = 0x20  # MSG_TRUNC


class Datagram(NamedTuple):
    """One datagram as the socket would give it: bytes, the sender's port, flags of recvmsg."""

    data: bytes
    sender: int = 0
    flags: int = 0


# A request's type and its body: what a reader asks for.
Question = tuple[int, bytes]
Answers = dict[Question, list[bytes]]


class PlayedSocket(NetlinkSocket):
    """Answers every question from ``answer``, and keeps the last answer to each.

    When an answer is used up the time-out strikes, as it would in the kernel's silence.
    """

    def __init__(self, answer: Callable[[Question, int], list[Datagram]]) -> None:
        super().__init__()
        self._answer = answer
        self._coming: Iterator[Datagram] = iter(())
        self.said: dict[Question, tuple[int, list[Datagram]]] = {}
        self._port = PORT

    def _opened(self) -> "PlayedSocket":  # type: ignore[override]
        return self

    def send(self, request: bytes) -> None:
        """Take a request."""
        _, kind, _, sequence, _ = struct.unpack_from("=IHHII", request)
        question = (kind, request[16:])
        said = self._answer(question, sequence)
        self.said[question] = (sequence, said)
        self._coming = iter(said)

    def recvmsg_into(self, buffers: list[memoryview]) -> tuple[int, list[bytes], int, object]:
        """Give the next datagram."""
        datagram = next(self._coming, None)
        if datagram is None:
            raise TimeoutError("timed out")
        buffers[0][: len(datagram.data)] = datagram.data
        return len(datagram.data), [], datagram.flags, (datagram.sender, 0)


def addressed(datagram: bytes, sequence: int) -> bytes:
    """Write the request's sequence number and our port into each message of an honest datagram."""
    changed = bytearray(datagram)
    at = 0
    while at < len(changed):
        struct.pack_into("=II", changed, at + 8, sequence, PORT)
        at += (struct.unpack_from("=I", changed, at)[0] + 3) & ~3
    return bytes(changed)


def reader(socket: NetlinkSocket) -> NetlinkReader:
    """Make a reader over a socket of the test's."""
    made = NetlinkReader(ManualClock())
    made._netlink = socket
    return made


@cache
def recording() -> Answers:
    """Read the recording: a line is a request's type, its body, and one datagram."""
    answers: Answers = {}
    for line in RECORDING.read_text(encoding="ascii").splitlines():
        ask, body, datagram = line.split(" ")
        answers.setdefault((int(ask), bytes.fromhex(body)), []).append(bytes.fromhex(datagram))
    return answers


__all__ = [
    "PORT",
    "RECORDING",
    "TRUNCATED",
    "Answers",
    "Datagram",
    "PlayedSocket",
    "Question",
    "addressed",
    "reader",
    "recording",
]
