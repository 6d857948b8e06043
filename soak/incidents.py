"""Incidents: wrong entries that were made on purpose, and when each had to be healed."""

import math
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from reconciler.testing.lab import Lab
from soak.daemon import INTERVAL

# Two intervals, and two seconds for what the passes themselves take.
BOUND = 2 * INTERVAL + 2
# The contract: two complete readings at least this many seconds apart.
ORPHAN_PATIENCE = 120.0


class Weather:
    """When EC2 answered whole: spells between faults, in seconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._spells: list[tuple[float, float]] = [(-math.inf, math.inf)]

    @property
    def fair(self) -> bool:
        """Whether no fault is under way."""
        return self._spells[-1][1] == math.inf

    def worsen(self, at: float) -> None:
        """A fault begins."""
        began, _ = self._spells.pop()
        self._spells.append((began, at))

    def clear(self, at: float) -> None:
        """EC2 answers whole again, from then on."""
        self._spells.append((at, math.inf))

    def due(self, since: float) -> float:
        """Say by when something known since then has to be done: ``BOUND`` of one spell."""
        for began, ended in self._spells:
            due = max(since, began) + BOUND
            if due <= ended:
                return due
        return math.inf


@dataclass
class Incident:
    """One wrong entry, all times in seconds of CLOCK_MONOTONIC.

    Attributes:
        expected: the MAC that heals it; None: that the entry is gone.
        began: when the entry became wrong.
        known: when EC2's word and the wire agreed that it is.
        healed: when it was first seen healed.
        keeper: whatever keeps it wrong meanwhile.
    """

    kind: str
    address: str
    wrong: str
    expected: str | None
    began: float
    known: float = field(init=False)
    healed: float | None = None
    keeper: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.known = self.began

    def due(self, weather: Weather) -> float:
        """Say by when it had to be healed."""
        if self.expected is not None:
            return weather.due(self.known)
        return weather.due(weather.due(self.known) + ORPHAN_PATIENCE)


class Watch:
    """Polls the broker's table, with ``ip neigh``: not with the reader under test.

    Attributes:
        incidents: all of them, in the order in which they began.
        harmed: what was seen of entries that are right and were not as they
            should be, one sentence each.
    """

    def __init__(self, lab: Lab, steady: Mapping[str, str], bystanders: Mapping[str, str]) -> None:
        self._lab = lab
        self._steady = steady
        self._bystanders = bystanders
        self.incidents: list[Incident] = []
        self.harmed: set[str] = set()

    @property
    def open(self) -> list[Incident]:
        """Those that are not healed yet."""
        return [incident for incident in self.incidents if incident.healed is None]

    def poll(self) -> None:
        """Look once."""
        table = {
            entry["dst"]: entry["lladdr"] for entry in self._lab.neighbours() if "lladdr" in entry
        }
        now = time.monotonic()
        for incident in self.open:
            if table.get(incident.address) == incident.expected:
                incident.healed = now
                incident.keeper.close()
        for address, mac in self._bystanders.items():
            if table.get(address) != mac:
                self.harmed.add(f"bystander {address} had {table.get(address)}, not {mac}")
        for address, mac in self._steady.items():
            if table.get(address, mac) != mac:
                self.harmed.add(f"steady {address} had {table[address]}, not {mac}")

    def close(self) -> None:
        """Keep nothing wrong any longer."""
        for incident in self.open:
            incident.keeper.close()


def by_kind(incidents: Collection[Incident]) -> dict[str, list[Incident]]:
    """Sort incidents by kind, in the order in which the kinds appeared."""
    kinds: dict[str, list[Incident]] = {}
    for incident in incidents:
        kinds.setdefault(incident.kind, []).append(incident)
    return kinds


__all__ = ["BOUND", "ORPHAN_PATIENCE", "Incident", "Watch", "Weather", "by_kind"]
