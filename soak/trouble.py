"""Everything that goes wrong in the second phase, as a timetable.

Each trouble is a generator that does something and yields the seconds until it
goes on. One thread turns them all, and polls the table in between, so that no
two of them ever race, and a run can be told from the code.
"""

import heapq
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count, cycle
from typing import NamedTuple

from reconciler.core.model import Eni, Mac
from reconciler.errors import LabError
from reconciler.testing.addle import confirmed, relayed
from reconciler.testing.endpoint import Fault, FaultKind
from reconciler.testing.lab import Lab
from reconciler.testing.vpc import Vpc
from soak.incidents import BOUND, ORPHAN_PATIENCE, Incident, Watch, Weather
from soak.load import Load
from soak.place import Place, addresses

TICK = 0.1  # seconds between two looks at the table
PERIOD = 10.0  # seconds between two incidents of a kind
FAULT = 5.0  # seconds that a fault lasts
FAIR = 15.0  # seconds between faults, more than BOUND
LATENCY = 1.5  # seconds added to every answer of EC2's
HANG = 10.0  # seconds after which the daemon gives up a call (reconciler.aws.client)

Timetable = Iterator[float]
Keeper = Callable[[Lab, str], AbstractContextManager[object]]

_ADDLED: dict[str, Keeper] = {"addled (confirmed)": confirmed, "addled (relayed)": relayed}


class _Spoiled(NamedTuple):
    """One way for EC2 to be of no use. ``aftermath`` is in seconds."""

    name: str
    kinds: tuple[FaultKind, ...] = ()
    aftermath: float = 0.0


_FAULTS = (
    _Spoiled("throttle", ("throttle",)),
    _Spoiled("denied"),
    _Spoiled("latency"),
    _Spoiled("replicas"),
    _Spoiled("server_error", ("server_error",)),
    _Spoiled("lacking"),
    _Spoiled("cut", ("cut",)),
    _Spoiled("hang", ("hang",), aftermath=HANG),
    _Spoiled("empty", ("empty",)),
    _Spoiled("truncated", ("truncated",)),
    _Spoiled("wrong_token", ("wrong_token",)),
    _Spoiled("expired_token", ("expired_token",)),
)


