"""The daemon in a world that breaks: it goes on, tells it once, and heals afterwards."""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faults.place import ASSEMBLY, SETTINGS, VICTIM, WRONG, Place
from test_passes import ENTRY, World

from reconciler.clock import boottime
from reconciler.core.memory import Memory
from reconciler.core.model import Outcome
from reconciler.kernel.read import NetlinkReader
from reconciler.loop import Loop
from reconciler.settings import LogSettings, Settings
from reconciler.testing.endpoint import Ec2Endpoint, Fault


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "reconciler")


def told(caplog: pytest.LogCaptureFixture, event: str) -> int:
    """Count an event in the log."""
    return [record.getMessage() for record in caplog.records].count(event)


def right(place: Place) -> str:
    """Return the MAC that the mismatch should have."""
    return place.lab.owner(VICTIM).mac.hex(":")


def test_ten_minutes_of_throttling(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes of throttling cost fewer than 60 calls; the first good reading heals."""
    # The waiting between attempts and passes is skipped, the calls are not.
    monkeypatch.setattr("reconciler.assembly.Authority", _unhurried)
    with place.daemon() as loop:
        place.lab.endpoint.faults.add(Fault("throttle", times=None))
        for _ in range(11):  # a pass a minute, jitter included
            loop.turn()
        calls = len(place.lab.endpoint.calls)
        assert 10 < calls < 60
        assert place.mac(VICTIM) == WRONG.hex(":")
        place.lab.endpoint.faults.clear()
        began = time.monotonic()
        loop.turn()
        assert time.monotonic() - began < 5
    assert place.mac(VICTIM) == right(place)


def _unhurried(ec2: object, **_: object) -> object:
    from reconciler.aws.authority import Authority

    return Authority(ec2, sleep=lambda _: None)  # type: ignore[arg-type]  # The assembly's own client.


def metadata_fails(status: int, place: Place) -> Callable[[], None]:
    """Let metadata answer with a status; the API says who this host is."""
    place.lab.metadata.status = status
    return lambda: setattr(place.lab.metadata, "status", None)


def metadata_slow(place: Place) -> Callable[[], None]:
    """Let metadata take longer than anybody waits."""
    place.lab.metadata.latency = 3.0
    return lambda: setattr(place.lab.metadata, "latency", 0.0)


@pytest.mark.parametrize(
    "break_it",
    [*(partial(metadata_fails, status) for status in (401, 404, 503)), metadata_slow],
    ids=["401", "404", "503", "slow"],
)
def test_metadata_is_not_needed(
    place: Place, break_it: Callable[[Place], Callable[[], None]]
) -> None:
    """Without metadata the daemon asks the API who it is, and heals all the same."""
    break_it(place)
    began = time.monotonic()
    with place.daemon() as loop:
        loop.turn()
    assert time.monotonic() - began < 12
    assert place.mac(VICTIM) == right(place)


def test_dns_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without name service nothing happens; once it is back the next turn heals."""

    def nobody_knows(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with place.daemon() as loop:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", nobody_knows)
            loop.turn()
        assert place.mac(VICTIM) == WRONG.hex(":")
        assert told(caplog, "pass.failed") == 1
        loop.turn()
    assert place.mac(VICTIM) == right(place)


def test_the_daemon_cures_its_own_blindness(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where EC2's endpoint is a neighbour with a wrong entry, the kernel verifies it."""
    lab, address = place.lab, "10.0.0.13"
    client = lab.owner(address)
    with lab.client(client.eni_id).entered():
        listener = socket.create_server((address, 0))
    with Ec2Endpoint(lab.wire, listener=listener) as ec2:
        monkeypatch.setenv("AWS_ENDPOINT_URL", ec2.url)
        lab.set_neighbour(address, WRONG, nud="reachable")
        with place.daemon() as loop:
            loop.turn()
            assert told(caplog, "endpoint.verified") == 1
            assert place.mac(VICTIM) == WRONG.hex(":")
            deadline = time.monotonic() + 8
            while place.mac(address) != client.mac.hex(":"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            loop.turn()
    assert place.mac(VICTIM) == right(place)
    assert told(caplog, "pass.recovered") == 1


def test_a_flapping_link(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A link that goes down and up loses its neighbours, and the daemon nothing."""
    with place.daemon() as loop:
        place.lab.broker.batch("ip", ["link set eth0 down"])
        loop.turn()
        place.lab.broker.batch("ip", ["link set eth0 up"])
        loop.turn()
        place.lab.set_neighbour(VICTIM, WRONG)
        loop.turn()
    assert place.mac(VICTIM) == right(place)
    assert told(caplog, "pass.bug") == 0


def test_a_changed_mac(caplog: pytest.LogCaptureFixture) -> None:
    """A link whose MAC is no ENI's any more is not managed; with its own again it is a new one."""
    world = World(memory=Memory())
    lo, eth0 = world.kernel.links
    loop = Loop(lambda: world.settings, lambda _: world.one, wait=lambda _: None)
    loop.turn()
    world.kernel.neighbours[ENTRY.key] = ENTRY
    for mac, pause in ((b"\x02\0\0\0\x77\x77", 60), (eth0.mac, 61)):
        world.kernel.links = (lo, replace(eth0, mac=mac))
        loop.turn()
        assert world.kernel.writes == []
        world.clock.advance(pause)
    assert told(caplog, "pass.failed") == 1
    loop.turn()
    assert [write[0] for write in world.kernel.writes] == ["delete", "resolve"]


def test_hot_unplug_and_plug() -> None:
    """An ENI that is gone is no fault to die of; when it is back it gets a grace period."""
    world = World(memory=Memory())
    lo, eth0 = world.kernel.links
    loop = Loop(lambda: world.settings, lambda _: world.one, wait=lambda _: None)
    loop.turn()
    world.kernel.links = (lo,)
    loop.turn()
    world.kernel.links = (lo, eth0)
    world.kernel.neighbours[ENTRY.key] = ENTRY
    loop.turn()
    assert world.kernel.writes == []
    world.clock.advance(61)
    loop.turn()
    assert [write[0] for write in world.kernel.writes] == ["delete", "resolve"]


def test_the_netlink_handle_dies(place: Place) -> None:
    """A reader whose socket was closed under it fails once, and then reads again."""
    with place.lab.broker.entered():
        reader = NetlinkReader(boottime)
        before = reader.table().neighbours
        sock = reader._netlink._socket
        assert sock is not None
        os.close(sock.detach())
        with pytest.raises(Exception, match="kernel"):
            reader.table()
        assert len(reader.table().neighbours) == len(before)
        reader.close()


def test_a_missing_capability_is_told_and_survived(place: Place) -> None:
    """Without CAP_NET_ADMIN the daemon says so at level error, once, and changes nothing."""
    before = place.macs()
    drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    argv = [*drop, sys.executable, "-m", "reconciler", "run", "--interval", "5s"]
    daemon = place.lab.popen(argv, stderr=-1)
    time.sleep(2.5)
    daemon.terminate()
    _, log = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert log.count('"level": "error"') == 1
    assert "CAP_NET_ADMIN" in log
    assert place.macs() == before


def test_a_full_disk_under_the_journal(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A journal on a full disk loses lines, never a repair."""
    settings = Settings(authority=SETTINGS.authority, log=LogSettings(journal=Path("/dev/full")))
    with place.lab.broker.entered(), ASSEMBLY() as assembly:
        memory = Memory()
        loop = Loop(
            lambda: settings,
            lambda given: assembly.make_pass(given, dry_run=False, memory=memory),
            wait=lambda _: None,
        )
        loop.turn()
    assert place.mac(VICTIM) == right(place)
    assert told(caplog, "journal.lost") == 1


def test_thousands_appear_at_once() -> None:
    """Two thousand new entries are judged, and the one that is wrong is healed."""
    world = World(ENTRY, memory=Memory())
    crowd = [
        replace(ENTRY, address=bytes([10, 1, n // 250, n % 250]), lladdr=b"\x02\0\0\0\1\1")
        for n in range(2000)
    ]
    world.kernel.neighbours |= {entry.key: entry for entry in crowd}
    assert [r.outcome for r in world.one.repair(world.one.look()).done] == [Outcome.HEALED]
    assert len(world.kernel.neighbours) == 2001


def test_waking_from_suspend_acts_on_nothing_old() -> None:
    """After a suspend between the reading and the repair nothing is changed on it."""
    world = World(ENTRY, memory=Memory())
    look = world.one.look()
    world.clock.advance(3600)
    repairs = world.one.repair(look)
    assert repairs.refusal is not None
    assert (repairs.refusal.guard, world.kernel.writes) == ("stale", [])
    assert [r.outcome for r in world.one.repair(world.one.look()).done] == [Outcome.HEALED]


def test_the_wall_clock_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that steps either way moves no decision."""
    for step in (-1e6, 1e6):
        now = time.time() + step
        monkeypatch.setattr(time, "time", lambda now=now: now)
        world = World(ENTRY, memory=Memory())
        assert [r.outcome for r in world.one.repair(world.one.look()).done] == [Outcome.HEALED]
