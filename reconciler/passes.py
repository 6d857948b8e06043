"""One pass: look at both sides, judge, guard, and — if that is wanted — repair.

The order is what makes it safe: the table first, then the authority, then each
suspect once more. Whatever is changed was wrong before the reading began that
says so.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from reconciler.core.guard import check_matches, check_ratio
from reconciler.core.judge import View, view
from reconciler.core.links import PLAIN_KINDS, Candidates, candidates, managed
from reconciler.core.memory import Memory
from reconciler.core.model import (
    Address,
    Evidence,
    Host,
    Judgement,
    Key,
    Link,
    Mac,
    ManagedLink,
    Neighbour,
    Reading,
    Repair,
    Table,
    Verdict,
)
from reconciler.core.ownership import Ownership, TargetedOwnership
from reconciler.core.plan import Plan, counted, make_plan, urgency
from reconciler.errors import AuthorityError, IdentityError, Refused
from reconciler.kernel.protocol import Reader
from reconciler.kernel.write import Writer
from reconciler.repair import Repairer, Repairs
from reconciler.settings import Settings

log = logging.getLogger(__name__)

_SUSPECT = frozenset({Verdict.MISMATCH, Verdict.ORPHAN})


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

    def read_targets(
        self,
        pairs: Collection[tuple[str, Address]],
        subnet_ids: frozenset[str],
        macs: Collection[Mac] = (),
    ) -> Reading:
        """Read who lists exactly these addresses, and whose exactly these MACs are.

        Raises:
            AuthorityError: they could not be read whole.
        """

    def endpoint_addresses(self) -> frozenset[Address]:
        """Return the addresses under which the authority is reached; empty when unknown."""


@dataclass(frozen=True)
class Look:
    """What one look at both sides found, and what would be done about it.

    ``reading`` is the one that confirms; ``evidence`` says when.
    """

    table: Table
    host: Host
    reading: Reading
    links: Mapping[int, ManagedLink]
    view: View
    plan: Plan
    evidence: Evidence
    refusal: Refused | None = None


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
        self._policy = settings.policy.to_core()
        self._limits = settings.guard.to_core()
        self._repairer = repairer
        self._clock = clock
        self._memory = memory
        self._last: Look | None = None

    # -------------------------------------------------------------------- look

    def look(self, *, force: bool = False) -> Look:
        """Read both sides whole, judge every entry, and ask the guards.

        A guard's refusal is part of the answer. ``force`` passes the guards
        that may be passed.

        Raises:
            KernelError: the kernel could not be read.
            AuthorityError: the authority could not be read whole, or does not
                know this host.
            ShrunkRefused: the reading is not believed yet.
        """
        table = self._reader.table()
        host, chosen = self._who(table.links)
        reading = self._source.read(host, chosen.subnet_ids, chosen.vpc_ids)
        links, passed_over = managed(chosen, host, reading)
        ownership = Ownership(reading.enis)
        memory, now = self._memory, self._clock()
        unsettled = frozenset[tuple[str, Address]]()
        if memory is not None:
            memory.believe(reading, self._limits)
            unsettled = memory.owners(_pairs(table.neighbours, links).values(), ownership, now)
        judge = view(
            table, host, reading, links, passed_over, self._policy, ownership, unsettled=unsettled
        )
        judgements, waiting = self._judge(table.neighbours, judge)
        if memory is not None:
            waiting |= self._patience(
                memory, judgements, judge, reading, table.seen_at, unseen=waiting.keys()
            )
        judge, judgements, waiting = self._ask_by_name(judge, judgements, waiting)
        plan = self._plan(judgements, waiting, links)
        evidence = Evidence(table.seen_at, reading.began, reading.ended)
        look = Look(table, host, reading, links, judge, plan, evidence)
        self._last = look
        return self._guarded(look, plan.judged, plan.matches, force=force)

    def glance(self, keys: Collection[Key] | None = None) -> Look | None:
        """Judge by the last reading, and let a targeted one confirm what looks wrong.

        Args:
            keys: the entries to judge; None means the whole table.

        Returns:
            None when nothing can be said: no reading that is young enough
            (``authority.max_age``), or nothing that looks wrong and could be
            confirmed so. No filter finds an address inside a delegated prefix,
            nor proves that nobody lists one: those wait for ``look``.

        Raises:
            KernelError: the kernel could not be read.
            AuthorityError: the targeted reading failed.
        """
        last, now = self._last, self._clock()
        if last is None or now - last.reading.ended > self._settings.authority.max_age:
            return None
        table = self._reader.table()
        links = _unmoved(last.links, table.links)
        judge = view(
            table,
            last.host,
            last.reading,
            links,
            last.view.passed_over,
            self._policy,
            last.view.ownership,
            unsettled=last.view.unsettled,
        )
        suspects = _pairs(
            (
                neighbour
                for neighbour in table.neighbours
                if (keys is None or neighbour.key in keys)
                and judge.judge(neighbour).verdict is Verdict.MISMATCH
            ),
            links,
        )
        if not suspects:
            return None
        reading = self._source.read_targets(set(suspects.values()), _subnet_ids(links))
        listed = {(eni.subnet_id, address) for eni in reading.enis for address in eni.addresses}
        answered = {key: pair for key, pair in suspects.items() if pair in listed}
        ownership = TargetedOwnership(judge.ownership, reading)
        unsettled = judge.unsettled
        memory = self._memory
        if memory is not None:
            unsettled |= memory.owners(answered.values(), ownership, self._clock(), whole=False)
        judge = replace(judge, ownership=ownership, unsettled=unsettled)
        judgements, waiting = self._judge([n for n in table.neighbours if n.key in answered], judge)
        if memory is not None:
            waiting |= self._patience(
                memory,
                judgements,
                judge,
                reading,
                table.seen_at,
                whole=False,
                unseen=waiting.keys(),
            )
        plan = self._plan(judgements, waiting, links)
        evidence = Evidence(table.seen_at, reading.began, reading.ended)
        look = Look(table, last.host, reading, links, judge, plan, evidence)
        return self._guarded(look, last.plan.judged, last.plan.matches)

    def _who(self, links: tuple[Link, ...]) -> tuple[Host, Candidates]:
        host = self._source.identify(
            {link.mac for link in links if link.kind in PLAIN_KINDS and any(link.mac)}
        )
        wanted = self._settings.links
        try:
            return host, candidates(links, host, include=wanted.include, exclude=wanted.exclude)
        except IdentityError:
            # The last link is gone: when it comes back it is a new one.
            if self._memory is not None:
                self._memory.forget_links()
            raise

    def _judge(
        self, neighbours: Iterable[Neighbour], judge: View
    ) -> tuple[list[Judgement], dict[Key, tuple[str, str]]]:
        """Judge entries, each suspect once more as it stands now.

        A suspect may have been cured, or have become another entry, while EC2
        was asked; its link may have gone, its address may have become a next
        hop. What is wrong in a new way was not seen before the reading began,
        so it has to wait.
        """
        judgements = [judge.judge(neighbour) for neighbour in neighbours]
        if not any(judgement.verdict in _SUSPECT for judgement in judgements):
            return judgements, {}
        around = self._reader.surroundings()
        now_judge = replace(
            judge,
            links=_unmoved(judge.links, around.links),
            own_addresses=judge.own_addresses | around.addresses,
            next_hops=around.next_hops,
        )
        waiting = {}
        again = []
        for judgement in judgements:
            if judgement.verdict not in _SUSPECT:
                again.append(judgement)
                continue
            now = self._reader.neighbour(judgement.neighbour.key)
            if now is None:
                continue
            again.append(now_judge.judge(now))
            if not now.same_entry(judgement.neighbour):
                waiting[now.key] = ("unconfirmed", "It changed while EC2 was asked.")
        return again, waiting

    def _patience(
        self,
        memory: Memory,
        judgements: Collection[Judgement],
        judge: View,
        reading: Reading,
        seen_at: float,
        *,
        whole: bool = True,
        unseen: Collection[Key] = (),
    ) -> dict[Key, tuple[str, str]]:
        return memory.waiting(
            judgements,
            judge.links,
            reading,
            seen_at=seen_at,
            now=self._clock(),
            grace=self._settings.authority.interval,
            whole=whole,
            unseen=unseen,
        )

    def _ask_by_name(
        self, judge: View, judgements: list[Judgement], waiting: dict[Key, tuple[str, str]]
    ) -> tuple[View, list[Judgement], dict[Key, tuple[str, str]]]:
        """Ask by name about the entries that this pass would change because nobody lists them.

        Those are orphans, and mismatches whose owner has the address in a
        delegated prefix. Pages are no transaction: an ENI that moved between
        two of them is in neither, and it may list the very address. After the
        answer every suspect is read again. Without one these entries wait, and
        no others do.
        """
        due = sorted(
            (
                j
                for j in judgements
                if j.neighbour.key not in waiting
                and (
                    (j.verdict is Verdict.ORPHAN and self._policy.on_orphan != "report")
                    or (j.verdict is Verdict.MISMATCH and not _listed(j))
                )
            ),
            key=urgency,
        )
        unlisted, later = due[: self._budget()], due[self._budget() :]
        waiting = waiting | {
            j.neighbour.key: ("paced", "It waits for a later pass ([guard] max_changes).")
            for j in later
        }
        if not unlisted:
            return judge, judgements, waiting
        pairs = _pairs([j.neighbour for j in unlisted], judge.links)
        try:
            found = self._source.read_targets(
                set(pairs.values()),
                _subnet_ids(judge.links),
                {j.neighbour.lladdr for j in unlisted if j.neighbour.lladdr},
            )
        except AuthorityError as error:
            log.warning("unlisted.not_asked", extra={"entries": len(unlisted), "why": str(error)})
            return (
                judge,
                judgements,
                waiting
                | {
                    j.neighbour.key: ("unconfirmed", "EC2 could not be asked for it by name.")
                    for j in unlisted
                },
            )
        judge = replace(judge, ownership=TargetedOwnership(judge.ownership, found))
        judgements, changed = self._judge([j.neighbour for j in judgements], judge)
        return judge, judgements, waiting | changed

    def _plan(
        self,
        judgements: Iterable[Judgement],
        waiting: Mapping[Key, tuple[str, str]],
        links: Iterable[int],
    ) -> Plan:
        return make_plan(
            judgements,
            self._policy,
            budget=self._budget(),
            blind_links=self._blind_links(links),
            waiting=waiting,
        )

    def _budget(self) -> int:
        limits = self._limits
        if self._memory is not None:
            return self._memory.budget(limits, self._clock())
        return min(limits.max_changes, limits.max_changes_per_hour)

    def _blind_links(self, links: Iterable[int]) -> frozenset[int]:
        """Find the links on which a probe is a delete, if the policy probes at all."""
        policy = self._policy
        if "probe" not in {policy.on_mismatch, policy.on_orphan, policy.on_unknown}:
            return frozenset()
        return frozenset(index for index in links if self._reader.ucast_solicit(index) == 0)

    def _guarded(self, look: Look, judged: int, matches: int, *, force: bool = False) -> Look:
        """Ask the guards about a look; ``judged`` and ``matches`` are the last full table's."""
        plan = look.plan
        wrong = len(plan.wrong)
        if self._memory is not None:
            window = self._settings.authority.interval
            wrong = self._memory.wrong_lately(plan.wrong, window, self._clock())
        try:
            if plan.changes:
                self._writer.check(look.evidence)
            if counted(plan, self._blind_links(look.links)) and not force:
                check_ratio(wrong, judged, self._limits)
                check_matches(judged, matches, self._limits)
        except Refused as refusal:
            return replace(look, refusal=refusal)
        return look

    # ------------------------------------------------------------------ repair

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
            # A probe of what is only unknown is no quarrel, and takes no cure's place.
            wrong = repair.judgement.verdict is not Verdict.UNKNOWN
            if self._memory is not None and repair.written and wrong:
                neighbour = repair.judgement.neighbour
                self._memory.changed(neighbour.key, neighbour.lladdr, self._clock())
            tell(repair)

        return self._repairer.carry_out(
            look.plan.changes, look.evidence, tell=remember, stopped=stopped
        )

    def unblind(self) -> list[Neighbour]:
        """Let the kernel verify the neighbour through which the authority is reached.

        In a private subnet the EC2 endpoint may itself be a neighbour. If its
        own entry is wrong, no reading will ever come to say so. A probe writes
        nothing: the kernel asks, and believes the wire.

        Returns:
            The entries that are being verified.

        Raises:
            KernelError: the kernel could not be read.
            IdentityError: not one link can be managed.
        """
        addresses = self._source.endpoint_addresses()
        if not addresses:
            return []
        table = self._reader.table()
        host, chosen = self._who(table.links)
        cidrs = {link.index: eni.subnet_cidrs for link, eni in chosen.links}
        own = table.addresses.union(*(eni.addresses for eni in host.enis))
        return [
            neighbour
            for neighbour in table.neighbours
            if neighbour.address in addresses - own
            and not any(kept.covers(neighbour.address) for kept in self._policy.protect)
            and any(cidr.covers(neighbour.address) for cidr in cidrs.get(neighbour.ifindex, ()))
            and self._reader.ucast_solicit(neighbour.ifindex) > 0
            and self._writer.verify(neighbour)
        ]


def _listed(judgement: Judgement) -> bool:
    """Say whether the owner lists the very address, rather than a prefix around it."""
    owner = judgement.owner
    return owner is not None and judgement.neighbour.address in owner.addresses


def _pairs(
    neighbours: Iterable[Neighbour], links: Mapping[int, ManagedLink]
) -> dict[Key, tuple[str, Address]]:
    """Name entries of managed links as EC2 does: by (subnet, address)."""
    return {
        neighbour.key: (links[neighbour.ifindex].subnet.subnet_id, neighbour.address)
        for neighbour in neighbours
        if neighbour.ifindex in links
    }


def _subnet_ids(links: Mapping[int, ManagedLink]) -> frozenset[str]:
    return frozenset(link.subnet.subnet_id for link in links.values())


def _unmoved(links: Mapping[int, ManagedLink], now: Iterable[Link]) -> dict[int, ManagedLink]:
    """Keep the managed links that are still what they were; an index may be reused."""
    standing = {link.index: (link.mac, link.kind, link.master) for link in now}
    return {
        index: link
        for index, link in links.items()
        if standing.get(index) == (link.link.mac, link.link.kind, link.link.master)
    }
