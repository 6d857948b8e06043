"""What the daemon remembers: patience with orphans, contests, pace, and owners that waver."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from core.strategies import HOST_ENIS, LINKS, MACS, SUBNETS, make_view

from reconciler.core.memory import Memory
from reconciler.core.model import (
    Eni,
    Judgement,
    Key,
    Limits,
    ManagedLink,
    Neighbour,
    Nud,
    Reading,
)
from reconciler.core.ownership import Ownership
from reconciler.errors import ShrunkRefused

ADDRESS = bytes([10, 0, 0, 9])
KEY = Key(2, ADDRESS)
ENTRY = Neighbour(2, ADDRESS, MACS[5], Nud.REACHABLE)
OWNER = Eni("eni-x", "subnet-a", "vpc-1", MACS[0], addresses=(ADDRESS,))
LINK = {2: ManagedLink(LINKS[0], HOST_ENIS[0], SUBNETS[0])}
PAIR = ("subnet-a", ADDRESS)
NOW = 10_000.0


def reading(*enis: Eni, began: float = NOW) -> Reading:
    """Make a complete reading of both subnets."""
    subnets = {subnet.subnet_id: subnet for subnet in SUBNETS}
    return Reading(began, began + 1, datetime(2026, 1, 1, tzinfo=UTC), enis, subnets, 1)


def judged(*owners: Eni, entry: Neighbour = ENTRY) -> Judgement:
    """Judge the one entry against these owners."""
    return make_view(owners).judge(entry)


def waits(memory: Memory, judgement: Judgement, at: float, *, links: object = LINK) -> str | None:
    """Say which rule makes the entry wait in a look at that time."""
    assert isinstance(links, dict)
    waiting = memory.waiting(
        [judgement], links, reading(began=at + 0.5), seen_at=at, now=at + 1, grace=60
    )
    return waiting.get(KEY, (None, ""))[0]


def test_a_mismatch_need_not_wait() -> None:
    """A mismatch that a whole reading shows is acted on at once."""
    assert waits(Memory(), judged(OWNER), NOW) is None


def test_an_orphan_waits_for_two_readings_two_minutes_apart() -> None:
    """An orphan is removed only after two complete readings at least two minutes apart."""
    memory = Memory()
    assert waits(memory, judged(), NOW) == "unconfirmed"
    assert waits(memory, judged(), NOW + 119) == "unconfirmed"
    assert waits(memory, judged(), NOW + 120) is None


def test_an_orphan_with_another_mac_starts_over() -> None:
    """Patience belongs to the (link, address, MAC): a new MAC is a new orphan."""
    memory = Memory()
    waits(memory, judged(), NOW)
    other = judged(entry=replace(ENTRY, lladdr=MACS[4]))
    assert waits(memory, other, NOW + 130) == "unconfirmed"


def test_an_orphan_that_was_fine_in_between_starts_over() -> None:
    """A reading that lists the address ends the patience."""
    memory = Memory()
    waits(memory, judged(), NOW)
    waits(memory, judged(replace(OWNER, mac=MACS[5])), NOW + 60)
    assert waits(memory, judged(), NOW + 130) == "unconfirmed"


def test_what_comes_back_is_contested_with_doubling_back_off() -> None:
    """The same MAC back after our change waits 1 minute, then 2, and so on up to an hour."""
    memory, at, waited = Memory(), NOW, []
    for _ in range(8):
        assert waits(memory, judged(OWNER), at) is None
        memory.changed(KEY, MACS[5], at + 1)
        start = at + 1
        while waits(memory, judged(OWNER), at := at + 10) == "contested":
            assert memory.contested == 1
        waited.append(round((at - start) / 60))
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]


def test_orphans_are_contested_too() -> None:
    """An orphan that comes back is left alone, however patient we were."""
    memory = Memory()
    waits(memory, judged(), NOW)
    waits(memory, judged(), NOW + 120)
    memory.changed(KEY, MACS[5], NOW + 121)
    assert waits(memory, judged(), NOW + 130) == "contested"


def test_a_return_after_an_hour_is_a_new_incident() -> None:
    """A contest is remembered for an hour after our change."""
    memory = Memory()
    memory.changed(KEY, MACS[5], NOW)
    assert waits(memory, judged(OWNER), NOW + 3602) is None


def test_an_agreeing_reading_ends_the_contest() -> None:
    """Once EC2 says what the wire says, nothing is contested any more."""
    memory = Memory()
    memory.changed(KEY, MACS[5], NOW)
    assert waits(memory, judged(OWNER), NOW + 10) == "contested"
    assert waits(memory, judged(replace(OWNER, mac=MACS[5])), NOW + 20) is None
    assert memory.contested == 0


def test_wavering_replicas_do_not_end_the_contest() -> None:
    """One agreeing answer between two disagreeing ones resets no back-off."""
    memory, new = Memory(), replace(OWNER, eni_id="eni-new", mac=MACS[5])
    for step, owner in enumerate((OWNER, new, OWNER)):
        at = NOW + 10 * step
        memory.owners([PAIR], Ownership([owner]), at)
        rule = waits(memory, judged(owner), at)
        if step == 0:
            memory.changed(KEY, MACS[5], at + 1)
    assert rule == "contested"


def test_an_owner_that_changes_twice_is_unsettled_for_five_minutes() -> None:
    """Old, new, old within five minutes leaves no opinion on the address."""
    memory, new = Memory(), replace(OWNER, eni_id="eni-new", mac=MACS[5])

    def unsettled(owner: Eni, at: float) -> bool:
        return PAIR in memory.owners([PAIR], Ownership([owner]), at)

    answers = [unsettled(o, NOW + at) for o, at in ((OWNER, 0), (new, 10), (OWNER, 20))]
    assert answers == [False, False, True]
    assert unsettled(OWNER, NOW + 309)
    assert not unsettled(OWNER, NOW + 311)


def test_a_targeted_agreement_ends_no_contest() -> None:
    """One replica's answer to a question by name resets no back-off."""
    memory = Memory()
    memory.changed(KEY, MACS[5], NOW)
    assert waits(memory, judged(OWNER), NOW + 10) == "contested"
    agreeing = judged(replace(OWNER, mac=MACS[5]))
    memory.waiting(
        [agreeing], LINK, reading(), seen_at=NOW + 11, now=NOW + 12, grace=60, whole=False
    )
    assert waits(memory, judged(OWNER), NOW + 20) == "contested"


