"""One pass: look at both sides, judge, guard, and — if that is wanted — repair.

The order is what makes it safe: the table first, then the authority, then each
suspect once more. Whatever is changed was wrong before the reading began that
says so.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from reconciler.core.guard import check_matches, check_ratio
from reconciler.core.judge import View, view
from reconciler.core.links import PLAIN_KINDS, candidates, managed
from reconciler.core.memory import Memory
from reconciler.core.model import (
    Address,
    Evidence,
    Host,
    Judgement,
    Key,
    Mac,
    ManagedLink,
    Outcome,
    Policy,
    Reading,
    Repair,
    Table,
    Verdict,
)
from reconciler.core.ownership import Ownership
from reconciler.core.plan import Plan, counted, make_plan
from reconciler.errors import Refused
from reconciler.kernel.protocol import Reader
from reconciler.kernel.write import Writer
from reconciler.repair import Repairer, Repairs
from reconciler.settings import Settings

_WRITTEN = frozenset({Outcome.HEALED, Outcome.GONE, Outcome.RELEARNED})


class Source(Protocol):
    """Where the truth comes from."""

    def identify(self, macs: Collection[Mac]) -> Host:
        """Say which instance this is, given the MACs of its links.

        Raises:
            IdentityError: nobody could say.
        """

    def read(self, host: Host, subnet_ids: frozenset[str], vpc_ids: frozenset[str]) -> Reading:
        """Read the subnets whole.

        Raises:
            AuthorityError: they could not be read whole.
        """


@dataclass(frozen=True)
class Look:
    """What one look at both sides found, and what would be done about it."""

    table: Table
    host: Host
    reading: Reading
    links: dict[int, ManagedLink]
    passed_over: dict[int, str]
    view: View
    plan: Plan
    refusal: Refused | None

    @property
    def names(self) -> dict[int, str]:
        """The links' names by index; an entry may stand on a link that came later."""
        return {link.index: link.name for link in self.table.links}

    @property
    def evidence(self) -> Evidence:
        """Why this look's changes may be made."""
        return Evidence(self.table.seen_at, self.reading.began, self.reading.ended)


class Pass:
    """Looks and repairs, once for each call.

    With a ``memory`` (the daemon's) orphans and contested entries have to wait,
    and pace and guards count over time; without one (``apply``) a person asked.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        source: Source,
        settings: Settings,
        repairer: Repairer,
        *,
        clock: Callable[[], float],
        memory: Memory | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._source = source
        self._settings = settings
        self._repairer = repairer
        self._clock = clock
        self._memory = memory

    def look(self, *, force: bool = False) -> Look:
        """Read both sides, judge every entry, and ask the guards.

        A guard's refusal is part of the answer. ``force`` passes the guards
        that may be passed.

        Raises:
            KernelError: the kernel could not be read.
            AuthorityError: the authority could not be read whole, or does not
                know this host.
        """
        settings = self._settings
        policy = settings.policy.to_core()
        limits = settings.guard.to_core()
        table = self._reader.table()
        host = self._source.identify(
            {link.mac for link in table.links if link.kind in PLAIN_KINDS and any(link.mac)}
        )
        chosen = candidates(
            table.links, host, include=settings.links.include, exclude=settings.links.exclude
        )
        reading = self._source.read(host, chosen.subnet_ids, chosen.vpc_ids)
        links, passed_over = managed(chosen, host, reading)
        ownership = Ownership(reading.enis)
        memory, now = self._memory, self._clock()
        unsettled = frozenset[tuple[str, Address]]()
        if memory is not None:
            memory.believe(reading, limits)
            unsettled = memory.unsettled(table.neighbours, links, ownership, now)
        judge = view(
            table,
            host,
            reading,
            links,
            passed_over,
            policy,
            ownership=ownership,
            unsettled=unsettled,
        )
        judgements, waiting = self._judge(table, judge)
        budget = min(limits.max_changes, limits.max_changes_per_hour)
        if memory is not None:
            grace = settings.authority.interval
            waiting |= memory.waiting(
                judgements, links, reading, seen_at=table.seen_at, now=now, grace=grace
            )
            budget = memory.budget(limits, now)
        blind = self._blind_links(links, policy)
        plan = make_plan(judgements, policy, budget=budget, blind_links=blind, waiting=waiting)
        look = Look(table, host, reading, links, passed_over, judge, plan, None)
        try:
            if plan.changes:
                self._writer.check(look.evidence)
            self._guard(plan, blind, force=force)
        except Refused as refusal:
            return replace(look, refusal=refusal)
        return look

    def _blind_links(self, links: Iterable[int], policy: Policy) -> frozenset[int]:
        """Find the links on which a probe is a delete, if the policy probes at all."""
        if "probe" not in {policy.on_mismatch, policy.on_orphan, policy.on_unknown}:
            return frozenset()
        return frozenset(index for index in links if self._reader.ucast_solicit(index) == 0)

    def _guard(self, plan: Plan, blind: frozenset[int], *, force: bool) -> None:
        limits = self._settings.guard.to_core()
        wrong = len(plan.wrong)
        if self._memory is not None:
            window = self._settings.authority.interval
            wrong = self._memory.wrong_lately(plan.wrong, window, self._clock())
        if counted(plan, blind) and not force:
            check_ratio(wrong, plan.judged, limits)
            check_matches(plan, limits)

    def _judge(
        self, table: Table, judge: View
    ) -> tuple[list[Judgement], dict[Key, tuple[str, str]]]:
        """Judge the table, each suspect once more as it stands now.

        A suspect may have been cured, or have become another entry, while EC2
        was asked. What is wrong in a new way was not seen before the reading
        began, so it has to wait.
        """
        judgements = []
        waiting = {}
        for neighbour in table.neighbours:
            judgement = judge.judge(neighbour)
            if judgement.verdict in {Verdict.MISMATCH, Verdict.ORPHAN}:
                now = self._reader.neighbour(neighbour.key)
                if now is None:
                    continue
                judgement = judge.judge(now)
                if not now.same_entry(neighbour):
                    waiting[now.key] = ("unconfirmed", "It changed while EC2 was asked.")
            judgements.append(judgement)
        return judgements, waiting

    def repair(
        self,
        look: Look,
        *,
        tell: Callable[[Repair], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Repairs:
        """Carry the look's plan out; with nothing to do, nothing is asked of the kernel.

        Raises:
            CapabilityError: this process may not write; nothing was changed.
        """
        if look.refusal is not None or not look.plan.changes:
            return Repairs()
        self._writer.require_permission()

        def remember(repair: Repair) -> None:
            if self._memory is not None and repair.outcome in _WRITTEN:
                neighbour = repair.judgement.neighbour
                self._memory.changed(neighbour.key, neighbour.lladdr, self._clock())
            tell(repair)

        return self._repairer.carry_out(
            look.plan.changes, look.evidence, tell=remember, stopped=stopped
        )
