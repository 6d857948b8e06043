"""The one class that changes the kernel: what it refuses, and what it leaves alone."""

import errno
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.model import Evidence, Key, Neighbour, Ntf, Nud, pack_address, pack_mac
from reconciler.errors import CapabilityError, HoldRefused, KernelError, StaleRefused
from reconciler.kernel.write import CONFIRMATION_MAX_AGE, Writer, Written
from reconciler.testing.kernel import FakeKernel

WRONG, RIGHT = pack_mac("02:00:00:00:00:66"), pack_mac("02:00:00:00:00:01")
KEY = Key(3, pack_address("10.0.0.9"))
JUDGED = Neighbour(*KEY, WRONG, Nud.REACHABLE)
FAILED = replace(JUDGED, lladdr=None, state=Nud.FAILED)
NOW = 1000.0
FRESH = Evidence(seen_at=990.0, reading_began=991.0, reading_ended=992.0)

Change = Callable[[Writer], Written]
CHANGES: dict[str, Change] = {
    "delete": lambda writer: writer.delete(JUDGED, FRESH),
    "probe": lambda writer: writer.probe(JUDGED, FRESH),
    "resolve": lambda writer: writer.resolve(KEY, FRESH),
    "replace": lambda writer: writer.replace(KEY, RIGHT, FRESH),
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
to_an_entry = pytest.mark.parametrize("name", ["delete", "probe"])


def make_writer(
    kernel: FakeKernel, *, observe: bool = False, hold_file: Path | None = None, now: float = NOW
) -> Writer:
    """Make a writer whose clock stands still."""
    return Writer(kernel, kernel, observe=observe, hold_file=hold_file, clock=lambda: now)


# ------------------------------------------------------------------ refusals


@every_change
def test_the_hold_file_stops_every_change(change: Change, tmp_path: Path) -> None:
    """While it exists nothing is sent, and the message says what to remove."""
    hold = tmp_path / "hold"
    hold.touch()
    kernel = FakeKernel([JUDGED])
    with pytest.raises(HoldRefused, match=r"hold exists.*nothing is changed.*guard\.hold_file"):
        change(make_writer(kernel, hold_file=hold))
    assert [] == kernel.writes


def test_a_hold_that_cannot_be_checked_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to know whether one may is to know that one may not."""

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", refuse)
    with pytest.raises(HoldRefused, match=r"cannot be checked \(Permission denied\)"):
        make_writer(FakeKernel(), hold_file=tmp_path / "hold").check(FRESH)


def test_a_hold_that_points_nowhere_holds(tmp_path: Path) -> None:
    """Somebody put the symbolic link there."""
    (tmp_path / "hold").symlink_to(tmp_path / "gone")
    with pytest.raises(HoldRefused):
        make_writer(FakeKernel(), hold_file=tmp_path / "hold").check(FRESH)


def test_no_hold_file_holds_nothing(tmp_path: Path) -> None:
    """An absent file, an absent folder and a file in the folder's place are no hold."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "hold", tmp_path / "no" / "hold", tmp_path / "file" / "hold", None):
        make_writer(FakeKernel(), hold_file=path).check(FRESH)


STALE = {
    "began before": Evidence(990.0, 989.0, 992.0),
    "began as it was seen": Evidence(990.0, 990.0, 992.0),
    "ended before it began": Evidence(990.0, 995.0, 992.0),
    "ended in the future": Evidence(990.0, 991.0, NOW + 0.001),
    "ended too long ago": Evidence(900.0, 901.0, NOW - CONFIRMATION_MAX_AGE - 0.001),
    "no time at all": Evidence(990.0, 991.0, math.nan),
    "never seen": Evidence(math.nan, 991.0, 992.0),
}


@every_change
@pytest.mark.parametrize("evidence", STALE.values(), ids=STALE)
def test_old_or_disordered_evidence_stops_every_change(
    change: Change, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading proves something only when begun after the suspicion and ended a moment ago."""
    monkeypatch.setitem(globals(), "FRESH", evidence)
    kernel = FakeKernel([JUDGED])
    with pytest.raises(StaleRefused, match=r"left as it is.*authority\.max_age"):
        change(make_writer(kernel))
    assert [] == kernel.writes


@pytest.mark.parametrize("age", [0.0, CONFIRMATION_MAX_AGE])
def test_evidence_of_the_bounds_is_good(age: float) -> None:
    """Up to thirty seconds, those included."""
    make_writer(FakeKernel()).check(Evidence(900.0, 901.0, NOW - age))


@every_change
@pytest.mark.parametrize("entries", [(), (JUDGED,)])
def test_observe_sends_nothing(change: Change, entries: tuple[Neighbour, ...]) -> None:
    """Whatever stands, nothing reaches the kernel."""
    kernel = FakeKernel(entries)
    assert Written.SKIPPED is change(make_writer(kernel, observe=True))
    assert [] == kernel.writes


@every_change
def test_observe_is_no_way_round_the_checks(change: Change, tmp_path: Path) -> None:
    """A dry run refuses what the real run would refuse."""
    (tmp_path / "hold").touch()
    with pytest.raises(HoldRefused):
        change(make_writer(FakeKernel(), observe=True, hold_file=tmp_path / "hold"))


def test_missing_permission_says_what_to_do() -> None:
    """The capability is asked of the kernel before the first change."""
    kernel = FakeKernel()
    make_writer(kernel).require_permission()
    kernel.may_write = False
    with pytest.raises(CapabilityError, match=r"CAP_NET_ADMIN is missing.*Run as root"):
        make_writer(kernel).require_permission()


def test_a_permission_that_cannot_be_asked_is_missing() -> None:
    """A socket that may not be opened is no permission."""
    kernel = FakeKernel()
    kernel.fail_next["permitted"] = OSError(97, "Address family not supported")
    with pytest.raises(CapabilityError, match="Address family not supported"):
        make_writer(kernel).require_permission()


# ---------------------------------------------------------- delete and probe


@to_an_entry
def test_the_judged_entry_is_changed(name: str) -> None:
    """An entry that stands as it was judged is acted upon, though its state moved on."""
    kernel = FakeKernel([replace(JUDGED, state=Nud.STALE, confirmed=7.0)])
    assert Written.DONE is CHANGES[name](make_writer(kernel))
    assert [(name, KEY)] == kernel.writes


@to_an_entry
@pytest.mark.parametrize(
    "now",
    [
        replace(JUDGED, lladdr=RIGHT),
        replace(JUDGED, protocol=186),
        replace(JUDGED, flags=Ntf.OFFLOADED),
    ],
)
def test_another_entry_is_left_alone(name: str, now: Neighbour) -> None:
    """A new MAC, protocol or flag means that somebody changed it since."""
    kernel = FakeKernel([JUDGED])
    kernel.before_next["neighbour"] = lambda: kernel.neighbours.update({KEY: now})
    assert Written.CHANGED is CHANGES[name](make_writer(kernel))
    assert ([], {KEY: now}) == (kernel.writes, kernel.neighbours)


@to_an_entry
@pytest.mark.parametrize("state", [Nud.INCOMPLETE, Nud.FAILED, Nud.NONE])
def test_an_unanswered_entry_is_left_alone(name: str, state: Nud) -> None:
    """Packets wait in it for the answer; there is nothing wrong left to remove."""
    kernel = FakeKernel([replace(JUDGED, lladdr=None, state=state)])
    assert Written.ABSENT is CHANGES[name](make_writer(kernel))
    assert [] == kernel.writes


@to_an_entry
def test_an_absent_entry_is_absent(name: str) -> None:
    """Nothing is sent for what somebody removed already."""
    kernel = FakeKernel()
    assert Written.ABSENT is CHANGES[name](make_writer(kernel))
    assert [] == kernel.writes


@to_an_entry
def test_an_entry_that_vanishes_at_the_last_moment_is_absent(name: str) -> None:
    """ENOENT from the kernel means that somebody cured it first."""
    kernel = FakeKernel([JUDGED])
    kernel.before_next[name] = kernel.neighbours.clear
    assert Written.ABSENT is CHANGES[name](make_writer(kernel))


FIXED = [
    replace(JUDGED, state=Nud.PERMANENT),
    replace(JUDGED, state=Nud.NOARP),
    *(
        replace(JUDGED, flags=flag)
        for flag in (
            *(Ntf.PROXY, Ntf.EXT_LEARNED, Ntf.ROUTER),
            *(Ntf.MANAGED, Ntf.LOCKED, Ntf.VALIDATED, 0x8000),
        )
    ),
]


@to_an_entry
@pytest.mark.parametrize("fixed", FIXED)
def test_a_protected_entry_is_never_written(name: str, fixed: Neighbour) -> None:
    """The kernel would not protect it, so this does, whatever the caller judged."""
    kernel = FakeKernel([fixed])
    writer = make_writer(kernel)
    change = writer.delete if name == "delete" else writer.probe
    assert Written.CHANGED is change(fixed, FRESH)
    assert [] == kernel.writes


@every_change
def test_another_refusal_by_the_kernel_reaches_the_caller(change: Change) -> None:
    """It is not for the writer to say what EPERM means for the pass."""
    kernel = FakeKernel([] if change in (CHANGES["resolve"], CHANGES["replace"]) else [JUDGED])
    kernel.may_write = False
    with pytest.raises(PermissionError):
        change(make_writer(kernel))


@pytest.mark.parametrize("name", ["delete", "probe", "replace"])
def test_an_entry_that_cannot_be_read_again_is_not_changed(name: str) -> None:
    """Without the second look there is no change."""
    kernel = FakeKernel([JUDGED])
    kernel.fail_next["neighbour"] = KernelError("no answer")
    with pytest.raises(KernelError):
        CHANGES[name](make_writer(kernel))
    assert [] == kernel.writes


# -------------------------------------------------------------------- verify


def test_verify_probes_without_evidence() -> None:
    """The one neighbour without which there is no reading is verified by the kernel."""
    kernel = FakeKernel([JUDGED])
    assert make_writer(kernel).verify(JUDGED)
    assert [("probe", KEY)] == kernel.writes


@pytest.mark.parametrize("now", [*FIXED, replace(JUDGED, lladdr=RIGHT), FAILED])
def test_verify_leaves_any_other_entry_alone(now: Neighbour) -> None:
    """It spares what delete and probe spare."""
    kernel = FakeKernel([now])
    assert not make_writer(kernel).verify(JUDGED)
    assert [] == kernel.writes


def test_verify_is_held_and_observed_like_every_change(tmp_path: Path) -> None:
    """Neither the hold file nor observe lets it through."""
    (tmp_path / "hold").touch()
    kernel = FakeKernel([JUDGED])
    with pytest.raises(HoldRefused):
        make_writer(kernel, hold_file=tmp_path / "hold").verify(JUDGED)
    assert not make_writer(kernel, observe=True).verify(JUDGED)
    assert [] == kernel.writes


# ------------------------------------------------------- resolve and replace


def test_an_absent_address_is_asked_for() -> None:
    """The wire's answer is what stands afterwards."""
    kernel = FakeKernel(wire=lambda _: RIGHT)
    assert Written.DONE is CHANGES["resolve"](make_writer(kernel))
    assert (RIGHT, Nud.REACHABLE) == (kernel.neighbours[KEY].lladdr, kernel.neighbours[KEY].state)


@pytest.mark.parametrize("standing", [JUDGED, *FIXED, replace(JUDGED, state=Nud.INCOMPLETE)])
def test_a_standing_entry_is_not_asked_for(standing: Neighbour) -> None:
    """EEXIST is as good as done, and the entry is untouched."""
    kernel = FakeKernel([standing], wire=lambda _: RIGHT)
    assert Written.DONE is CHANGES["resolve"](make_writer(kernel))
    assert ([("resolve", KEY)], {KEY: standing}) == (kernel.writes, kernel.neighbours)


def test_an_entry_that_stays_failed_is_asked_for_again() -> None:
    """A referenced entry survives its delete as FAILED; only then is there no O_EXCL."""
    kernel = FakeKernel([FAILED], wire=lambda _: RIGHT)
    assert Written.DONE is CHANGES["resolve"](make_writer(kernel))
    assert [("resolve", KEY), ("reask", KEY)] == kernel.writes
    assert RIGHT == kernel.neighbours[KEY].lladdr


def test_a_protected_failed_entry_is_not_asked_for_again() -> None:
    """What is managed by somebody else stays somebody else's."""
    kernel = FakeKernel([replace(FAILED, flags=Ntf.MANAGED)])
    assert Written.DONE is CHANGES["resolve"](make_writer(kernel))
    assert [("resolve", KEY)] == kernel.writes


def test_a_failed_entry_that_vanishes_is_absent() -> None:
    """Between the second look and the asking it may be collected."""
    kernel = FakeKernel([FAILED])
    kernel.before_next["reask"] = kernel.neighbours.clear
    assert Written.ABSENT is CHANGES["resolve"](make_writer(kernel))


@pytest.mark.parametrize("standing", [(), (FAILED,), (replace(FAILED, state=Nud.INCOMPLETE),)])
def test_the_owners_mac_is_written_where_the_wire_is_silent(
    standing: tuple[Neighbour, ...],
) -> None:
    """As STALE, so that the kernel verifies it when it is used."""
    kernel = FakeKernel(standing)
    assert Written.DONE is CHANGES["replace"](make_writer(kernel))
    assert {KEY: Neighbour(*KEY, RIGHT, Nud.STALE)} == kernel.neighbours


@pytest.mark.parametrize("standing", [JUDGED, *FIXED, replace(FAILED, flags=Ntf.MANAGED)])
def test_the_owners_mac_is_not_written_over_an_answer(standing: Neighbour) -> None:
    """An entry with a MAC, or of somebody else's, stays."""
    kernel = FakeKernel([standing])
    assert Written.CHANGED is CHANGES["replace"](make_writer(kernel))
    assert ([], {KEY: standing}) == (kernel.writes, kernel.neighbours)


def test_a_late_answer_wins_over_the_owners_mac() -> None:
    """What the wire says between the second look and the write stays."""
    kernel = FakeKernel([FAILED])
    kernel.before_next["replace"] = lambda: kernel.neighbours.update({KEY: JUDGED})
    CHANGES["replace"](make_writer(kernel))
    assert {KEY: JUDGED} == kernel.neighbours
