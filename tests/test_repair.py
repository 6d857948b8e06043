"""Repairs, one by one: act, ask, verify, and every way it can end."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.model import (
    Action,
    Evidence,
    Judgement,
    Key,
    Mac,
    Neighbour,
    Nud,
    Outcome,
    Verdict,
)
from reconciler.errors import KernelError
from reconciler.kernel.write import Writer
from reconciler.repair import RESOLUTIONS_PER_SECOND, WINDOW, Repairer, Repairs
from reconciler.testing.clock import ManualClock
from reconciler.testing.kernel import FakeKernel

RIGHT, WRONG, THIRD = (b"\x02\0\0\0\0" + bytes([n]) for n in range(3))
KEY = Key(2, b"\x0a\0\0\x0b")
ENTRY = Neighbour(2, KEY.address, WRONG, Nud.REACHABLE)
MISMATCH = Judgement(
    ENTRY, Verdict.MISMATCH, "rule", "Reason.", expected_mac=RIGHT, action=Action.DELETE
)
ORPHAN = Judgement(ENTRY, Verdict.ORPHAN, "rule", "Reason.", action=Action.DELETE)


class Bench:
    """A fake kernel with one wrong entry, and a repairer on it."""

    def __init__(self, *, observe: bool = False, hold_file: Path | None = None) -> None:
        self.clock = ManualClock()
        self.answer: Mac | None = RIGHT
        self.kernel = FakeKernel([ENTRY], wire=lambda _: self.answer, clock=self.clock)
        self.pauses: list[Callable[[], None]] = []
        writer = Writer(
            self.kernel, self.kernel, observe=observe, hold_file=hold_file, clock=self.clock
        )
        self.repairer = Repairer(self.kernel, writer, clock=self.clock, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass, and whatever was to happen in it."""
        self.clock.advance(seconds)
        if self.pauses:
            self.pauses.pop(0)()

    def repair(self, *changes: Judgement) -> Repairs:
        """Carry out changes on fresh evidence."""
        now = self.clock()
        return self.repairer.carry_out(changes, Evidence(now - 3, now - 2, now - 1))

    def outcome(self, change: Judgement = MISMATCH) -> Outcome:
        """Carry out one change; return how it ended."""
        (repair,) = self.repair(change).done
        return repair.outcome


def test_healed() -> None:
    """A mismatch is deleted, asked for anew, and verified."""
    bench = Bench()
    assert bench.outcome() is Outcome.HEALED
    assert bench.kernel.writes == [("delete", KEY), ("resolve", KEY)]


def test_an_orphan_is_deleted_and_not_asked_for() -> None:
    """Nobody owns an orphan's address, so nobody is asked."""
    bench = Bench()
    assert bench.outcome(ORPHAN) is Outcome.GONE
    assert bench.kernel.writes == [("delete", KEY)]


def test_relearned() -> None:
    """The wire answers another MAC than the owner's: said, and left."""
    bench = Bench()
    bench.answer = THIRD
    assert bench.outcome() is Outcome.RELEARNED


def test_silence_ends_with_the_window() -> None:
    """Where nobody answers the window closes after four seconds, and the wrong MAC is gone."""
    bench = Bench()
    bench.answer = None
    (repair,) = bench.repair(MISMATCH).done
    assert repair.outcome is Outcome.GONE
    assert WINDOW <= repair.seconds < WINDOW + 0.1


def test_failed_is_a_certain_answer() -> None:
    """Once the kernel has given up there is nothing to wait for."""
    bench = Bench()
    bench.answer = None
    bench.pauses = [bench.kernel.fail_unanswered]
    (repair,) = bench.repair(MISMATCH).done
    assert repair.outcome is Outcome.GONE
    assert repair.seconds < 0.1


def test_a_late_answer_is_waited_for() -> None:
    """An answer within the window heals."""
    bench = Bench()
    bench.answer = None

    def answers() -> None:
        bench.kernel.neighbours[KEY] = replace(ENTRY, lladdr=RIGHT)

    bench.pauses = [lambda: None, lambda: None, answers]
    assert bench.outcome() is Outcome.HEALED


