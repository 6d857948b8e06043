"""Carry a plan out: act, ask the wire anew, see what comes back, say how it ended.

Deleting is the cure, not writing: after a delete the next packet asks the VPC's
mapping service, which is the data plane's own truth, while the API may lag
behind it. Whether a change may be made at all is not decided here but in
``kernel.write``, which reads the entry again, immediately before, every time.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EPROTO

from reconciler.core.model import (
    Action,
    Evidence,
    Judgement,
    Mac,
    Neighbour,
    Nud,
    Outcome,
    Repair,
)
from reconciler.errors import KernelError, Refused
from reconciler.kernel.protocol import Reader
from reconciler.kernel.write import Writer, Written

WINDOW = 4.0  # seconds after which a repair is judged by what stands in the table
RESOLUTIONS_PER_SECOND = 200.0  # a repair must not become an ARP storm
_FIRST_LOOK, _LONGEST_PAUSE = 0.0005, 0.05  # seconds between looks while the wire answers


@dataclass
class Repairs:
    """What came of a plan; ``refusal`` is set when a guard stopped it half-way."""

    done: list[Repair] = field(default_factory=list)
    refusal: Refused | None = None


@dataclass(slots=True)
class _Open:
    judgement: Judgement
    written_at: float


class Repairer:
    """Carries out changes one by one and verifies them side by side."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._sleep = sleep
        self._next_resolution = 0.0

    def carry_out(
        self,
        changes: Sequence[Judgement],
        evidence: Evidence,
        *,
        tell: Callable[[Repair], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Repairs:
        """Act on each change and wait until every one has ended.

        ``tell`` hears each repair as it ends. Once ``stopped`` says so, nothing
        more is changed and what was done is looked at one last time.
        """
        repairs = Repairs()

        def end(repair: Repair) -> None:
            repairs.done.append(repair)
            tell(repair)

        waiting: list[_Open] = []
        try:
            for change in changes:
                self._pace(waiting, evidence, end)
                if stopped():
                    break
                self._act(change, evidence, waiting, end)
        except Refused as refusal:
            repairs.refusal = refusal
        pause = _FIRST_LOOK
        while waiting:
            self._settle(waiting, evidence, end, now_or_never=stopped())
            if waiting:
                self._sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        return repairs

    def _pace(
        self, waiting: list[_Open], evidence: Evidence, end: Callable[[Repair], None]
    ) -> None:
        while (wait := self._next_resolution - self._clock()) > 0:
            self._settle(waiting, evidence, end)
            self._sleep(wait)

    def _act(
        self,
        change: Judgement,
        evidence: Evidence,
        waiting: list[_Open],
        end: Callable[[Repair], None],
    ) -> None:
        started = self._clock()
        probing = change.action is Action.PROBE
        try:
            write = self._writer.probe if probing else self._writer.delete
            written = write(change.neighbour, evidence)
        except OSError as error:
            # An acknowledgement that does not come says nothing about the change.
            unknown = isinstance(error, TimeoutError) or error.errno == EPROTO
            end(
                Repair(
                    change,
                    Outcome.FAILED,
                    error=f"the kernel refused: {_says(error)}",
                    written=unknown,
                )
            )
            return
        except KernelError as error:
            end(Repair(change, Outcome.FAILED, error=str(error)))
            return
        match written:
            case Written.SKIPPED:
                end(Repair(change, Outcome.SKIPPED, after=change.neighbour))
            case Written.CHANGED:
                end(Repair(change, Outcome.CHANGED))
            case Written.ABSENT:
                end(Repair(change, Outcome.GONE))
            case Written.DONE:
                waiting.append(_Open(change, started))
                # Nobody owns an orphan's address, so there is nobody to ask for.
                if probing or change.expected_mac is not None:
                    self._next_resolution = self._clock() + 1 / RESOLUTIONS_PER_SECOND
                if not probing and change.expected_mac is not None:
                    # The wrong entry is gone already. If the kernel will not ask
                    # now, the next packet makes it ask.
                    with suppress(OSError, KernelError):
                        self._writer.resolve(change.neighbour.key, evidence)

    def _settle(
        self,
        waiting: list[_Open],
        evidence: Evidence,
        end: Callable[[Repair], None],
        *,
        now_or_never: bool = False,
    ) -> None:
        """Close what has a certain answer, or has run out of time."""
        still: list[_Open] = []
        for opened in waiting:
            try:
                repair = self._look(opened, evidence, now_or_never=now_or_never)
            except (OSError, KernelError, Refused) as error:
                repair = Repair(
                    opened.judgement,
                    Outcome.FAILED,
                    error=f"changed, but how it ended could not be seen: {error}",
                    seconds=self._clock() - opened.written_at,
                    written=True,
                )
            if repair is None:
                still.append(opened)
            else:
                end(repair)
        waiting[:] = still

    def _look(self, opened: _Open, evidence: Evidence, *, now_or_never: bool) -> Repair | None:
        """Read the entry; None while the answer is open."""
        judgement = opened.judgement
        key = judgement.neighbour.key
        after = self._reader.neighbour(key)
        late = now_or_never or self._clock() - opened.written_at >= WINDOW
        if not (late or _certain(judgement, after)):
            return None
        if judgement.action is Action.REPLACE and judgement.expected_mac and not now_or_never:
            # Only now, when the wire was asked and stayed silent; where it has
            # answered, the writer leaves its answer alone.
            self._writer.replace(key, judgement.expected_mac, evidence)
            after = self._reader.neighbour(key)
        lladdr = _lladdr(after)
        if lladdr is None:
            outcome = Outcome.GONE
        elif lladdr == judgement.expected_mac:
            outcome = Outcome.HEALED
        else:
            outcome = Outcome.RELEARNED
        seconds = self._clock() - opened.written_at
        return Repair(judgement, outcome, after=after, seconds=seconds, written=True)


def _lladdr(after: Neighbour | None) -> Mac | None:
    """Return the MAC that traffic would use now: none while absent, asking, or given up."""
    if after is None or after.state in {Nud.INCOMPLETE, Nud.FAILED, Nud.NONE}:
        return None
    return after.lladdr


def _certain(judgement: Judgement, after: Neighbour | None) -> bool:
    """Say whether the answer is final: a MAC, nothing, or the kernel having given up."""
    if after is None or after.state == Nud.FAILED:
        return True
    if _lladdr(after) is None:
        return False
    # While it probes, the kernel keeps the old MAC in place.
    return after.lladdr == judgement.expected_mac or after.state != Nud.PROBE


def _says(error: OSError) -> str:
    return error.strerror or os.strerror(error.errno or 0)
