"""The JSON of plan and apply, value by value."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from core.strategies import MACS, SUBNETS
from report.test_output import AT, OWNER, READING, result

from reconciler.core.model import (
    Action,
    ManagedLink,
    Neighbour,
    Nud,
    Outcome,
    Verdict,
    pack_address,
)
from reconciler.errors import CapabilityError, RatioRefused
from reconciler.report.document import document, rfc3339
from reconciler.report.result import Result


def test_values() -> None:
    """Each field holds what was read and decided, MACs in lower case with colons."""
    told = document(result())
    assert told["schema_version"] == 1
    assert (told["command"], told["mode"]) == ("plan", "enforce")
    assert told["authority"] == {
        "source": "ec2",
        "complete": True,
        "fetched_at": "2026-01-02T03:04:05Z",
        "enis": 1,
        "addresses": 3,
        "api_calls": 3,
    }
    assert told["links"] == [
        {
            "name": "eth0",
            "index": 2,
            "mac": "02:00:00:00:00:01",
            "eni_id": "eni-host-0",
            "subnet_id": "subnet-a",
            "vpc_id": "vpc-1",
            "cidrs": ["10.0.0.0/27", "fd00:1::/64"],
            "shared_subnet": False,
        }
    ]
    assert told["findings"][0] == {
        "address": "10.0.0.9",
        "link": "eth0",
        "mac": "02:00:00:00:01:05",
        "nud": "REACHABLE",
        "verdict": "mismatch",
        "rule": "owner-has-other-mac",
        "reason": "eni-0123456789abcdef0 owns the address and has 02:00:00:00:01:00; "
        "02:00:00:00:01:05 is no live ENI's.",
        "expected_mac": "02:00:00:00:01:00",
        "owner": {
            "eni_id": "eni-0123456789abcdef0",
            "instance_id": "i-0123456789abcdef0",
            "interface_type": "interface",
            "description": OWNER.description,
        },
        "mac_owner": None,
        "age": {"confirmed": 0.0, "used": 0.0, "updated": 0.0},
        "action": "delete",
        "outcome": None,
    }
    assert (told["refusal"], told["error"]) == (None, None)


def test_upper_case_hexadecimal_never_appears() -> None:
    """A MAC is told in lower case, whatever its digits."""
    shouting = replace(result().judgements[0].neighbour, lladdr=b"\xaa\xbb\xcc\xdd\xee\xff")
    judged = replace(result().judgements[0], neighbour=shouting)
    told = document(replace(result(), judgements=[judged]))
    assert told["findings"][0]["mac"] == "aa:bb:cc:dd:ee:ff"


def test_order_is_by_link_name_then_family_then_number() -> None:
    """eth0 comes before eth1 whatever their indices, and .9 before .10 before any IPv6."""
    (judged, *_) = result().judgements
    nine, ten, six = "192.0.2.9", "192.0.2.10", "2001:db8::1"
    given = [(3, six), (2, six), (3, ten), (2, nine), (3, nine)]
    judgements = [
        replace(judged, neighbour=Neighbour(index, pack_address(address), MACS[5], Nud.STALE))
        for index, address in given
    ]
    told = document(replace(result(), names={3: "eth0", 2: "eth1"}, judgements=judgements))
    assert [(f["link"], f["address"]) for f in told["findings"]] == [
        ("eth0", nine),
        ("eth0", ten),
        ("eth0", six),
        ("eth1", nine),
        ("eth1", six),
    ]


@pytest.mark.parametrize("verdict", Verdict)
def test_which_verdicts_are_findings(verdict: Verdict) -> None:
    """Findings are what is wrong, unlisted, unknown or waiting; with --all everything is."""
    given = replace(result(), judgements=[replace(result().judgements[0], verdict=verdict)])
    reported = verdict in {"mismatch", "orphan", "unlisted", "unknown", "pending"}
    assert len(document(given)["findings"]) == reported
    assert len(document(given, everything=True)["findings"]) == 1
    assert document(given)["counts"] == {kind.value: int(kind is verdict) for kind in Verdict}


def test_an_entry_without_mac_has_null() -> None:
    """An unresolved entry has no MAC, not an empty one."""
    bare = replace(result().judgements[0].neighbour, lladdr=None, state=Nud.FAILED)
    judged = replace(result().judgements[0], neighbour=bare, verdict=Verdict.UNRESOLVED)
    (found,) = document(replace(result(), judgements=[judged]), everything=True)["findings"]
    assert (found["mac"], found["nud"]) == (None, "FAILED")


@pytest.mark.parametrize("outcome", Outcome)
def test_findings_are_as_judged_before(outcome: Outcome) -> None:
    """A repair fills the outcome, and leaves verdict, MAC and action as they were judged."""
    before = document(result("apply"))["findings"]
    after = document(result("apply", outcome))["findings"]
    assert after == [{**found, "outcome": outcome.value} for found in before]


def test_an_entry_with_no_action_has_no_outcome() -> None:
    """What waits is none's doing: action none, outcome null."""
    judged = replace(result().judgements[0], verdict=Verdict.PENDING, action=Action.NONE)
    (found,) = document(replace(result("apply"), judgements=[judged]))["findings"]
    assert (found["action"], found["outcome"]) == ("none", None)


def test_a_refusal_leaves_the_findings() -> None:
    """A refused plan names guard, message and setting, and still lists what was found."""
    told = document(result(refusal=RatioRefused("too many")))
    assert told["refusal"] == {
        "guard": "ratio",
        "message": "too many",
        "setting": "guard.max_change_ratio",
    }
    assert (told["result"], told["error"], len(told["findings"])) == ("refused", None, 3)


def test_an_error_before_anything_was_read_is_a_whole_document() -> None:
    """Without a reading every key is there all the same."""
    error = CapabilityError("may not")
    told = document(Result(command="apply", mode="observe", at=AT, error=error))
    assert list(told) == list(document(result()))
    assert told["error"] == {"code": "capability", "message": "may not"}
    assert told["counts"] == dict.fromkeys(Verdict, 0)
    empty = (told["result"], told["authority"], told["links"], told["findings"])
    assert empty == ("error", None, [], [])
    json.dumps(told)


def test_an_incomplete_reading_and_an_unknown_owner() -> None:
    """A targeted reading is not complete, and nobody knows who owns a subnet without owner."""
    (link,) = result().links.values()
    unsaid = ManagedLink(link.link, link.eni, replace(SUBNETS[0], owner_id=None))
    foreign = ManagedLink(link.link, link.eni, replace(SUBNETS[0], owner_id="999988887777"))
    reading = replace(READING, targets=frozenset())
    told = document(replace(result(), reading=reading, links={2: unsaid, 3: foreign}))
    assert told["authority"]["complete"] is False
    assert [link["shared_subnet"] for link in told["links"]] == [None, True]


def test_times_are_utc() -> None:
    """A time of another zone is told as the same moment in UTC."""
    cet = timezone(timedelta(hours=1))
    assert rfc3339(datetime(2026, 1, 1, 0, 30, tzinfo=cet)) == "2025-12-31T23:30:00Z"
    assert rfc3339(datetime(2026, 1, 1, 0, 30, 59, 999999, tzinfo=UTC)) == "2026-01-01T00:30:59Z"
