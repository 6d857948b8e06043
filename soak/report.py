"""What a run showed: the figures of both phases side by side, and whether they are as expected."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from soak.daemon import Daemon
from soak.incidents import Incident, Weather, by_kind
from soak.load import Record, of

STALL = 1.0  # seconds: the longest that a connection may wait whose entry was right


@dataclass(frozen=True)
class Phase:
    """One phase: how long it took, in seconds, and what each connection saw."""

    seconds: float
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Troubles:
    """What was done in the second phase.

    Attributes:
        deleted: right entries deleted by hand.
        spoiled: EC2's answers that were spoiled.
        calls: EC2's answers altogether.
        faults: spells of each fault.
        harmed: what was seen of right entries that were not as they should be.
    """

    incidents: Sequence[Incident]
    weather: Weather
    deleted: int
    spoiled: int
    calls: int
    faults: Counter[str]
    harmed: Collection[str]


@dataclass(frozen=True)
class Report:
    """A whole run. ``steady`` and ``shaken`` are the addresses of those clients."""

    before: Phase
    during: Phase
    steady: Collection[str]
    shaken: Collection[str]
    troubles: Troubles
    daemon: Daemon
    broker_alive: bool

    @property
    def contested(self) -> int:
        """Right entries that the daemon deleted because EC2 was behind the wire."""
        return self.daemon.repairs("relearned")

    def failures(self) -> list[str]:
        """Say what is not as expected, one sentence each; an empty run is no proof either."""
        records = (*self.before.records, *self.during.records)
        found = [
            f"{r.lost} of {len(r.messages)} messages from {r.address} were lost."
            for r in records
            if r.lost
        ]
        found += [f"{r.address} was dropped: {r.dropped}." for r in records if r.dropped]
        found += [
            f"{r.address} waited {max(r.gaps):.2f} s though its entry was right."
            for r in of(self.during.records, self.steady)
            if max(r.gaps, default=math.inf) > STALL
        ]
        for incident in self.troubles.incidents:
            name = f"The entry of {incident.address} ({incident.kind})"
            if incident.healed is None:
                found.append(f"{name} was not healed.")
                continue
            late = incident.healed - incident.due(self.troubles.weather)
            if late > 0:
                found.append(f"{name} was healed {late:.1f} s too late.")
            if not self.daemon.changed(incident.address, incident.wrong):
                found.append(f"{name} was not healed by the daemon.")
        found += sorted(self.troubles.harmed)
        found += [f"The daemon's log has: {line}" for line in self.daemon.wild]
        if not self.daemon.alive or self.daemon.code != 0:
            found.append(f"The daemon ended with {self.daemon.code} (alive: {self.daemon.alive}).")
        if not self.broker_alive:
            found.append("mosquitto did not live to the end.")
        tried = {
            "message": min((len(of(p.records, self.steady)) for p in self.phases), default=0),
            "incident": len(self.troubles.incidents),
            "deletion by hand": self.troubles.deleted,
            "contested entry": self.contested,
            "spoiled answer of EC2's": self.troubles.spoiled,
        }
        return found + [
            f"There was not one {what}: nothing is proved." for what in tried if not tried[what]
        ]

    @property
    def phases(self) -> tuple[Phase, Phase]:
        """Both, in their order."""
        return self.before, self.during

    def document(self) -> dict[str, Any]:
        """Return everything for a machine; times are in seconds."""
        incidents, troubles = self.troubles.incidents, self.troubles
        return {
            "without_repairs": self._figures(self.before),
            "with_repairs": self._figures(self.during),
            "incidents": {"all": _heal(incidents, troubles.weather)}
            | {kind: _heal(some, troubles.weather) for kind, some in by_kind(incidents).items()},
            "right_entries_deleted": {"by_hand": troubles.deleted, "contested": self.contested},
            "right_entries_harmed": sorted(troubles.harmed),
            "ec2": {
                "calls": troubles.calls,
                "spoiled": troubles.spoiled,
                "faults": dict(troubles.faults),
            },
            "daemon": {
                "alive": self.daemon.alive,
                "exit_code": self.daemon.code,
                "events": dict(sorted(self.daemon.events.items())),
                "wild_lines": self.daemon.wild,
            },
            "failures": self.failures(),
        }

    def _figures(self, phase: Phase) -> dict[str, Any]:
        others = {r.address for r in phase.records} - {*self.steady, *self.shaken}
        groups = {"steady": self.steady, "shaken": self.shaken, "successors": others}
        return {"seconds": phase.seconds} | {
            name: _connections(of(phase.records, group)) for name, group in groups.items()
        }


def quantile(values: Collection[float], share: float) -> float | None:
    """Return the nearest rank: the smallest value that so large a share does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else None


def _connections(records: Collection[Record]) -> dict[str, Any]:
    gaps = [gap for record in records for gap in record.gaps]
    return {
        "connections": len(records),
        "sent": sum(len(record.messages) for record in records),
        "acknowledged": sum(record.acknowledged for record in records),
        "delivered": sum(len(record.delivered) for record in records),
        "lost": sum(record.lost for record in records),
        "dropped": sum(record.dropped is not None for record in records),
        "ack_p50": quantile(gaps, 0.5),
        "ack_p99": quantile(gaps, 0.99),
        "longest_stall": max(gaps, default=None),
        "client_late": max((record.late for record in records), default=None),
    }


def _heal(incidents: Collection[Incident], weather: Weather) -> dict[str, Any]:
    took = [i.healed - i.began for i in incidents if i.healed is not None]
    spare = [i.due(weather) - i.healed for i in incidents if i.healed is not None]
    return {
        "incidents": len(incidents),
        "healed": len(took),
        "p50": quantile(took, 0.5),
        "p99": quantile(took, 0.99),
        "max": max(took, default=None),
        "least_to_spare": min(spare, default=None),
    }


__all__ = ["STALL", "Phase", "Report", "Troubles", "quantile"]
