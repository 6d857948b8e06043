"""What people and scripts are told: documents, tables, exit codes, the journal."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from core.strategies import ACCOUNT, HOST_ENIS, LINKS, MACS, SUBNETS, make_view

from reconciler.core.model import (
    Eni,
    ManagedLink,
    Neighbour,
    Nud,
    Outcome,
    Policy,
    Reading,
    Repair,
    pack_address,
)
from reconciler.core.plan import make_plan
from reconciler.errors import (
    AuthorityError,
    ConfigError,
    Interrupted,
    RatioRefused,
    ReconcilerError,
)
from reconciler.report.document import document
from reconciler.report.journal import Journal
from reconciler.report.result import Result
from reconciler.report.text import render

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LONG = "fd00:1::ffff:ffff:ffff:1234"
OWNER = Eni(
    "eni-0123456789abcdef0",
    "subnet-a",
    "vpc-1",
    MACS[0],
    owner_id=ACCOUNT,
    instance_id="i-0123456789abcdef0",
    description="a rather long description of a broker in some availability zone",
    addresses=(pack_address("10.0.0.9"), pack_address("10.0.0.10"), pack_address(LONG)),
)
ENTRIES = [
    Neighbour(2, pack_address(LONG), MACS[5], Nud.REACHABLE, confirmed=1.0),
    Neighbour(2, pack_address("10.0.0.10"), MACS[0], Nud.STALE),
    Neighbour(2, pack_address("10.0.0.20"), MACS[5], Nud.STALE, confirmed=7200.0),
    Neighbour(2, pack_address("10.0.0.9"), MACS[5], Nud.REACHABLE),
]
READING = Reading(1, 2, AT, (OWNER,), {s.subnet_id: s for s in SUBNETS}, 3)


def result(command: str = "plan", outcome: Outcome | None = None, **more: Any) -> Result:
    """Make a result of one mismatch on each family, an orphan and a match."""
    plan = make_plan(map(make_view((OWNER,)).judge, ENTRIES), Policy(), budget=9)
    repairs = {j.neighbour.key: Repair(j, outcome, seconds=0.0012) for j in plan.changes if outcome}
    return Result(
        command=command,
        mode="enforce",
        at=AT,
        reading=READING,
        links={2: ManagedLink(LINKS[0], HOST_ENIS[0], SUBNETS[0])},
        names={2: "eth0"},
        judgements=plan.judgements,
        repairs=repairs,
        **more,
    )


def test_the_document_has_exactly_the_promised_keys() -> None:
    """The JSON of plan and apply is what the contract says, key by key."""
    told = document(result())
    assert list(told) == [
        *("schema_version", "command", "mode", "at", "result", "authority", "links"),
        *("counts", "findings", "refusal", "error"),
    ]
    assert (told["at"], told["result"]) == ("2026-01-02T03:04:05Z", "drift")
    assert set(told["authority"]) == {
        *("source", "complete", "fetched_at", "enis", "addresses", "api_calls")
    }
    assert set(told["links"][0]) == {
        *("name", "index", "mac", "eni_id", "subnet_id", "vpc_id", "cidrs", "shared_subnet")
    }
    assert set(told["findings"][0]) == {
        *("address", "link", "mac", "nud", "verdict", "rule", "reason", "expected_mac"),
        *("owner", "mac_owner", "age", "action", "outcome"),
    }
    assert told["counts"] == {
        **dict.fromkeys(("unmanaged", "protected", "unresolved", "unknown", "unlisted"), 0),
        "match": 1,
        "mismatch": 2,
        "orphan": 1,
        "pending": 0,
    }


def test_findings_are_in_order() -> None:
    """Findings stand by link and address, IPv4 first; --all adds the right ones."""
    wrong = ["10.0.0.9", "10.0.0.20", LONG]
    assert [f["address"] for f in document(result())["findings"]] == wrong
    everything = document(result(), everything=True)["findings"]
    assert [f["address"] for f in everything] == ["10.0.0.9", "10.0.0.10", "10.0.0.20", LONG]


def test_outcomes_stand_beside_the_first_verdict() -> None:
    """After apply the findings are as judged before, with what came of them."""
    told = document(result("apply", Outcome.HEALED))
    assert told["result"] == "repaired"
    assert {(f["verdict"], f["outcome"]) for f in told["findings"]} == {
        ("mismatch", "healed"),
        ("orphan", "healed"),
    }


CODES: list[tuple[Outcome | None, ReconcilerError | None, int, str]] = [
    (None, None, 2, "drift"),
    (Outcome.HEALED, None, 0, "repaired"),
    (Outcome.GONE, None, 0, "repaired"),
    (Outcome.RELEARNED, None, 2, "drift"),
    (Outcome.CHANGED, None, 2, "drift"),
    (Outcome.FAILED, None, 2, "drift"),
    (Outcome.SKIPPED, None, 2, "drift"),
    (None, AuthorityError("x"), 1, "error"),
    (None, ConfigError("x"), 64, "error"),
    (Outcome.HEALED, Interrupted("x"), 130, "error"),
    (None, RatioRefused("x"), 3, "refused"),
]


@pytest.mark.parametrize(("outcome", "error", "code", "word"), CODES)
def test_exit_codes(
    outcome: Outcome | None, error: ReconcilerError | None, code: int, word: str
) -> None:
    """Every end has its exit code and its word."""
    refused = isinstance(error, RatioRefused)
    told = result("apply", outcome, **{"refusal" if refused else "error": error})
    assert (told.exit_code, told.result) == (code, word)


def test_a_quiet_table_is_in_sync() -> None:
    """Nothing wrong is exit 0, whatever else was seen."""
    quiet = replace(
        result(), judgements=[j for j in result().judgements if j.rule == "owner-has-mac"]
    )
    assert (quiet.exit_code, quiet.result) == (0, "in_sync")
    assert render(quiet, width=80).splitlines()[0] == (
        "All is well: none of 1 neighbours is wrong."
    )


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits(width: int) -> None:
    """No line is longer than the terminal, and the first says what a person wants to know."""
    lines = render(result("apply", Outcome.HEALED), width=width).splitlines()
    assert lines[0] == "Repaired: 3 of 4 neighbours were wrong (2 mismatch, 1 orphan)."
    assert max(map(len, lines)) <= width
    assert any(line.startswith("10.0.0.9 ") and "healed" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_the_journal_has_the_evidence(tmp_path: Path) -> None:
    """Each change is one line with before, owner, rule, reading and outcome; rotation is safe."""
    path = tmp_path / "journal"
    journal = Journal(path)
    (repair, *_) = result("apply", Outcome.HEALED).repairs.values()
    journal.record(repair, READING, "eth0", AT)
    path.rename(tmp_path / "journal.1")
    journal.record(repair, READING, "eth0", AT)
    line = json.loads(path.read_text())
    assert (line["outcome"], line["rule"], line["link"]) == (
        "healed",
        "owner-has-other-mac",
        "eth0",
    )
    assert line["before"]["mac"] == "02:00:00:00:01:05"
    assert line["owner"]["eni_id"] == OWNER.eni_id
    assert line["reading"]["complete"]


def test_a_full_disk_loses_lines_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """A journal that cannot be written is told once, and the pass goes on."""
    journal = Journal(Path("/dev/full"))
    (repair, *_) = result("apply", Outcome.HEALED).repairs.values()
    for _ in range(3):
        journal.record(repair, READING, "eth0", AT)
    assert [r.getMessage() for r in caplog.records].count("journal.lost") == 1