def test_an_entry_that_changed_is_left_alone() -> None:
    """An entry that is no longer the one that was judged is not touched."""
    bench = Bench()
    bench.kernel.neighbours[KEY] = replace(ENTRY, lladdr=THIRD)
    assert bench.outcome() is Outcome.CHANGED
    assert bench.kernel.writes == []


def test_an_absent_entry_was_cured_by_somebody() -> None:
    """No entry, or the kernel's ENOENT, means that somebody already cured it."""
    bench = Bench()
    bench.kernel.before_next["delete"] = bench.kernel.neighbours.clear
    assert bench.outcome() is Outcome.GONE
    bench = Bench()
    bench.kernel.neighbours.clear()
    assert bench.outcome() is Outcome.GONE
    assert bench.kernel.writes == []


def test_the_kernels_refusal_is_told() -> None:
    """A refused delete is `failed`, with the kernel's own words, and the others go on."""
    bench = Bench()
    other = replace(ENTRY, address=b"\x0a\0\0\x0c")
    bench.kernel.neighbours[other.key] = other
    bench.kernel.fail_next["delete"] = OSError(errno.EBUSY, "Device or resource busy")
    first, second = bench.repair(MISMATCH, replace(MISMATCH, neighbour=other)).done
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.HEALED)
    assert first.error == "the kernel refused: Device or resource busy"


def test_a_kernel_that_cannot_be_read_again_is_told() -> None:
    """When the verifying look fails, the repair is not called a success."""
    bench = Bench()
    bench.kernel.before_next["resolve"] = lambda: bench.kernel.fail_next.update(
        neighbour=KernelError("The kernel did not answer.")
    )
    (repair,) = bench.repair(MISMATCH).done
    assert repair.outcome is Outcome.FAILED
    assert "did not answer" in (repair.error or "")


def test_a_failed_question_leaves_it_to_the_next_packet() -> None:
    """If the kernel will not ask the wire, the wrong entry is gone all the same."""
    bench = Bench()
    bench.kernel.fail_next["resolve"] = OSError(errno.ENOBUFS, "No buffer space available")
    assert bench.outcome() is Outcome.GONE


def test_observe_skips() -> None:
    """In observe nothing is sent and everything is skipped."""
    bench = Bench(observe=True)
    assert bench.outcome() is Outcome.SKIPPED
    assert bench.kernel.writes == []


def test_a_hold_file_in_the_middle_stops_the_rest(tmp_path: Path) -> None:
    """A hold file that appears between two writes stops what is left."""
    hold = tmp_path / "hold"
    bench = Bench(hold_file=hold)
    others = [replace(ENTRY, address=bytes([10, 0, 0, n])) for n in range(20, 24)]
    bench.kernel.neighbours |= {other.key: other for other in others}
    bench.kernel.before_next["resolve"] = hold.touch
    repairs = bench.repair(*(replace(MISMATCH, neighbour=other) for other in others))
    assert [repair.outcome for repair in repairs.done] == [Outcome.HEALED]
    assert repairs.refusal is not None
    assert repairs.refusal.guard == "hold"


def test_stopping_looks_once_more() -> None:
    """After Ctrl-C nothing more is changed, and what was done is looked at one last time."""
    bench = Bench()
    others = [replace(ENTRY, address=bytes([10, 0, 0, n])) for n in range(20, 24)]
    bench.kernel.neighbours |= {other.key: other for other in others}
    now = bench.clock()
    repairs = bench.repairer.carry_out(
        [replace(MISMATCH, neighbour=other) for other in others],
        Evidence(now - 3, now - 2, now - 1),
        stopped=lambda: len(bench.kernel.writes) >= 2,
    )
    assert [repair.outcome for repair in repairs.done] == [Outcome.HEALED]
    assert len(bench.kernel.writes) == 2


