"""The daemon's loop on fakes: it heals, tells each failure once, and never ends on one."""

import logging

import pytest
from test_passes import ENTRY, World

from reconciler.core.memory import Memory
from reconciler.errors import AuthorityError, ConfigError, KernelError
from reconciler.loop import Loop
from reconciler.settings import AuthoritySettings, Settings


class Turning:
    """A loop over a fake world that waits in no time and stops after some turns."""

    def __init__(self, world: World, turns: int = 1) -> None:
        self.world = world
        self.left = turns
        self.waits: list[float] = []
        self.given: list[Settings | Exception] = []
        self.loop = Loop(self.load, lambda _: world.one, wait=self.wait, chance=max)

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


def events(caplog: pytest.LogCaptureFixture, *names: str) -> list[str]:
    """Return the event names that were logged, of those asked for."""
    return [r.getMessage() for r in caplog.records if r.getMessage() in names]


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_it_heals_and_waits_an_interval_with_jitter() -> None:
    """A turn heals; the wait is the interval plus the jitter that chance gives."""
    turning = Turning(World(ENTRY, memory=Memory()))
    turning.loop.run()
    assert [write[0] for write in turning.world.kernel.writes] == ["delete", "resolve"]
    assert turning.waits == [66.0]


def test_a_failure_is_told_once_then_counted_then_over(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure is logged in full, the rest counted, and the recovery told."""
    turning = Turning(World(ENTRY, memory=Memory()), turns=4)
    turning.world.source.fail_next = [AuthorityError("throttled")] * 3
    turning.loop.run()
    told = events(caplog, "pass.failed", "pass.failed_again", "pass.recovered")
    assert told == ["pass.failed", "pass.failed_again", "pass.failed_again", "pass.recovered"]
    assert turning.world.kernel.writes != []


def test_another_failure_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """A failure of another kind is news."""
    turning = Turning(World(ENTRY, memory=Memory()), turns=2)
    turning.world.source.fail_next = [AuthorityError("throttled")]
    turning.loop.turn()
    turning.world.kernel.fail_next["table"] = KernelError("no answer")
    turning.loop.turn()
    assert events(caplog, "pass.failed") == ["pass.failed"] * 2


def test_a_bug_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw is logged, and the next turn heals."""
    turning = Turning(World(ENTRY, memory=Memory()), turns=2)
    turning.world.kernel.fail_next["table"] = ZeroDivisionError("a bug")
    turning.loop.run()
    assert events(caplog, "pass.bug") == ["pass.bug"]
    assert turning.world.kernel.writes != []


def test_reload_takes_new_settings(caplog: pytest.LogCaptureFixture) -> None:
    """SIGHUP takes new settings before the next turn."""
    turning = Turning(World(memory=Memory()))
    turning.given = [Settings(authority=AuthoritySettings(interval=10.0))]
    turning.loop.reload()
    turning.loop.run()
    assert turning.waits == [11.0]
    assert events(caplog, "settings.reloaded") == ["settings.reloaded"]


def test_a_bad_reload_keeps_the_old_settings(caplog: pytest.LogCaptureFixture) -> None:
    """Bad settings are told, and the old ones stay in force."""
    turning = Turning(World(memory=Memory()))
    turning.given = [ConfigError("bad")]
    turning.loop.reload()
    turning.loop.run()
    assert turning.waits == [66.0]
    assert events(caplog, "settings.kept") == ["settings.kept"]


def test_an_entry_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """What stays wrong is logged when it is found, not in every pass."""
    world = World(ENTRY, memory=Memory())
    world.kernel.wire = lambda _: ENTRY.lladdr
    turning = Turning(world, turns=3)
    turning.loop.run()
    assert len(events(caplog, "entry.found")) == 2  # as a mismatch, and then as contested


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
