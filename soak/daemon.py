"""The daemon under test, as a unit file would start it, and what its log says."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import LabError
from reconciler.testing.lab import Lab

INTERVAL = 5.0  # seconds: the least that the setting accepts, for the most passes.
_PATIENCE = 15.0  # seconds to start, and to finish the pass under way


@dataclass
class Daemon:
    """The daemon's end and its log, filled when it has ended.

    Attributes:
        alive: whether it still ran when it was told to stop.
        code: its exit code after SIGTERM.
        lines: its log, one document a line.
        wild: lines that are no JSON, such as those of a traceback, and lines
            that tell of a bug.
    """

    alive: bool = False
    code: int | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    wild: list[str] = field(default_factory=list)

    @property
    def events(self) -> Counter[str]:
        """How many lines there are of each event; repairs by verdict and outcome."""
        return Counter(
            f"repair: {line['verdict']} {line['outcome']}"
            if line["event"] == "repair"
            else str(line["event"])
            for line in self.lines
        )

    def repairs(self, outcome: str) -> int:
        """How many repairs ended so."""
        return sum(line.get("outcome") == outcome for line in self.lines)

    def changed(self, address: str, mac: str) -> bool:
        """Say whether it removed the entry with that MAC."""
        return any(
            line["event"] == "repair" and (line["address"], line["before"]["mac"]) == (address, mac)
            for line in self.lines
        )


@contextmanager
def daemon(lab: Lab) -> Iterator[Daemon]:
    """Run ``arp-reconciler run`` with its defaults until the block ends, then SIGTERM.

    The block begins when it has read EC2 once.

    Raises:
        LabError: it never did.
        subprocess.TimeoutExpired: it does not stop; it is killed.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        argv = [sys.executable, "-m", "reconciler", "run", "--interval", f"{INTERVAL:.0f}s"]
        null = subprocess.DEVNULL
        process = lab.popen(argv, stdin=null, stdout=null, stderr=log)
        running = Daemon()
        try:
            _await(lab, process)
            yield running
            running.alive = process.poll() is None
            process.send_signal(signal.SIGTERM)
            running.code = process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        for line in log:
            _file(running, line)


def _await(lab: Lab, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if any(call.action == "DescribeNetworkInterfaces" for call in tuple(lab.endpoint.calls)):
            return
        time.sleep(0.05)
    raise LabError(f"The daemon never asked EC2 (exit code {process.poll()}).")


def _file(running: Daemon, line: str) -> None:
    try:
        document = json.loads(line)
    except ValueError:
        running.wild.append(line.rstrip())
        return
    running.lines.append(document)
    if document["event"] == "pass.bug" or "traceback" in document:
        running.wild.append(line.rstrip())


__all__ = ["INTERVAL", "Daemon", "daemon"]
