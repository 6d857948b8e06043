"""From verdicts to a plan: what the policy makes of them, and at what pace.

A plan is a value. It can be printed, guarded and carried out, and it is the
same whether anything will be carried out or not.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.core.model import Action, Judgement, Key, Policy, Verdict

WRONG = frozenset({Verdict.MISMATCH, Verdict.ORPHAN, Verdict.PENDING})
JUDGED = WRONG | {Verdict.MATCH, Verdict.UNLISTED}

# An orphan that the kernel confirmed within this many seconds is in use, so a
# table full of them says more about the authority than about the table.
LIVELY = 60.0


@dataclass(frozen=True)
class Plan:
    """Every judgement of one look; those to be carried out have an action.

    ``judged`` counts the entries on which the authority has an opinion,
    ``matches`` those it agrees with, and ``wrong`` names the entries that weigh
    in the ratio guard: mismatches, and orphans the kernel confirmed lately.
    """

    judgements: tuple[Judgement, ...]
    judged: int
    matches: int
    wrong: frozenset[Key]

    @property
    def changes(self) -> tuple[Judgement, ...]:
        """What is to be carried out, the cures before the removals."""
        return tuple(sorted((j for j in self.judgements if j.action != Action.NONE), key=urgency))


def make_plan(
    judgements: Iterable[Judgement],
    policy: Policy,
    *,
    budget: int,
    blind_links: Collection[int] = (),
    waiting: Mapping[Key, tuple[str, str]] | None = None,
) -> Plan:
    """Apply the policy and the pace.

    Args:
        judgements: one for each entry of the table.
        policy: what to do about each kind of wrong entry.
        budget: how many changes this pass may make; what is beyond it waits.
        blind_links: links (by index) whose ``ucast_solicit`` is 0, where a
            probe is a delete; nothing unknown is ever probed there.
        waiting: rule and reason for the entries that must wait, by key.
    """
    waiting = waiting or {}
    judged = matches = 0
    wrong = set()
    kept: list[Judgement] = []
    for judgement in judgements:
        verdict = judgement.verdict
        judged += verdict in JUDGED
        matches += verdict is Verdict.MATCH
        if verdict is Verdict.MISMATCH or (
            verdict is Verdict.ORPHAN and judgement.neighbour.confirmed < LIVELY
        ):
            wrong.add(judgement.neighbour.key)
        wait = waiting.get(judgement.neighbour.key) if verdict in WRONG else None
        kept.append(_pending(judgement, *wait) if wait else _act(judgement, policy, blind_links))

    # Cures first: honest scale-in leaves hundreds of orphans, and none of them
    # may stand before the one client that cannot connect.
    acted = sorted((j for j in kept if j.action is not Action.NONE), key=urgency)
    over = acted[max(budget, 0) :]
    beyond = {judgement.neighbour.key for judgement in over}
    paced = tuple(
        _beyond(judgement) if judgement.neighbour.key in beyond else judgement for judgement in kept
    )
    return Plan(paced, judged, matches, frozenset(wrong))


def counted(plan: Plan, blind_links: Collection[int] = ()) -> int:
    """Count the planned changes that the guards weigh: all but harmless probes."""
    return sum(
        judgement.action is not Action.PROBE or judgement.neighbour.ifindex in blind_links
        for judgement in plan.changes
    )


def _act(judgement: Judgement, policy: Policy, blind_links: Collection[int]) -> Judgement:
    wish = {
        Verdict.MISMATCH: policy.on_mismatch,
        Verdict.ORPHAN: policy.on_orphan,
        Verdict.UNKNOWN: policy.on_unknown,
    }.get(judgement.verdict, "report")
    if wish == "report" or (
        judgement.verdict is Verdict.UNKNOWN and judgement.neighbour.ifindex in blind_links
    ):
        return judgement
    return replace(judgement, action=Action(wish))


def _beyond(judgement: Judgement) -> Judgement:
    if judgement.verdict is Verdict.UNKNOWN:
        return replace(judgement, action=Action.NONE)
    return _pending(judgement, "paced", "It waits for a later pass ([guard] max_changes).")


def _pending(judgement: Judgement, rule: str, reason: str) -> Judgement:
    return replace(
        judgement,
        verdict=Verdict.PENDING,
        rule=rule,
        reason=f"{judgement.reason} {reason}",
        action=Action.NONE,
    )


_RANK = {Verdict.MISMATCH: 0, Verdict.ORPHAN: 1}


def urgency(judgement: Judgement) -> tuple[int, int, int, bytes]:
    """Sort by what matters most: cures, removals, the rest; then by link and address."""
    key = judgement.neighbour.key
    return _RANK.get(judgement.verdict, 2), key.ifindex, len(key.address), key.address