def test_a_repair_is_no_arp_storm() -> None:
    """No more than 200 questions a second are asked."""
    bench = Bench()
    many = [replace(ENTRY, address=bytes([10, 0, n // 200, n % 200])) for n in range(400)]
    bench.kernel.neighbours = {entry.key: entry for entry in many}
    began = bench.clock()
    done = bench.repair(*(replace(MISMATCH, neighbour=entry) for entry in many)).done
    assert {repair.outcome for repair in done} == {Outcome.HEALED}
    assert bench.clock() - began >= 399 / RESOLUTIONS_PER_SECOND
    assert max(repair.seconds for repair in done) < 0.1


def test_probes_are_paced_too() -> None:
    """A probe asks the wire, so no more than 200 go out in a second."""
    bench = Bench()
    many = [replace(ENTRY, address=bytes([10, 0, 0, n])) for n in range(200)]
    bench.kernel.neighbours = {entry.key: entry for entry in many}
    began = bench.clock()
    bench.repair(*(replace(MISMATCH, neighbour=e, action=Action.PROBE) for e in many))
    assert bench.clock() - began >= 199 / RESOLUTIONS_PER_SECOND


def test_written_says_whether_anything_was_sent() -> None:
    """A change that was sent counts however it ended; one that found nothing to do does not."""
    bench = Bench()
    assert [repair.written for repair in bench.repair(MISMATCH).done] == [True]
    bench = Bench()
    bench.kernel.neighbours.clear()
    assert [repair.written for repair in bench.repair(MISMATCH).done] == [False]
    bench = Bench()
    bench.kernel.fail_next["delete"] = TimeoutError(errno.ETIMEDOUT, "no acknowledgement")
    assert [repair.written for repair in bench.repair(MISMATCH).done] == [True]


def test_old_evidence_stops_a_long_repair() -> None:
    """When the reading grows old during a long repair, the rest is left."""
    bench = Bench()
    other = replace(ENTRY, address=b"\x0a\0\0\x0c")
    bench.kernel.neighbours[other.key] = other
    bench.pauses = [lambda: bench.clock.advance(31)]
    repairs = bench.repair(MISMATCH, replace(MISMATCH, neighbour=other))
    assert len(repairs.done) == 1
    assert repairs.refusal is not None
    assert repairs.refusal.guard == "stale"


def test_probe_lets_the_kernel_verify() -> None:
    """Policy probe sends one probe; the answer decides."""
    bench = Bench()
    assert bench.outcome(replace(MISMATCH, action=Action.PROBE)) is Outcome.HEALED
    assert bench.kernel.writes == [("probe", KEY)]


def test_a_probe_under_way_is_no_answer() -> None:
    """While the kernel probes it keeps the old MAC, which does not mean that it was answered."""
    bench = Bench()
    bench.answer = None
    bench.pauses = [lambda: None, bench.kernel.fail_unanswered]
    assert bench.outcome(replace(MISMATCH, action=Action.PROBE)) is Outcome.GONE


@pytest.mark.parametrize(
    ("answer", "writes"),
    [(RIGHT, ["delete", "resolve"]), (THIRD, ["delete", "resolve"])],
    ids=["right", "other"],
)
def test_replace_writes_nothing_where_the_wire_answers(answer: Mac, writes: list[str]) -> None:
    """Policy replace asks the wire first, and never writes over its answer."""
    bench = Bench()
    bench.answer = answer
    bench.repair(replace(MISMATCH, action=Action.REPLACE))
    assert [write[0] for write in bench.kernel.writes] == writes
    assert bench.kernel.neighbours[KEY].lladdr == answer


def test_replace_writes_the_owners_mac_into_silence() -> None:
    """Where the wire is silent, policy replace writes the owner's MAC as STALE."""
    bench = Bench()
    bench.answer = None
    assert bench.outcome(replace(MISMATCH, action=Action.REPLACE)) is Outcome.HEALED
    entry = bench.kernel.neighbours[KEY]
    assert (entry.lladdr, entry.state) == (RIGHT, Nud.STALE)
