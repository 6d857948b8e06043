"""Every fault of EC2, times plan, apply and run: nothing on bad truth, convergence afterwards.

The kernel, the SDK and HTTP are real; the commands run in this process, in the
broker's namespace, and give up early.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from faults.place import RIGHT, SERVICE, VICTIM, Place

from reconciler.core.model import Verdict
from reconciler.testing.endpoint import Fault
from reconciler.testing.example import GONE_ADDRESS, POD_ADDRESS
from reconciler.testing.vpc import Vpc, eni, subnet

OTHER_ACCOUNT = "999988887777"


@dataclass(frozen=True)
class Case:
    """A fault: how it begins, and what may be repaired while it lasts.

    ``unreadable``: nothing at all, the commands say error. ``cures`` and
    ``removes`` say whether the mismatch may be healed and the orphan removed,
    where the reading can be believed in spite of the fault.
    """

    name: str
    begin: Callable[[Place], None]
    unreadable: bool = False
    cures: bool = False
    removes: bool = False


def fault(kind: str, **more: object) -> Callable[[Place], None]:
    """Begin a fault of the endpoint that lasts until it is cleared."""

    def begin(place: Place) -> None:
        place.lab.endpoint.faults.add(Fault(kind, times=None, **more))  # type: ignore[arg-type]  # A table of kinds.

    return begin


def second_page(kind: str) -> Callable[[Place], None]:
    """Begin a fault that shows on second pages alone."""
    return fault(kind, action="DescribeNetworkInterfaces", page=1)


def without_own_eni(place: Place) -> None:
    """Leave this host's ENI out of every answer."""
    own = place.lab.broker_eni(place.lab.wire.subnets[0].subnet_id)
    fault("lacking", ids=(own.eni_id,))(place)


def hidden_service(place: Place) -> None:
    """Hide the load balancer's ENI from those who do not ask for managed ones."""
    place.lab.endpoint.managed = frozenset({place.lab.owner(SERVICE).eni_id})


def shared_subnet(place: Place) -> None:
    """Let the subnet belong to another account."""
    vpc = place.lab.endpoint.vpc
    shared = tuple(replace(s, owner_id=OTHER_ACCOUNT) for s in vpc.subnets)
    place.lab.endpoint.vpc = replace(vpc, subnets=shared)


def denied_subnets(place: Place) -> None:
    """Deny DescribeSubnets."""
    place.lab.endpoint.denied.add("DescribeSubnets")


def other_vpc(place: Place) -> None:
    """Let another VPC have the same addresses, with other MACs."""
    vpc = place.lab.endpoint.vpc
    there = subnet(9, ("10.0.0.0/24",), vpc=9)
    twins = tuple(
        eni(100 + n, (address,), subnet=there)
        for n, address in enumerate((VICTIM, RIGHT, SERVICE, GONE_ADDRESS))
    )
    place.lab.endpoint.vpc = Vpc((*vpc.subnets, there), (*vpc.enis, *twins))


CASES = [
    *(
        Case(kind, fault(kind), unreadable=True)
        for kind in (
            *("throttle", "server_error", "bad_gateway", "expired", "expired_token"),
            *("hang", "cut", "truncated", "garbage", "empty"),
        )
    ),
    *(
        Case(f"{kind} on the second page", second_page(kind), unreadable=True)
        for kind in ("throttle", "server_error", "cut", "truncated")
    ),
    Case("wrong_token", fault("wrong_token"), unreadable=True),
    Case("own ENI missing", without_own_eni, unreadable=True),
    # A page is skipped for ever: only what is on another page can be cured, and
    # nothing that the skipped one lists may be taken for nobody's.
    Case("missing_page", fault("missing_page"), removes=True),
    Case("duplicate", fault("duplicate"), cures=True, removes=True),
    Case("hidden managed ENIs", hidden_service, cures=True, removes=True),
    Case("shared subnet", shared_subnet, cures=True),
    Case("denied DescribeSubnets", denied_subnets, cures=True),
    Case("other VPC, same addresses", other_vpc, cures=True, removes=True),
]
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def end(place: Place) -> None:
    """Let the world be well again."""
    endpoint = place.lab.endpoint
    endpoint.faults.clear()
    endpoint.denied.clear()
    endpoint.managed = frozenset()
    endpoint.vpc = place.lab.wire


