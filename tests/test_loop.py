"""The daemon's loop on fakes: it heals, tells each failure once, and never ends on one."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_passes import ENTRY, ORPHAN, World

from reconciler.core.memory import Memory
from reconciler.errors import (
    AuthorityError,
    CapabilityError,
    ConfigError,
    KernelError,
    ReconcilerError,
)
from reconciler.loop import Loop
from reconciler.settings import AuthoritySettings, LogSettings, Settings

TOLD = ("pass.failed", "pass.bug", "pass.failed_again", "pass.recovered")
MANY = [replace(ENTRY, address=bytes([10, 0, 0, n])) for n in range(33, 45)]  # of one prefix


class Turning:
    """A loop over a fake world that waits in no time and stops after some turns."""

    def __init__(
        self,
        world: World,
        turns: int = 1,
        chance: Callable[[float, float], float] = max,
    ) -> None:
        self.world = world
        self.left = turns
        self.waits: list[float] = []
        self.given: list[Settings | Exception] = []
        self.loop = Loop(self.load, lambda _: world.one, wait=self.wait, chance=chance)

    def load(self) -> Settings:
        """Give the next settings, or fail."""
        given = self.given.pop(0) if self.given else self.world.settings
        if isinstance(given, Exception):
            raise given
        return given

    def wait(self, seconds: float) -> None:
        """Let the time pass, and stop after the last turn."""
        self.waits.append(seconds)
        self.world.clock.advance(seconds)
        self.left -= 1
        if self.left == 0:
            self.loop.stop()


def records(caplog: pytest.LogCaptureFixture, *names: str) -> list[logging.LogRecord]:
    """Return the records of these events."""
    return [record for record in caplog.records if record.getMessage() in names]


def events(caplog: pytest.LogCaptureFixture, *names: str) -> list[str]:
    """Return the event names that were logged, of those asked for."""
    return [record.getMessage() for record in records(caplog, *names)]


def found(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Return address, MAC and rule of every entry that was told."""
    told = map(vars, records(caplog, "entry.found"))
    return [(fields["address"], fields["mac"], fields["rule"]) for fields in told]


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_it_heals_and_waits() -> None:
    """A turn heals before the first wait."""
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.loop.run()
    assert [write[0] for write in turning.world.kernel.writes] == ["delete", "resolve"]
    assert len(turning.waits) == 1


@pytest.mark.parametrize(("chance", "seconds"), [(min, 54.0), (max, 66.0)])
def test_the_wait_is_the_interval_give_or_take_the_jitter(
    chance: Callable[[float, float], float], seconds: float
) -> None:
    """Chance moves the interval of 60 s by at most a tenth, either way."""
    turning = Turning(World(memory=Memory()), chance=chance)
    turning.loop.run()
    assert turning.waits == [seconds]


def test_stop_ends_after_the_pass_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """SIGTERM in the middle of a pass lets it repair, and nothing is waited for."""
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.world.source.between = turning.loop.stop
    turning.loop.run()
    assert [write[0] for write in turning.world.kernel.writes] == ["delete", "resolve"]
    assert turning.waits == []
    assert events(caplog, "daemon.started", "daemon.stopped") == [
        "daemon.started",
        "daemon.stopped",
    ]


def test_a_loop_that_was_stopped_before_makes_no_pass() -> None:
    """SIGTERM before the first pass ends the daemon without one."""
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.loop.stop()
    turning.loop.run()
    assert turning.world.source.readings == 0


