"""A pass on fakes: its order, its second look, and what a memory changes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from reconciler.core.memory import Memory
from reconciler.core.model import (
    Link,
    Neighbour,
    NextHops,
    Nud,
    Outcome,
    Reading,
    Verdict,
    pack_address,
)
from reconciler.errors import AuthorityError, CapabilityError, KernelError, UnbelievableError
from reconciler.kernel.write import Writer
from reconciler.passes import Pass
from reconciler.repair import Repairer
from reconciler.settings import GuardSettings, PolicySettings, Settings
from reconciler.testing.clock import ManualClock
from reconciler.testing.example import GONE_ADDRESS, GONE_MAC, HOST, example
from reconciler.testing.kernel import FakeKernel
from reconciler.testing.source import FakeSource

ADDRESS = pack_address("10.0.0.11")
WRONG = b"\x02\0\0\0\0\x99"
ENTRY = Neighbour(2, ADDRESS, WRONG, Nud.REACHABLE, confirmed=1.0)
ORPHAN = Neighbour(2, pack_address(GONE_ADDRESS), GONE_MAC, Nud.STALE, confirmed=500.0)


class World:
    """Both sides as fakes, and a pass between them."""

    def __init__(
        self,
        *entries: Neighbour,
        settings: Settings | None = None,
        memory: Memory | None = None,
        observe: bool = False,
    ) -> None:
        vpc = example()
        self.clock = ManualClock()
        self.source = FakeSource(vpc, HOST, self.clock)
        own = vpc.enis[0]
        self.kernel = FakeKernel(
            entries,
            links=(Link(1, "lo", b"\0" * 6), Link(2, "eth0", own.mac)),
            addresses=own.addresses,
            wire=lambda key: getattr(vpc.owner(own.subnet_id, key.address), "mac", None),
            clock=self.clock,
        )
        self.settings = settings or Settings()
        writer = Writer(self.kernel, self.kernel, observe=observe, hold_file=None, clock=self.clock)
        self.one = Pass(
            self.kernel,
            writer,
            self.source,
            self.settings,
            Repairer(self.kernel, writer, clock=self.clock, sleep=self.clock.sleep),
            clock=self.clock,
            memory=memory,
        )

    def verdicts(self) -> list[tuple[str, str]]:
        """Look, and return verdict and rule of each entry."""
        return [(j.verdict.value, j.rule) for j in self.one.look().plan.judgements]

    def outcomes(self) -> list[Outcome]:
        """Look and repair; return the outcomes."""
        return [repair.outcome for repair in self.one.repair(self.one.look()).done]


def test_a_pass_repairs_what_is_wrong() -> None:
    """A mismatch and an orphan are cured in one pass; a second finds nothing."""
    world = World(ENTRY, ORPHAN)
    assert world.outcomes() == [Outcome.HEALED, Outcome.GONE]
    assert [verdict for verdict, _ in world.verdicts()] == ["match"]


def test_a_suspect_cured_meanwhile_is_no_finding() -> None:
    """An entry that got its right MAC while EC2 was asked is judged as it stands now."""
    world = World(ENTRY)
    right = example().enis[1].mac
    world.source.between = lambda: world.kernel.neighbours.update(
        {ENTRY.key: replace(ENTRY, lladdr=right)}
    )
    assert world.verdicts() == [("match", "owner-has-mac")]


def test_a_suspect_gone_meanwhile_is_no_finding() -> None:
    """An entry that went away while EC2 was asked is not reported."""
    world = World(ENTRY)
    world.source.between = world.kernel.neighbours.clear
    assert world.verdicts() == []


def test_what_is_wrong_in_a_new_way_waits() -> None:
    """An entry that became wrong only after the reading began rests on no evidence yet."""
    world = World(ENTRY)
    world.source.between = lambda: world.kernel.neighbours.update(
        {ENTRY.key: replace(ENTRY, lladdr=b"\x02\0\0\0\0\x77")}
    )
    look = world.one.look()
    assert [(j.verdict, j.rule) for j in look.plan.judgements] == [(Verdict.PENDING, "unconfirmed")]
    assert world.one.repair(look).done == []


def test_a_failed_reading_is_an_error() -> None:
    """What EC2 could not say whole reaches the caller, and nothing is written."""
    world = World(ENTRY)
    world.source.fail_next = [AuthorityError("page 2 failed")]
    with pytest.raises(AuthorityError):
        world.one.look()
    assert world.kernel.writes == []


def test_a_reading_without_this_host_is_not_believed() -> None:
    """A reading that lacks this host's own ENI is another place's."""
    world = World(ENTRY)
    own = example().enis[0]
    world.source.vpc = world.source.vpc.with_eni(replace(own, status="detaching"))
    with pytest.raises(UnbelievableError):
        world.one.look()


def test_capability_is_asked_for_only_when_there_is_something_to_do() -> None:
    """Without changes nothing is asked; with one, a missing capability is an error before it."""
    world = World()
    world.kernel.may_write = False
    assert world.outcomes() == []
    world.kernel.neighbours[ENTRY.key] = ENTRY
    with pytest.raises(CapabilityError):
        world.outcomes()
    assert world.kernel.writes == []


def test_force_passes_the_ratio_but_not_the_order() -> None:
    """A plan that is refused as too large is carried out with force."""
    many = [replace(ENTRY, address=bytes([10, 0, 0, n])) for n in range(100, 120)]
    world = World(*many)
    refused = world.one.look()
    assert refused.refusal is not None
    assert refused.refusal.guard == "ratio"
    assert world.one.repair(refused).done == []
    forced = world.one.look(force=True)
    assert len(world.one.repair(forced).done) == 20


def test_a_blind_probe_is_guarded_as_a_delete() -> None:
    """On a link whose ucast_solicit is 0 a probe weighs as much as a delete."""
    policy = PolicySettings(on_mismatch="probe", on_orphan="probe")
    many = [replace(ENTRY, address=bytes([10, 0, 0, n])) for n in range(100, 120)]
    world = World(*many, settings=Settings(policy=policy))
    assert world.one.look().refusal is None
    world.kernel.probes = 0
    refusal = world.one.look().refusal
    assert refusal is not None
    assert refusal.guard == "ratio"


def test_with_a_memory_an_orphan_waits() -> None:
    """The daemon removes an orphan only with its second complete reading two minutes later."""
    world = World(ORPHAN, memory=Memory())
    assert world.outcomes() == []
    world.clock.advance(60)
    assert world.outcomes() == []
    world.clock.advance(60)
    assert world.outcomes() == [Outcome.GONE]


def test_with_a_memory_what_comes_back_is_contested() -> None:
    """When EC2 lags behind the wire the daemon asks the wire once, then backs off."""
    world = World(ENTRY, memory=Memory())
    world.kernel.wire = lambda _: WRONG
    assert world.outcomes() == [Outcome.RELEARNED]
    writes = len(world.kernel.writes)
    for _ in range(5):
        world.clock.advance(10)
        assert world.verdicts() == [("pending", "contested")]
    assert len(world.kernel.writes) == writes


def test_with_a_memory_the_ratio_counts_over_an_interval() -> None:
    """Twelve wrong entries that come one pass after another are refused like twelve at once."""
    settings = Settings(guard=GuardSettings(min_entries=2))
    right = [
        replace(ENTRY, address=eni.addresses[0], lladdr=eni.mac) for eni in example().enis[2:6]
    ]
    world = World(*right, settings=settings, memory=Memory())
    outcomes = []
    for n in range(12):
        wrong = replace(ENTRY, address=bytes([10, 0, 0, 33 + n]))  # of the node's prefix
        world.kernel.neighbours[wrong.key] = wrong
        world.clock.advance(2)
        look = world.one.look()
        outcomes.append(look.refusal.guard if look.refusal else len(world.one.repair(look).done))
    assert "ratio" in outcomes


def test_an_orphan_is_asked_for_by_name() -> None:
    """An ENI that the whole reading missed is found by name, and nothing is removed."""
    whole = example()
    peer, node = whole.enis[2], whole.enis[4]
    right = replace(ENTRY, address=peer.addresses[0], lladdr=peer.mac)
    pod = replace(ENTRY, address=pack_address("10.0.0.37"), lladdr=node.mac)
    world = World(right, pod)
    world.source.vpc = whole.without_eni(peer.eni_id).without_eni(node.eni_id)
    world.source.between = lambda: setattr(world.source, "vpc", whole)
    assert world.verdicts() == [("match", "owner-has-mac"), ("unlisted", "mac-is-live")]
    assert world.source.targeted == 1


def test_a_link_that_was_replaced_meanwhile_is_left_alone() -> None:
    """A link index that names another device by now is not managed any more."""
    world = World(ENTRY)
    other = Link(2, "eth9", b"\x02\0\0\0\0\x55")
    world.source.between = lambda: setattr(world.kernel, "links", (other,))
    assert world.verdicts() == [("unmanaged", "link")]


def test_an_address_that_became_a_next_hop_meanwhile_is_left_alone() -> None:
    """A route that appeared while EC2 was asked protects its next hop."""
    world = World(ORPHAN)
    hops = NextHops(frozenset({ORPHAN.address}))
    world.source.between = lambda: setattr(world.kernel, "next_hops", hops)
    assert world.verdicts() == [("protected", "next-hop")]


def test_a_glance_confirms_by_name_and_heals() -> None:
    """What the last reading shows wrong is confirmed by a targeted one, and healed."""
    world = World(memory=Memory())
    assert world.one.glance() is None
    world.one.look()
    world.kernel.neighbours[ENTRY.key] = ENTRY
    look = world.one.glance()
    assert look is not None
    assert look.evidence.seen_at < look.evidence.reading_began
    assert [repair.outcome for repair in world.one.repair(look).done] == [Outcome.HEALED]
    assert (world.source.readings, world.source.targeted) == (1, 1)


def test_a_glance_believes_the_newer_word() -> None:
    """An address that EC2 gave away since the last reading is no mismatch any more."""
    world = World(memory=Memory())
    world.one.look()
    newer = replace(example().enis[1], mac=WRONG)
    world.source.vpc = world.source.vpc.with_eni(newer)
    world.kernel.neighbours[ENTRY.key] = ENTRY
    look = world.one.glance()
    assert look is not None
    assert [j.verdict for j in look.plan.judgements] == [Verdict.MATCH]


def test_a_glance_leaves_what_no_filter_finds() -> None:
    """A suspect inside a delegated prefix waits for the next whole look."""
    world = World(memory=Memory())
    world.one.look()
    pod = replace(ENTRY, address=pack_address("10.0.0.37"))
    world.kernel.neighbours[pod.key] = pod
    look = world.one.glance()
    assert look is not None
    assert look.plan.judgements == ()


def test_a_glance_needs_a_young_reading() -> None:
    """Beyond authority.max_age the last reading is no ground for suspicion."""
    world = World(memory=Memory())
    world.one.look()
    world.kernel.neighbours[ENTRY.key] = ENTRY
    world.clock.advance(301)
    assert world.one.glance() is None
    assert world.source.targeted == 0


def during_the_question(world: World, happens: Callable[[], object]) -> None:
    """Let something happen while EC2 is asked by name, after the whole reading."""
    ask = world.source.read_targets

    def read_targets(*arguments: Any) -> Reading:
        happens()
        return ask(*arguments)

    setattr(world.source, "read_targets", read_targets)  # noqa: B010 - a fake's method.


def test_what_changes_while_orphans_are_asked_for_is_seen() -> None:
    """A next hop, an own address or another link that appears during the question is left alone."""
    hops = NextHops(frozenset({ORPHAN.address}), frozenset({ORPHAN.address}))
    foreign = (Link(2, "veth9", b"\x02\0\0\0\0\x55", kind="veth"),)
    for name, value, verdict in (
        ("next_hops", hops, "protected"),
        ("addresses", frozenset({ORPHAN.address}), "protected"),
        ("links", foreign, "unmanaged"),
    ):
        world = World(ORPHAN)
        during_the_question(world, partial(setattr, world.kernel, name, value))
        look = world.one.look()
        assert [j.verdict.value for j in look.plan.judgements] == [verdict]
        assert world.one.repair(look).done == []


def test_only_the_orphans_of_this_pass_are_asked_for() -> None:
    """Beyond the pace nobody is asked; where orphans are only reported nobody is asked at all."""
    many = [replace(ORPHAN, address=bytes([10, 0, 0, n])) for n in range(60, 90)]
    world = World(*many, settings=Settings(guard=GuardSettings(max_changes=3, min_entries=100)))
    asked: list[int] = []
    ask = world.source.read_targets

    def read_targets(pairs: set[tuple[str, bytes]], *more: Any) -> Reading:
        asked.append(len(pairs))
        return ask(pairs, *more)

    setattr(world.source, "read_targets", read_targets)  # noqa: B010 - a fake's method.
    assert world.outcomes() == [Outcome.GONE] * 3
    assert asked == [3]
    world = World(ORPHAN, settings=Settings(policy=PolicySettings(on_orphan="report")))
    world.one.look()
    assert world.source.targeted == 0


def test_orphans_that_cannot_be_asked_for_hold_up_no_cure() -> None:
    """If EC2 does not answer the question by name the orphans wait, and mismatches are healed."""
    world = World(ENTRY, ORPHAN)

    def fail() -> None:
        raise AuthorityError("throttled")

    during_the_question(world, fail)
    assert world.outcomes() == [Outcome.HEALED]
    assert ORPHAN.key in world.kernel.neighbours


def test_observing_needs_no_capability_and_sends_nothing() -> None:
    """In observe a missing capability is no error: everything is skipped."""
    world = World(ENTRY, observe=True)
    world.kernel.may_write = False
    assert world.outcomes() == [Outcome.SKIPPED]
    assert world.kernel.writes == []


def test_a_change_whose_end_was_not_seen_is_remembered() -> None:
    """A delete that was sent counts as ours even if the verifying look failed."""
    world = World(ENTRY, memory=Memory())
    world.kernel.wire = lambda _: WRONG
    world.kernel.before_next["resolve"] = lambda: world.kernel.fail_next.update(
        neighbour=KernelError("no answer")
    )
    assert world.outcomes() == [Outcome.FAILED]
    world.clock.advance(10)
    assert world.verdicts() == [("pending", "contested")]


def test_replicas_that_disagree_are_no_reason_to_delete_again_and_again() -> None:
    """Whole readings from a stale replica, targeted ones from a new one: no delete a minute."""
    world = World(ENTRY, memory=Memory())
    stale = world.source.vpc
    newer = stale.with_eni(replace(example().enis[1], mac=WRONG))
    world.kernel.wire = lambda _: WRONG
    ask = world.source.read_targets

    def read_targets(*arguments: Any) -> Reading:
        world.source.vpc = newer
        try:
            return ask(*arguments)
        finally:
            world.source.vpc = stale

    setattr(world.source, "read_targets", read_targets)  # noqa: B010 - a fake's method.
    for _ in range(240):
        look = world.one.glance()
        if look is not None:
            world.one.repair(look)
        world.one.repair(world.one.look())
        world.clock.advance(60)
    deletes = sum(write[0] == "delete" for write in world.kernel.writes)
    assert 1 <= deletes <= 9


def test_an_address_inside_a_prefix_is_asked_for_by_name() -> None:
    """An ENI that lists the very address goes before the prefix, even if no page listed it."""
    whole = example()
    node, balancer = whole.enis[4], whole.enis[5]
    right = replace(ENTRY, address=balancer.addresses[0], lladdr=balancer.mac)
    assert node.prefixes[0].covers(right.address)
    world = World(right)
    world.source.vpc = whole.without_eni(balancer.eni_id)
    world.source.between = lambda: setattr(world.source, "vpc", whole)
    assert world.verdicts() == [("match", "owner-has-mac")]
