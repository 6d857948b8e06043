"""The promises of the contract that need a crowd or two VPCs, on the real kernel."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from faults.place import SETTINGS, WRONG, Place, adopt
from test_passes import ENTRY, ORPHAN, World

from reconciler import commands
from reconciler.core.memory import Memory
from reconciler.core.model import Outcome
from reconciler.settings import GuardSettings, PolicySettings, Settings
from reconciler.testing.example import HOST, example
from reconciler.testing.lab import Lab
from reconciler.testing.vpc import Vpc, eni, subnet

RIGHT = [f"10.0.0.{n}" for n in range(60, 80)]
CROWD = [f"10.0.0.{n}" for n in range(100, 180)]


def crowd() -> Vpc:
    """Describe a subnet in which one load balancer holds a hundred addresses."""
    vpc = example()
    balancer = vpc.enis[5]
    more = eni(7, [*RIGHT, *CROWD], subnet=vpc.subnets[0], description="a hundred addresses")
    return Vpc(vpc.subnets, (*vpc.enis[:5], replace(balancer), more))


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Build a broker with twenty right entries, and the endpoint that knows a hundred."""
    with Lab(crowd(), host=HOST, clients=()) as lab:
        adopt(lab, monkeypatch)
        mac = lab.owner(RIGHT[0]).mac
        lab.broker.batch(
            "ip",
            [f"neigh replace {a} lladdr {mac.hex(':')} nud reachable dev eth0" for a in RIGHT],
        )
        yield Place(lab)


def addle(place: Place, addresses: list[str]) -> None:
    """Plant wrong entries."""
    place.lab.broker.batch(
        "ip",
        [f"neigh replace {a} lladdr {WRONG.hex(':')} nud reachable dev eth0" for a in addresses],
    )


@contextmanager
def always_there(place: Place, addresses: list[str]) -> Iterator[None]:
    """Sample the table all the time: these addresses may not be missing once."""
    missing: list[str] = []
    samples: list[int] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.is_set():
            macs = place.macs()
            missing.extend(a for a in addresses if not macs.get(a))
            samples.append(len(macs))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert missing == []
    assert len(samples) > 3


def test_eighty_of_a_hundred_at_once(crowded: Place) -> None:
    """Eighty wrong of a hundred are refused by plan, apply and run, and the message says how on."""
    addle(crowded, CROWD)
    before = crowded.macs()
    for command in (crowded.plan, crowded.apply):
        code, told = command()
        assert (code, told["refusal"]["guard"]) == (3, "ratio")
        assert "guard.max_change_ratio" in told["refusal"]["message"]
        assert "apply --force" in told["refusal"]["message"]
    with crowded.daemon() as loop:
        loop.turn()
    assert crowded.macs() == before


def test_force_repairs_the_eighty_and_the_twenty_never_disappear(crowded: Place) -> None:
    """With --force all eighty are repaired, and no right entry is ever missing."""
    addle(crowded, CROWD)
    right = crowded.lab.owner(CROWD[0]).mac.hex(":")
    with (
        always_there(crowded, RIGHT),
        crowded.lab.broker.entered(),
        commands.Interrupts() as interrupts,
    ):
        result = commands.apply(SETTINGS, dry_run=False, force=True, interrupts=interrupts)
    assert result.exit_code == 0
    assert {repair.outcome for repair in result.repairs.values()} == {Outcome.HEALED}
    assert len(result.repairs) == 80
    assert {mac for address, mac in crowded.macs().items() if address in CROWD} == {right}


def test_eighty_that_come_one_by_one_are_refused_like_eighty(crowded: Place) -> None:
    """Wrong entries that turn up one after another weigh together within one interval."""
    with crowded.daemon() as loop:
        loop.turn()
        for address in CROWD[:40]:
            addle(crowded, [address])
            loop.turn()
    macs = crowded.macs()
    left = [address for address in CROWD[:40] if macs.get(address) == WRONG.hex(":")]
    # Half of what the table judges may change in a window; then the guard holds.
    assert len(left) >= 5


def test_the_same_range_in_two_vpcs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ENIs in two VPCs with one range: neither's entries are judged by the other's ENIs."""
    here = subnet(1, ("10.0.0.0/24",), vpc=1)
    there = subnet(2, ("10.0.0.0/24",), vpc=2)
    ours = [
        eni(1, ("10.0.0.10",), subnet=here, instance=HOST),
        eni(2, ("10.0.0.20",), subnet=there, instance=HOST),
    ]
    peers = [eni(3, ("10.0.0.30",), subnet=here), eni(4, ("10.0.0.30",), subnet=there)]
    with Lab(Vpc((here, there), (*ours, *peers)), host=HOST, clients=()) as lab:
        adopt(lab, monkeypatch)
        place = Place(lab)
        lab.set_neighbour("10.0.0.30", peers[0].mac, link="eth0")
        lab.set_neighbour("10.0.0.30", peers[1].mac, link="eth1")
        assert place.plan()[0] == 0
        lab.set_neighbour("10.0.0.30", peers[0].mac, link="eth1")
        code, told = place.apply()
        (finding,) = told["findings"]
        assert (code, finding["link"], finding["outcome"]) == (0, "eth1", "healed")
        assert finding["expected_mac"] == peers[1].mac.hex(":")
        assert (lab.neighbour("10.0.0.30", "eth0") or {})["lladdr"] == peers[0].mac.hex(":")


def test_honest_scale_in_is_paced_and_holds_up_no_cure() -> None:
    """Hundreds of long-dead orphans are worked off at a pace, behind the one mismatch."""
    dead = [
        replace(ORPHAN, address=bytes([10, 0, 0, n]), lladdr=bytes([2, 9, 0, 0, 0, n]))
        for n in range(60, 250)
    ]
    settings = Settings(guard=GuardSettings(max_changes=20))
    right = [
        replace(ENTRY, address=eni.addresses[0], lladdr=eni.mac) for eni in example().enis[2:5]
    ]
    world = World(*dead, *right, ENTRY, settings=settings, memory=Memory())
    healed = world.one.repair(world.one.look()).done
    assert [repair.outcome for repair in healed] == [Outcome.HEALED]
    world.clock.advance(130)
    passes = 0
    while removed := world.one.repair(world.one.look()).done:
        assert len(removed) <= 20
        passes += 1
        world.clock.advance(60)
    assert passes == 10
    assert len(world.kernel.neighbours) == 4


def test_a_minute_of_lag_is_no_quarrel() -> None:
    """While EC2 lags for a minute, the wire is asked at most four times, and nothing is written."""
    for policy in (PolicySettings(), PolicySettings(on_mismatch="replace")):
        settings = Settings(policy=policy)
        world = World(ENTRY, settings=settings, memory=Memory())
        world.kernel.wire = lambda _: ENTRY.lladdr
        for _ in range(60):
            look = world.one.glance()
            if look is not None:
                world.one.repair(look)
            world.one.repair(world.one.look())
            world.clock.advance(1)
        sent = [write[0] for write in world.kernel.writes]
        assert sent.count("resolve") <= 4
        assert "replace" not in sent
        assert world.kernel.neighbours[ENTRY.key].lladdr == ENTRY.lladdr
