"""Policy, pace and order."""

from core.strategies import MACS, make_view

from reconciler.core.model import Action, Eni, Judgement, Neighbour, Nud, Policy, Verdict
from reconciler.core.plan import counted, make_plan


def world(wrong: int, dead: int, right: int = 1) -> list[Judgement]:
    """Judge a table of mismatches, long-dead orphans and matches."""
    size = right + wrong
    held = [bytes([10, 0, 0, 4 + n]) for n in range(2, 2 + size)]
    owner = Eni("eni-x", "subnet-a", "vpc-1", MACS[0], addresses=tuple(held))
    entries = [
        Neighbour(2, address, MACS[0] if n < right else MACS[5], Nud.REACHABLE, confirmed=1.0)
        for n, address in enumerate(held)
    ]
    entries += [
        Neighbour(2, bytes([10, 0, 0, 30 - n]), MACS[4], Nud.STALE, confirmed=900.0)
        for n in range(dead)
    ]
    return [make_view((owner,)).judge(entry) for entry in reversed(entries)]


def test_policy_decides_the_action() -> None:
    """The policy turns each wrong verdict into its action."""
    policy = Policy(on_mismatch="probe", on_orphan="report")
    plan = make_plan(world(1, 1), policy, budget=10)
    assert [(j.verdict, j.action) for j in plan.changes] == [(Verdict.MISMATCH, Action.PROBE)]


def test_cures_come_before_removals_and_the_pace_holds() -> None:
    """The one mismatch is healed although orphans fill the budget many times over."""
    plan = make_plan(world(1, 9), Policy(), budget=3)
    assert [j.verdict for j in plan.changes] == [
        Verdict.MISMATCH,
        Verdict.ORPHAN,
        Verdict.ORPHAN,
    ]
    paced = [j for j in plan.judgements if j.verdict is Verdict.PENDING]
    assert ({j.rule for j in paced}, len(paced)) == ({"paced"}, 7)


def test_long_dead_entries_do_not_weigh_in_the_ratio() -> None:
    """The ratio counts mismatches and lively orphans; what was paced still counts."""
    plan = make_plan(world(4, 9), Policy(), budget=1)
    assert (len(plan.wrong), plan.judged, plan.matches) == (4, 14, 1)


def test_waiting_entries_carry_no_action() -> None:
    """An entry that has to wait is pending, with the rule that says why."""
    judgements = world(1, 0)
    key = next(j.neighbour.key for j in judgements if j.verdict is Verdict.MISMATCH)
    plan = make_plan(judgements, Policy(), budget=9, waiting={key: ("contested", "It came back.")})
    (pending,) = [j for j in plan.judgements if j.verdict is Verdict.PENDING]
    assert (pending.rule, pending.action, plan.changes) == ("contested", Action.NONE, ())
    assert pending.reason.endswith("It came back.")


def test_a_probe_counts_where_it_is_a_delete() -> None:
    """The guards weigh a probe only on a link with ucast_solicit 0; the pace holds it anywhere."""
    policy = Policy(on_mismatch="probe", on_orphan="probe")
    free = make_plan(world(3, 0), policy, budget=2)
    assert (len(free.changes), counted(free)) == (2, 0)
    blind = make_plan(world(3, 0), policy, budget=2, blind_links={2})
    assert (len(blind.changes), counted(blind, {2})) == (2, 2)


def test_what_is_unknown_is_probed_last_and_never_blindly() -> None:
    """Unknown entries take no cure's place, and are left alone where a probe is a delete."""
    policy = Policy(on_unknown="probe")
    entries = [
        Neighbour(2, bytes([10, 0, 0, n]), MACS[5], Nud.REACHABLE, confirmed=1.0)
        for n in range(20, 25)
    ]
    unknown = [make_view((), owner=None).judge(entry) for entry in entries]
    judgements = [*unknown, *world(2, 0)]
    plan = make_plan(judgements, policy, budget=4)
    assert [j.verdict for j in plan.changes] == [Verdict.MISMATCH] * 2 + [Verdict.UNKNOWN] * 2
    assert {j.verdict for j in plan.judgements} & {Verdict.PENDING} == set()
    blind = make_plan(judgements, policy, budget=9, blind_links={2})
    assert {j.verdict for j in blind.changes} == {Verdict.MISMATCH}


def test_the_cure_comes_first_whatever_its_address() -> None:
    """A mismatch at the table's end goes before the orphans at its beginning."""
    owner = Eni("eni-x", "subnet-a", "vpc-1", MACS[0], addresses=(bytes([10, 0, 0, 29]),))
    entries = [
        Neighbour(2, bytes([10, 0, 0, n]), MACS[5], Nud.STALE, confirmed=900.0)
        for n in (20, 21, 29)
    ]
    plan = make_plan(map(make_view((owner,)).judge, entries), Policy(), budget=1)
    assert [j.verdict for j in plan.changes] == [Verdict.MISMATCH]