def test_a_failure_is_told_once_then_counted_then_over(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure is logged in full, the rest counted, and the recovery told."""
    turning = Turning(World(ENTRY, memory=Memory()), turns=5)
    turning.world.source.fail_next = [AuthorityError("throttled")] * 3
    turning.loop.run()
    assert events(caplog, *TOLD) == [
        *("pass.failed", "pass.failed_again", "pass.failed_again", "pass.recovered")
    ]
    first, *_, last = map(vars, records(caplog, *TOLD))
    assert (first["levelname"], first["code"], first["why"]) == (
        *("WARNING", "authority", "throttled"),
    )
    assert (last["levelname"], last["failures"]) == ("INFO", 3)
    assert turning.world.kernel.writes != []


def test_another_failure_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """A failure of another kind is news, and the recovery counts both."""
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.world.source.fail_next = [AuthorityError("throttled")]
    turning.loop.turn()
    turning.world.kernel.fail_next["table"] = KernelError("no answer")
    turning.loop.turn()
    turning.loop.turn()
    assert events(caplog, *TOLD) == ["pass.failed", "pass.failed", "pass.recovered"]
    assert vars(records(caplog, *TOLD)[-1])["failures"] == 2


def test_a_recovered_failure_is_news_again(caplog: pytest.LogCaptureFixture) -> None:
    """What fails again after it worked is told in full again."""
    turning = Turning(World(memory=Memory()))
    for _ in range(2):
        turning.world.source.fail_next = [AuthorityError("throttled")]
        turning.loop.turn()
        turning.loop.turn()
    assert events(caplog, *TOLD) == ["pass.failed", "pass.recovered"] * 2


def test_a_bug_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw is told once with its traceback, and the loop goes on."""
    turning = Turning(World(ENTRY, memory=Memory()))
    for _ in range(3):
        turning.world.kernel.fail_next["table"] = ZeroDivisionError("a bug")
        turning.loop.turn()
    turning.loop.turn()
    assert events(caplog, *TOLD) == [
        *("pass.bug", "pass.failed_again", "pass.failed_again", "pass.recovered")
    ]
    (bug,) = records(caplog, "pass.bug")
    assert (bug.levelname, bug.exc_info and bug.exc_info[0]) == ("ERROR", ZeroDivisionError)
    assert turning.world.kernel.writes != []


def test_a_missing_capability_is_an_error_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without CAP_NET_ADMIN the daemon goes on, says so once at level error, and heals nothing."""
    turning = Turning(World(ENTRY, memory=Memory()), turns=3)
    turning.world.kernel.may_write = False
    turning.loop.run()
    assert events(caplog, *TOLD) == ["pass.failed", "pass.failed_again", "pass.failed_again"]
    first = vars(records(caplog, "pass.failed")[0])
    assert (first["levelname"], first["code"]) == ("ERROR", CapabilityError.code)
    assert turning.world.kernel.writes == []


def test_a_refusal_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A guard's refusal is told with its message, then counted, and its end is told, too."""
    turning = Turning(World(*MANY, memory=Memory()))
    for _ in range(3):
        turning.loop.turn()
    assert turning.world.kernel.writes == []
    turning.world.kernel.neighbours.clear()
    turning.world.clock.advance(61)
    turning.loop.turn()
    assert events(caplog, *TOLD) == [
        *("pass.failed", "pass.failed_again", "pass.failed_again", "pass.recovered")
    ]
    (first,) = map(vars, records(caplog, "pass.failed"))
    assert first["code"] == "refused"
    assert "guard.max_change_ratio" in first["why"]


def test_another_guard_is_told_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal by another guard is news."""
    hold = tmp_path / "hold"
    hold.touch()
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.world.one._writer._hold_file = hold
    turning.loop.turn()
    hold.unlink()
    turning.world.kernel.neighbours = {entry.key: entry for entry in MANY}
    turning.loop.turn()
    hold_message, ratio_message = (vars(r)["why"] for r in records(caplog, "pass.failed"))
    assert "guard.hold_file" in hold_message
    assert "guard.max_change_ratio" in ratio_message


def test_what_is_found_while_a_guard_refuses_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the cure of one entry is refused, EC2 is read as ever and the next one is told."""
    hold = tmp_path / "hold"
    hold.touch()
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.world.one._writer._hold_file = hold
    turning.loop.turn()
    turning.world.kernel.neighbours[ORPHAN.key] = ORPHAN
    turning.loop.turn()
    assert [address for address, _, _ in found(caplog)] == ["10.0.0.11", "10.0.0.50"]
    assert turning.world.source.readings == 2
    hold.unlink()
    turning.loop.turn()
    assert [write[0] for write in turning.world.kernel.writes] == ["delete", "resolve"]


def test_reload_takes_new_settings(caplog: pytest.LogCaptureFixture) -> None:
    """SIGHUP makes the next turn run under the new settings."""
    turning = Turning(World(memory=Memory()))
    turning.given = [Settings(authority=AuthoritySettings(interval=10.0))]
    turning.loop.reload()
    turning.loop.run()
    assert turning.waits == [11.0]
    assert events(caplog, "settings.reloaded", "settings.kept") == ["settings.reloaded"]


@pytest.mark.parametrize("error", [ConfigError("mode is bad"), ReconcilerError("mode is bad")])
def test_a_bad_reload_keeps_the_old_settings(
    error: ReconcilerError, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGHUP with a bad file says what is bad, once, and goes on as before."""
    turning = Turning(World(memory=Memory()), turns=2)
    turning.given = [error]
    turning.loop.reload()
    turning.loop.run()
    assert turning.waits == [66.0, 66.0]
    (kept,) = records(caplog, "settings.reloaded", "settings.kept")
    assert (kept.getMessage(), kept.levelname) == ("settings.kept", "ERROR")
    assert vars(kept)["why"] == "mode is bad"


def test_a_reload_forgets_no_lost_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The journal's count of lost lines outlives a reload that leaves its file as it was."""
    path = tmp_path / "folder" / "journal"
    world = World(ENTRY, memory=Memory(), settings=Settings(log=LogSettings(journal=path)))
    turning = Turning(world)
    turning.loop.turn()
    path.parent.mkdir()
    turning.loop.reload()
    world.kernel.neighbours[MANY[0].key] = MANY[0]
    turning.loop.run()
    assert len(path.read_text().splitlines()) == 1
    (recovered,) = records(caplog, "journal.recovered")
    assert vars(recovered)["lines_lost"] == 1


def test_an_entry_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """What stays wrong is logged when it is found and when another rule applies, not every pass."""
    world = World(ENTRY, memory=Memory())
    world.kernel.wire = lambda _: ENTRY.lladdr
    Turning(world, turns=3).loop.run()
    mac = "02:00:00:00:00:99"
    assert found(caplog) == [
        ("10.0.0.11", mac, "owner-has-other-mac"),
        ("10.0.0.11", mac, "contested"),
    ]


def test_another_mac_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """An entry that turns wrong in a new way is news; so is one that was right in between."""
    world = World(memory=Memory())
    world.kernel.may_write = False
    turning = Turning(world)
    for lladdr in (b"\2\0\0\0\0\x98", b"\2\0\0\0\0\x98", b"\2\0\0\0\0\x99", None):
        world.kernel.neighbours[ENTRY.key] = replace(ENTRY, lladdr=lladdr)
        # No suspicion from before: every turn reads both sides whole.
        world.clock.advance(301)
        turning.loop.turn()
    world.kernel.neighbours[ENTRY.key] = ENTRY
    world.clock.advance(301)
    turning.loop.turn()
    assert [mac for _, mac, _ in found(caplog)] == [
        "02:00:00:00:00:98",
        "02:00:00:00:00:99",
        "02:00:00:00:00:99",
    ]


def test_observe_tells_and_leaves_no_line_in_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In observe a wrong entry is told once, and no pass claims to have repaired it."""
    path = tmp_path / "journal"
    world = World(ENTRY, memory=Memory(), settings=Settings(log=LogSettings(journal=path)))
    world.one._writer._observe = True
    Turning(world, turns=4).loop.run()
    assert len(found(caplog)) == 1
    assert events(caplog, "repair", *TOLD) == []
    assert not path.exists()


def test_a_blind_daemon_lets_the_kernel_verify_the_endpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While EC2 cannot be read, its endpoint's own entry is probed and nothing is written."""
    world = World(ENTRY, memory=Memory())
    world.source.endpoint = frozenset({ENTRY.address})
    turning = Turning(world)
    world.source.fail_next = [AuthorityError("unreachable")]
    turning.loop.turn()
    assert world.kernel.writes == [("probe", ENTRY.key)]
    assert events(caplog, "endpoint.verified") == ["endpoint.verified"]


def test_a_blind_daemon_probes_nothing_where_a_probe_deletes() -> None:
    """On a link whose ucast_solicit is 0 even the endpoint's entry is left alone."""
    world = World(ENTRY, memory=Memory())
    world.kernel.probes = 0
    world.source.endpoint = frozenset({ENTRY.address})
    turning = Turning(world)
    world.source.fail_next = [AuthorityError("unreachable")]
    turning.loop.turn()
    assert world.kernel.writes == []


def test_a_blind_daemon_outlives_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the search for the endpoint's entry does not end the loop either."""
    world = World(ENTRY, memory=Memory())
    world.source.endpoint = frozenset({ENTRY.address})
    world.kernel.fail_next["ucast_solicit"] = ZeroDivisionError("a bug")
    world.source.fail_next = [AuthorityError("unreachable")]
    Turning(world).loop.turn()
    assert events(caplog, *TOLD, "endpoint.not_verified") == [
        "pass.failed",
        "endpoint.not_verified",
    ]
