"""The load: a publishing process in each client's namespace, and a subscriber at the broker."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reconciler.core.model import Eni
from reconciler.errors import LabError
from reconciler.testing.lab import Lab
from soak.place import BROKER, Place, addresses

RATE = 50.0  # messages a second, of each connection of the measured clients
SUCCESSOR_RATE = 5.0  # The successor ends up with dozens of connections.
_PATIENCE = 60.0  # seconds for a child to drain and write its record


@dataclass(frozen=True)
class Record:
    """What one connection saw.

    Attributes:
        messages: when each was sent, and acknowledged or None, in seconds of
            CLOCK_MONOTONIC.
        delivered: the positions in ``messages`` that the subscriber heard.
        dropped: why the session ended, if it ended by itself.
        late: the longest, in seconds, that the client itself was behind.
    """

    address: str
    messages: tuple[tuple[float, float | None], ...]
    delivered: frozenset[int]
    dropped: str | None
    late: float

    @property
    def acknowledged(self) -> int:
        """How many were acknowledged."""
        return sum(acknowledged is not None for _, acknowledged in self.messages)

    @property
    def lost(self) -> int:
        """How many were sent and not acknowledged, or not delivered."""
        return sum(
            acknowledged is None or position not in self.delivered
            for position, (_, acknowledged) in enumerate(self.messages)
        )

    @property
    def gaps(self) -> list[float]:
        """Seconds from sending to acknowledgement, of every message that has one."""
        return [acked - sent for sent, acked in self.messages if acked is not None]


class Load:
    """The clients while they run. Make one with ``load``."""

    def __init__(self) -> None:
        self._publishers: dict[str, subprocess.Popen[str]] = {}
        self._listeners: list[subprocess.Popen[str]] = []

    def start(self, lab: Lab, place: Place) -> None:
        """Start the subscriber, then the clients; return when all have connected.

        Raises:
            LabError: one of them could not connect.
        """
        pipe = subprocess.PIPE
        argv = [sys.executable, "-m", "soak.client"]
        listener = lab.popen([*argv, "listen", "127.0.0.1"], stdin=pipe, stdout=pipe)
        self._listeners.append(listener)
        _await(listener)
        for eni in place.clients:
            rate = SUCCESSOR_RATE if eni is place.successor else RATE
            self._publishers[eni.eni_id] = lab.client(eni.eni_id).popen(
                [*argv, "publish", str(rate), *BROKER], stdin=pipe, stdout=pipe
            )
        measured = [(eni, a) for eni in (*place.steady, *place.shaken) for a in addresses((eni,))]
        for eni, address in measured:
            self.connect(eni, address)
        for eni, _ in measured:
            _await(self._publishers[eni.eni_id])

    def connect(self, eni: Eni, address: str) -> None:
        """Open one more connection, from an address of that client's."""
        _say(self._publishers[eni.eni_id], address)

    def stop(self) -> list[Record]:
        """Stop publishing, wait for what is under way, and return what each connection saw.

        Raises:
            LabError: the subscriber was disconnected: nobody can say what was delivered.
            subprocess.TimeoutExpired: a client does not come to its end.
        """
        publishers = self._publishers.values()
        for child in publishers:
            _say(child, "stop")
        sessions = [session for child in publishers for session in _told(child)["sessions"]]
        (listener,) = self._listeners
        _say(listener, "stop")
        heard = _told(listener)
        if heard["dropped"] is not None:
            raise LabError(f"The subscriber was disconnected: {heard['dropped']}.")
        topics: dict[str, list[int]] = defaultdict(list, heard["topics"])
        return [
            Record(
                session["address"],
                tuple(map(tuple, session["messages"])),
                frozenset(topics[session["topic"]]),
                session["dropped"],
                session["late"],
            )
            for session in sessions
        ]

    def kill(self) -> None:
        """End what still runs."""
        for child in (*self._publishers.values(), *self._listeners):
            with child:
                child.kill()


@contextmanager
def load(lab: Lab, place: Place) -> Iterator[Load]:
    """Publish from every steady and shaken address until the block ends, or ``stop``.

    Raises:
        LabError: the subscriber or a client could not connect.
    """
    running = Load()
    try:
        running.start(lab, place)
        yield running
    finally:
        running.kill()


def of(records: Collection[Record], group: Collection[str]) -> list[Record]:
    """Pick the connections from these addresses."""
    return [record for record in records if record.address in group]


def _say(child: subprocess.Popen[str], line: str) -> None:
    if child.stdin is not None:
        child.stdin.write(f"{line}\n")
        child.stdin.flush()


def _await(child: subprocess.Popen[str]) -> None:
    line = child.stdout.readline().strip() if child.stdout else ""
    if not line.endswith(": connected"):
        raise LabError(f"No connection to mosquitto, {line or 'nor a word from the client'}.")


def _told(child: subprocess.Popen[str]) -> Any:
    out, _ = child.communicate(timeout=_PATIENCE)
    return json.loads(out.splitlines()[-1])


__all__ = ["Load", "Record", "load", "of"]
