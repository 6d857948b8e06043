"""The audit file: every change with its evidence, and no pass lost for its sake."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.strategies import MACS
from report.test_output import AT, LONG, OWNER, READING, result

from reconciler.core.model import Neighbour, Nud, Outcome, Repair
from reconciler.report.journal import Journal

(JUDGED, *_) = result().judgements
HEALED = Repair(
    replace(JUDGED, mac_owner=replace(OWNER, eni_id="eni-other", instance_id=None)),
    Outcome.HEALED,
    after=Neighbour(2, JUDGED.neighbour.address, MACS[0], Nud.REACHABLE, updated=0.001),
    seconds=0.0012345678,
)


def record(journal: Journal, times: int = 1, repair: Repair = HEALED) -> None:
    """Write the same change so many times."""
    for _ in range(times):
        journal.record(repair, READING, "eth0", AT)


def lines(path: Path) -> list[dict[str, Any]]:
    """Read the file as a script does: each line one whole object."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the journal's own events, with what they carry."""
    return [
        f"{r.getMessage()} {vars(r).get('lines_lost', '')}".rstrip()
        for r in caplog.records
        if r.getMessage().startswith("journal.")
    ]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_reconstructs_the_change(tmp_path: Path) -> None:
    """Before, after, both owners, reading, rule, outcome and seconds stand in the one line."""
    path = tmp_path / "journal"
    record(Journal(path))
    (line,) = lines(path)
    other = {
        "eni_id": "eni-other",
        "instance_id": None,
        "interface_type": "interface",
        "description": OWNER.description,
    }
    before = {
        "mac": "02:00:00:00:01:05",
        "nud": "REACHABLE",
        "flags": 0,
        "protocol": 0,
        "age": {"confirmed": 1.0, "used": 0.0, "updated": 0.0},
    }
    assert line == {
        "at": "2026-01-02T03:04:05Z",
        "address": LONG,
        "link": "eth0",
        "action": "delete",
        "outcome": "healed",
        "error": None,
        "verdict": "mismatch",
        "rule": "owner-has-other-mac",
        "reason": JUDGED.reason,
        "before": before,
        "after": {
            **before,
            "mac": "02:00:00:00:01:00",
            "age": {"confirmed": 0.0, "used": 0.0, "updated": 0.0},
        },
        "expected_mac": "02:00:00:00:01:00",
        "owner": {**other, "eni_id": OWNER.eni_id, "instance_id": OWNER.instance_id},
        "mac_owner": other,
        "reading": {
            "source": "ec2",
            "fetched_at": "2026-01-02T03:04:05Z",
            "complete": True,
            "enis": 1,
        },
        "ended_at": "2026-01-02T03:04:05Z",
        "seconds": 0.001235,
    }


def test_each_change_is_one_line(tmp_path: Path) -> None:
    """Changes are appended, each a line, and an absent entry afterwards is null."""
    path = tmp_path / "journal"
    path.write_text('{"older": true}\n')
    record(Journal(path), 2, replace(HEALED, after=None, outcome=Outcome.GONE))
    assert [line.get("outcome") for line in lines(path)] == [None, "gone", "gone"]
    assert lines(path)[1]["after"] is None


def test_what_was_skipped_is_no_change(tmp_path: Path) -> None:
    """Observe and dry run, which meet the same entries in every pass, leave no line."""
    path = tmp_path / "journal"
    record(Journal(path), repair=replace(HEALED, outcome=Outcome.SKIPPED))
    assert not path.exists()


def test_without_a_file_the_log_carries_the_line(caplog: pytest.LogCaptureFixture) -> None:
    """No journal file means the log line with the same fields, and nothing else."""
    caplog.set_level("INFO")
    record(Journal(None))
    (logged,) = caplog.records
    assert logged.getMessage() == "repair"
    assert vars(logged)["before"]["mac"] == "02:00:00:00:01:05"


def test_rotation_needs_no_signal(tmp_path: Path) -> None:
    """After the file was renamed, the next line begins a new one."""
    path = tmp_path / "journal"
    journal = Journal(path)
    record(journal)
    path.rename(tmp_path / "journal.1")
    record(journal, 2)
    assert (len(lines(tmp_path / "journal.1")), len(lines(path))) == (1, 2)


@pytest.mark.parametrize("full", [Path("/dev/full"), Path("/proc/nowhere/journal")])
def test_the_first_loss_is_told(full: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk or a missing folder loses lines, says so once, and raises nothing."""
    record(Journal(full), 3)
    assert events(caplog) == ["journal.lost"]


def test_recovery_tells_how_many_were_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When writing works again one line tells the count, and the next loss is news again."""
    path = tmp_path / "folder" / "journal"
    journal = Journal(path)
    record(journal, 3)
    path.parent.mkdir()
    record(journal, 2)
    path.unlink()
    path.parent.rmdir()
    record(journal)
    assert events(caplog) == ["journal.lost", "journal.recovered 3", "journal.lost"]


def test_a_torn_line_spoils_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that fills up in the middle of a line costs that line and not the next good one."""
    path = tmp_path / "journal"
    journal = Journal(path)
    record(journal)
    with room_for(path.stat().st_size + 100):
        record(journal, 2)
    assert path.read_text()[-1] != "\n"
    record(journal, 2)
    whole, torn, *after = path.read_text().splitlines()
    assert len(torn) == 100
    assert [json.loads(line)["outcome"] for line in (whole, *after)] == ["healed"] * 3
    assert events(caplog) == ["journal.lost", "journal.recovered 2"]
