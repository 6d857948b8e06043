"""The soak in its short form, and proof that it can fail."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soak.daemon import Daemon
from soak.incidents import BOUND, ORPHAN_PATIENCE, Incident, Weather
from soak.load import Record
from soak.report import Phase, Report, Troubles, quantile

ROOT = Path(__file__).parents[2]
STEADY, SHAKEN, WRONG, RIGHT = "10.0.0.11", "10.0.0.20", "02:00:00:01:00:50", "02:00:00:00:00:06"


def soak(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start the soak as a person does."""
    argv = [sys.executable, "-m", "soak", *words]
    return subprocess.Popen(argv, cwd=ROOT, text=True, **options)  # noqa: S603 - our own program.


def test_repair_does_no_harm(namespaces: None, tmp_path: Path) -> None:  # noqa: ARG001
    """Nothing is lost, dropped or stalled while every kind of trouble was really made."""
    file = tmp_path / "figures.json"
    with soak("--seconds", "11", "--json", str(file), stdout=subprocess.PIPE) as run:
        told, _ = run.communicate(timeout=90)
    assert run.returncode == 0, told
    figures = json.loads(file.read_text())
    assert figures["failures"] == []
    assert {
        "all",
        "addled (confirmed)",
        "recycled",
        "recycled, EC2 late",
        "orphan, reborn",
    } <= figures["incidents"].keys()
    for phase in ("without_repairs", "with_repairs"):
        assert figures[phase]["steady"]["sent"] > 3000
        assert figures[phase]["steady"]["sent"] == figures[phase]["steady"]["delivered"]
    assert "As expected." in told


def test_it_leaves_nothing_behind_when_interrupted(namespaces: None, tmp_path: Path) -> None:  # noqa: ARG001
    """Ctrl-C ends it with 130 at once; no process of it lives on, and no file."""
    with soak(
        env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, start_new_session=True
    ) as run:
        deadline = time.monotonic() + 20
        while not (list(tmp_path.iterdir()) and len(group(run.pid)) > 5):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)
        _, told = run.communicate(timeout=20)
    # A child that Ctrl-C meets while its interpreter starts may grumble before.
    assert told.endswith("Interrupted: everything it had made is gone.\n")
    assert run.returncode == 130
    # A child that was killed takes a moment to be gone.
    while group(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group(run.pid) == []
    assert list(tmp_path.iterdir()) == []


def group(session: int) -> list[str]:
    """Return the processes of a session, by their numbers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A zombie is nothing but an exit code that init has not fetched yet.
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


# ------------------------------------------------------------ what it would notice


def record(address: str, *gaps: float | None, dropped: str | None = None) -> Record:
    """Make a record of one message a second, acknowledged so much later."""
    messages = tuple((at, gap and at + gap) for at, gap in enumerate(gaps))
    delivered = frozenset(at for at, gap in enumerate(gaps) if gap is not None)
    return Record(address, messages, delivered, dropped, 0.0)


def good() -> Report:
    """Make the report of a run in which all went well."""
    incident = Incident("addled", SHAKEN, WRONG, RIGHT, began=10.0, healed=14.0)
    repair = {"event": "repair", "address": SHAKEN, "verdict": "mismatch"}
    lines = [
        {**repair, "outcome": "healed", "before": {"mac": WRONG}},
        {**repair, "outcome": "relearned", "before": {"mac": RIGHT}},
    ]
    return Report(
        Phase(10.0, (record(STEADY, 0.1, 0.2), record(SHAKEN, 0.1))),
        Phase(10.0, (record(STEADY, 0.1, 0.9), record(SHAKEN, 6.0))),
        {STEADY},
        {SHAKEN},
        Troubles([incident], Weather(), 1, 1, 9, Counter(throttle=1), set()),
        Daemon(alive=True, code=0, lines=lines),
        broker_alive=True,
    )


def test_a_good_run_passes() -> None:
    """A stall of six seconds on an addled connection is no failure; everything else is right."""
    assert good().failures() == []


def during(*records: Record) -> Report:
    """Make a report with these records of the second phase."""
    return replace(good(), during=Phase(10.0, records))


def troubled(**changes: Any) -> Report:
    """Make a report with other troubles."""
    report = good()
    return replace(report, troubles=replace(report.troubles, **changes))


def incident(**changes: Any) -> Report:
    """Make a report with another incident."""
    return troubled(incidents=[replace(good().troubles.incidents[0], **changes)])


def guarded(**changes: Any) -> Report:
    """Make a report with another daemon."""
    report = good()
    return replace(report, daemon=replace(report.daemon, **changes))


unheard = replace(record(STEADY, 0.1, 0.1), delivered=frozenset({0}))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (during(record(STEADY, 0.1, None)), "1 of 2 messages from 10.0.0.11 were lost"),
        (during(unheard), "1 of 2 messages from 10.0.0.11 were lost"),
        (during(record(STEADY, 0.1), record(SHAKEN, None)), "1 of 1 messages from 10.0.0.20"),
        (during(record(STEADY, 0.1, dropped="Keep alive timeout")), "dropped: Keep alive timeout"),
        (during(record(STEADY, 1.01)), "waited 1.01 s though its entry was right"),
        (incident(healed=None), "was not healed."),
        (incident(healed=10.0 + BOUND + 0.5), "was healed 0.5 s too late"),
        (incident(wrong="02:00:00:01:00:51"), "was not healed by the daemon"),
        (troubled(harmed={"bystander 10.0.1.100 had None"}), "bystander 10.0.1.100 had None"),
        (guarded(wild=["Traceback (most recent call last):"]), "log has: Traceback"),
        (guarded(code=-9), "The daemon ended with -9"),
        (guarded(alive=False), "alive: False"),
        (replace(good(), broker_alive=False), "mosquitto did not live"),
        (during(record(SHAKEN, 0.1)), "not one message"),
        (troubled(incidents=[]), "not one incident"),
        (troubled(deleted=0), "not one deletion by hand"),
        (troubled(spoiled=0), "not one spoiled answer"),
        (guarded(lines=good().daemon.lines[:1]), "not one contested entry"),
    ],
)
def test_what_is_not_as_expected_is_told(report: Report, words: str) -> None:
    """Each expectation, broken alone, is one failure in words."""
    (failure,) = report.failures()
    assert words in failure


# ------------------------------------------------------------------ what is due when


def test_due_is_counted_from_the_worlds_return() -> None:
    """A heal is due within one fair spell that is long enough, and never in a short one."""
    weather = Weather()
    assert weather.due(5.0) == 5.0 + BOUND
    weather.worsen(10.0)
    assert not weather.fair
    assert weather.due(5.0) == float("inf")
    weather.clear(15.0)
    assert weather.due(5.0) == 15.0 + BOUND
    weather.worsen(16.0)
    weather.clear(20.0)
    assert weather.due(5.0) == 20.0 + BOUND
    assert weather.due(30.0) == 30.0 + BOUND


def test_an_orphan_has_two_minutes_more() -> None:
    """The second of the two readings is due as late after the first as the first was."""
    orphan = Incident("orphaned", SHAKEN, WRONG, None, began=10.0)
    assert orphan.due(Weather()) == 10.0 + BOUND + ORPHAN_PATIENCE + BOUND


def test_quantiles_are_nearest_ranks() -> None:
    """A quantile is one of the values, and nothing has none."""
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert quantile([], 0.5) is None