def check(case: Case, before: dict[str, str], place: Place, events: list[str]) -> None:
    """See that nothing was changed but what the case allows, and that nothing right was touched."""
    after = place.macs()
    for address in (RIGHT, POD_ADDRESS, SERVICE):
        assert after[address] == before[address]
        assert not [line for line in events if line.startswith(f"Deleted {address} ")]
    if not case.cures:
        assert after[VICTIM] in {before[VICTIM], place.lab.owner(VICTIM).mac.hex(":")}
    if case.unreadable:
        assert after == before
    if not case.removes:
        assert after[GONE_ADDRESS] == before[GONE_ADDRESS]
    if case.cures:
        assert after[VICTIM] == place.lab.owner(VICTIM).mac.hex(":")


@every_case
def test_plan(place: Place, case: Case) -> None:
    """Plan changes nothing, and says error or what it sees, in one document."""
    before = place.macs()
    case.begin(place)
    code, told = place.plan()
    assert place.macs() == before
    assert (code, told["error"] is not None) == ((1, True) if case.unreadable else (2, False))
    verdicts = {f["address"]: f["verdict"] for f in told["findings"]}
    assert not {RIGHT, POD_ADDRESS, SERVICE} & {
        address
        for address, verdict in verdicts.items()
        if verdict in {Verdict.MISMATCH, Verdict.ORPHAN}
    }
    end(place)
    assert place.plan()[0] == 2


@every_case
def test_apply(place: Place, case: Case) -> None:
    """Apply changes nothing on bad truth, and heals everything once the fault is over."""
    before = place.macs()
    case.begin(place)
    with place.events() as events:
        code, told = place.apply()
    check(case, before, place, events)
    assert (code == 1, told["error"] is not None) == (case.unreadable, case.unreadable)
    end(place)
    assert place.apply()[0] == 0
    assert place.healed()


@every_case
def test_run(
    place: Place, case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon changes nothing on bad truth, tells a failure once, and heals afterwards."""
    caplog.set_level(logging.DEBUG, "reconciler")
    monkeypatch.setattr("reconciler.core.memory.ORPHAN_PATIENCE", 0.0)
    # What is known of a subnet is kept for an hour, which nobody waits for here.
    monkeypatch.setattr("reconciler.aws.subnets._KEPT", 0.0)
    before = place.macs()
    with place.daemon() as loop:
        case.begin(place)
        with place.events() as events:
            loop.turn()
            loop.turn()
        check(case, before, place, events)
        told = [record.getMessage() for record in caplog.records]
        assert told.count("pass.failed") == case.unreadable
        assert told.count("pass.failed_again") == case.unreadable
        end(place)
        loop.turn()
        loop.turn()
    assert place.healed()
    told = [record.getMessage() for record in caplog.records]
    assert told.count("pass.recovered") == case.unreadable
    assert "pass.bug" not in told


# ------------------------------------------------------- EC2 behind the wire


def moved(place: Place) -> tuple[str, str]:
    """Move an address on the wire and in the table, not in EC2; return the old and new MACs."""
    old = place.lab.owner("10.0.0.13")
    new = place.lab.wire.enis[1]
    place.lab.recycle("10.0.0.13", new.eni_id, announced=False)
    place.lab.set_neighbour("10.0.0.13", new.mac, nud="reachable")
    return old.mac.hex(":"), new.mac.hex(":")


def lagging(place: Place) -> None:
    """Leave EC2 at its old word."""


def alternating(place: Place) -> None:
    """Let one replica be old, and one new."""
    place.lab.endpoint.replicas = (place.lab.endpoint.vpc, place.lab.wire)


@pytest.mark.parametrize("behind", [lagging, alternating])
@pytest.mark.parametrize("command", ["plan", "apply", "run"])
def test_ec2_behind_the_wire(place: Place, behind: Callable[[Place], None], command: str) -> None:
    """While EC2 lags, or its replicas alternate, the old owner's MAC never appears."""
    old, new = moved(place)
    behind(place)
    asked = place.lab.requests("10.0.0.13")
    with place.events() as events:
        if command == "run":
            with place.daemon() as loop:
                for _ in range(6):
                    loop.turn()
        else:
            getattr(place, command)()
    assert not [line for line in events if line.startswith("10.0.0.13 ") and old in line]
    assert place.mac("10.0.0.13") == new
    assert place.lab.requests("10.0.0.13") - asked <= 4
    place.lab.endpoint.replicas = None
    end(place)
    code, told = place.apply()
    assert code == 0
    assert "10.0.0.13" not in {f["address"] for f in told["findings"]}