def test_two_macs_that_take_turns_are_one_quarrel() -> None:
    """A wire that answers A, B, A, B is asked less and less often."""
    memory, at, writes = Memory(), NOW, 0
    while at < NOW + 7200:
        for mac in (MACS[5], MACS[4]):
            at += 30
            if waits(memory, judged(OWNER, entry=replace(ENTRY, lladdr=mac)), at) is None:
                memory.changed(KEY, mac, at + 1)
                writes += 1
    assert writes < 20


def test_the_longest_back_off_is_kept_to_its_end() -> None:
    """An hour of back-off ends after an hour, not with the memory of the change."""
    memory = Memory()
    at = NOW
    for _ in range(8):
        memory.changed(KEY, MACS[5], at)
        waits(memory, judged(OWNER), at + 50)
        at += 4000
    memory.changed(KEY, MACS[5], at)
    assert waits(memory, judged(OWNER), at + 100) == "contested"
    assert waits(memory, judged(OWNER), at + 3650) == "contested"
    assert waits(memory, judged(OWNER), at + 3702) is None


def test_an_orphan_that_had_an_owner_in_between_starts_over() -> None:
    """A reading that names an owner, even with another MAC, ends an orphan's patience."""
    memory = Memory()
    waits(memory, judged(), NOW)
    waits(memory, judged(OWNER), NOW + 60)
    assert waits(memory, judged(), NOW + 130) == "unconfirmed"


def test_a_link_that_appears_later_gets_a_grace_period() -> None:
    """Entries of a link that was not there at the start wait for one interval."""
    memory = Memory()
    memory.waiting([], {}, reading(), seen_at=NOW, now=NOW, grace=60)
    assert waits(memory, judged(OWNER), NOW + 10) == "unconfirmed"
    assert waits(memory, judged(OWNER), NOW + 75) is None


def test_the_hourly_pace() -> None:
    """No more than max_changes_per_hour in any hour, and max_changes in a pass."""
    memory, limits = Memory(), Limits(max_changes=5, max_changes_per_hour=7)
    assert memory.budget(limits, NOW) == 5
    for n in range(6):
        memory.changed(Key(2, bytes([10, 0, 0, n])), MACS[5], NOW + n)
    assert memory.budget(limits, NOW + 10) == 1
    assert memory.budget(limits, NOW + 3600) == 2
    assert memory.budget(limits, NOW + 3700) == 5


def test_the_ratio_window_slides() -> None:
    """Wrong entries count for one interval, each once, whatever look they came from."""
    memory = Memory()
    for n in range(80):
        count = memory.wrong_lately([Key(2, bytes([10, 0, 0, n]))], 60, NOW + n / 10)
    assert count == 80
    assert memory.wrong_lately([], 60, NOW + 66) == 19


def test_a_shrunken_reading_is_refused_twice_and_then_believed() -> None:
    """Half a subnet's ENIs gone at once is believed when three readings in a row say so."""
    memory = Memory()
    many = [replace(OWNER, eni_id=f"eni-{n}") for n in range(20)]
    memory.believe(reading(*many), Limits())
    for has in (9, 8):
        with pytest.raises(ShrunkRefused, match=rf"20 to {has} ENIs.*guard\.max_shrink"):
            memory.believe(reading(*many[:has]), Limits())
    memory.believe(reading(*many[:8]), Limits())


def test_three_readings_that_do_not_agree_are_not_believed() -> None:
    """Three different partial answers are no agreement."""
    memory = Memory()
    many = [replace(OWNER, eni_id=f"eni-{n}") for n in range(100)]
    memory.believe(reading(*many), Limits())
    for has in (3, 40, 17, 3):
        with pytest.raises(ShrunkRefused):
            memory.believe(reading(*many[:has]), Limits())


def test_a_subnet_missing_from_one_reading_keeps_its_figure() -> None:
    """A reading without the subnet does not make the next loss look small."""
    memory = Memory()
    many = [replace(OWNER, eni_id=f"eni-{n}") for n in range(20)]
    memory.believe(reading(*many), Limits())
    memory.believe(replace(reading(), subnets={}), Limits())
    with pytest.raises(ShrunkRefused):
        memory.believe(reading(*many[:2]), Limits())


def test_a_whole_reading_between_two_shrunken_ones_starts_the_count_again() -> None:
    """Readings that alternate are never believed to have shrunk."""
    memory = Memory()
    many = [replace(OWNER, eni_id=f"eni-{n}") for n in range(20)]
    memory.believe(reading(*many), Limits())
    for _ in range(4):
        with pytest.raises(ShrunkRefused):
            memory.believe(reading(*many[:5]), Limits())
        memory.believe(reading(*many), Limits())