class Trouble:
    """Makes trouble for some seconds; ``run`` returns when the last incident was due.

    Attributes:
        watch: the incidents, and what was seen of right entries.
        weather: when EC2 answered whole.
        deleted: how many right entries of the steady clients were deleted by hand.
        faults: how many spells of each fault there were.
    """

    def __init__(self, lab: Lab, place: Place, load: Load, seconds: float) -> None:
        self._lab = lab
        self._place = place
        self._load = load
        self._seconds = seconds
        # The last incidents have to be healed within the phase, if it is long enough.
        self._calm_from = seconds - min(BOUND + 1, seconds / 2)
        self._chance = random.Random(1)  # noqa: S311 - a repeatable choice, no secret.
        self._steady = addresses(place.steady)
        self._shaken = addresses(place.shaken)
        self._strangers = count(0x50)
        self._lagging: dict[str, Eni] = {}
        self._unsettled: str | None = None
        self._began = math.nan
        self.watch = Watch(lab, self._steady, addresses(place.bystanders))
        self.weather = Weather()
        self.deleted = 0
        self.faults: Counter[str] = Counter()

    def run(self) -> None:
        """Go through the timetables.

        Raises:
            LabError: the lab itself failed.
        """
        self._began = time.monotonic()
        # Of the phase: when the lag begins, and how long it lasts. The first outlives
        # the back-off of a contested entry when the phase is minutes long.
        lags = zip(self._place.steady, ((0.05, 0.5), (0.3, 0.35), (0.6, 0.38)), strict=False)
        turns = [
            self._deletions(),
            self._addlings(),
            self._recyclings(self._place.recycled[0::2], after=1.0, lag=0.0),
            self._recyclings(self._place.recycled[1::2], after=2.0, lag=3.0),
            self._rebirths(),
            self._orphans(),
            self._faults(),
            *(
                self._lag(eni, after * self._seconds, during * self._seconds)
                for eni, (after, during) in lags
            ),
        ]
        try:
            self._turn(turns)
        finally:
            self.watch.close()

    def _turn(self, turns: list[Timetable]) -> None:
        due = [(0.0, number, turn) for number, turn in enumerate(turns)]
        while self._now < self._seconds or self._undecided() or not self.weather.fair:
            while due and due[0][0] <= self._now:
                _, number, turn = heapq.heappop(due)
                wait = next(turn, None)
                if wait is not None:
                    heapq.heappush(due, (self._now + wait, number, turn))
            self.watch.poll()
            time.sleep(TICK)

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    @property
    def _calm(self) -> bool:
        return self._now >= self._calm_from

    def _undecided(self) -> bool:
        now = time.monotonic()
        return any(now < incident.due(self.weather) for incident in self.watch.open)

    # ------------------------------------------------------------ wrong entries

    def _incident(
        self,
        kind: str,
        address: str,
        wrong: Mac,
        expected: str | None,
        keep: Keeper | None = confirmed,
    ) -> Incident:
        """Begin an incident: the entry stands there, and is wrong from now on."""
        incident = Incident(kind, address, wrong.hex(":"), expected, time.monotonic())
        self.watch.incidents.append(incident)
        if keep is not None:
            incident.keeper.enter_context(keep(self._lab, address))
        return incident

    def _stranger(self) -> Mac:
        """Return a MAC that is nobody's, another one each time.

        The same wrong MAC back within the hour is contested, and left alone.
        """
        return b"\x02\x00\x00\x01" + next(self._strangers).to_bytes(2, "big")

    def _addlings(self) -> Timetable:
        """Give busy connections a wrong entry, in turn by one cause and the other."""
        yield 0.5
        causes = cycle(_ADDLED.items())
        while not self._calm:
            free = sorted(self._shaken.keys() - {incident.address for incident in self.watch.open})
            if free:
                address = self._chance.choice(free)
                kind, keep = next(causes)
                wrong, right = self._stranger(), self._shaken[address]
                self._lab.set_neighbour(address, wrong)
                self._incident(kind, address, wrong, right, keep)
            yield PERIOD / 2

    def _recyclings(self, pool: tuple[str, ...], *, after: float, lag: float) -> Timetable:
        """Give addresses to another instance, which connects; EC2 tells ``lag`` seconds later."""
        yield after
        former, successor = self._place.former, self._place.successor
        for address in pool:
            if self._calm:
                return
            if lag:
                self._lagging[address] = former
            self._lab.set_neighbour(address, former.mac)
            self._lab.recycle(address, successor.eni_id, announced=False)
            self._announce()
            kind = "recycled, EC2 late" if lag else "recycled"
            incident = self._incident(kind, address, former.mac, successor.mac.hex(":"))
            self._load.connect(successor, address)
            if lag:
                incident.known = math.inf
                yield lag
                del self._lagging[address]
                self._announce()
                incident.known = time.monotonic()
            yield PERIOD - lag

    def _rebirths(self) -> Timetable:
        """Let an entry outlive its instance, and a new one get the address: how most begin."""
        yield 3.0
        successor = self._place.successor
        for address in self._place.reborn:
            if self._calm:
                return
            wrong = self._stranger()
            self._lab.set_neighbour(address, wrong)
            yield 1.0
            self._lab.recycle(address, successor.eni_id, announced=False)
            self._announce()
            self._incident("orphan, reborn", address, wrong, successor.mac.hex(":"))
            self._load.connect(successor, address)
            yield PERIOD - 1.0

    def _orphans(self) -> Timetable:
        """Leave entries whose address is nobody's, if there is time to see them go."""
        yield 0.5
        if self._seconds < ORPHAN_PATIENCE + 3 * BOUND:
            return
        for address in self._place.orphaned:
            wrong = self._stranger()
            self._lab.set_neighbour(address, wrong)
            self._incident("orphaned", address, wrong, None, keep=None)

    # ------------------------------------------------------------ right entries

    def _deletions(self) -> Timetable:
        """Delete right entries of busy connections by hand, all the time."""
        links = sorted(self._steady)
        while self._now < self._seconds:
            yield 0.5
            try:
                self._lab.delete_neighbour(self._chance.choice(links))
            except LabError:
                continue  # The daemon, misled by EC2, has just deleted it.
            self.deleted += 1

    def _lag(self, eni: Eni, after: float, during: float) -> Timetable:
        """Let EC2 say for a while that a steady client's addresses are another's."""
        yield after
        for address in addresses((eni,)):
            self._lagging[address] = self._place.stand_in
        self._announce()
        yield during
        for address in addresses((eni,)):
            del self._lagging[address]
        self._announce()

    # --------------------------------------------------------------------- EC2

    def _faults(self) -> Timetable:
        """Spoil EC2's answers in one way after the other, with fair weather between."""
        yield 1.0
        for spoiled in cycle(_FAULTS):
            if self._calm:
                return
            self.weather.worsen(time.monotonic())
            self.faults[spoiled.name] += 1
            self._spoil(spoiled)
            yield FAULT
            self._mend()
            yield spoiled.aftermath
            self.weather.clear(time.monotonic())
            yield FAIR

    def _spoil(self, spoiled: _Spoiled) -> None:
        endpoint = self._lab.endpoint
        endpoint.faults.add(*(Fault(kind, times=None) for kind in spoiled.kinds))
        match spoiled.name:
            case "denied":
                endpoint.denied = {"DescribeNetworkInterfaces", "DescribeSubnets"}
            case "latency":
                endpoint.latency = LATENCY
            case "lacking":
                unlisted = tuple(eni.eni_id for eni in self._place.bystanders[:8])
                endpoint.faults.add(Fault("lacking", ids=unlisted, times=None))
            case "replicas":
                *_, unsettled = self._place.steady
                self._unsettled = next(iter(addresses((unsettled,))))
                self._announce()

    def _mend(self) -> None:
        endpoint = self._lab.endpoint
        endpoint.faults.clear()
        endpoint.denied = set()
        endpoint.latency = 0.0
        self._unsettled = None
        self._announce()

    def _announce(self) -> None:
        """Let EC2 say what the wire does, but for what it does not know yet."""
        vpc: Vpc = self._lab.wire
        for address, eni in self._lagging.items():
            vpc = vpc.with_moved(address, eni.eni_id)
        self._lab.endpoint.vpc = vpc
        self._lab.endpoint.replicas = (
            (vpc, vpc.with_moved(self._unsettled, self._place.stand_in.eni_id))
            if self._unsettled
            else None
        )


__all__ = ["FAIR", "FAULT", "PERIOD", "Trouble"]
