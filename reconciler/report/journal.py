"""The audit: one JSON line for every change, from which a person can reconstruct it."""

import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler.core.model import (
    Neighbour,
    Outcome,
    Reading,
    Repair,
    format_address,
    format_mac,
)
from reconciler.report.document import ages, eni_document, rfc3339

log = logging.getLogger(__name__)


class Journal:
    """Appends to a file, opened anew for each line so that rotation needs no signal.

    ``path`` None: the log alone carries the line. A full disk or a missing
    folder loses lines, never a pass; the first loss is logged, and the count
    of lost lines when writing works again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lost = 0

    def record(self, repair: Repair, reading: Reading, link: str, at: datetime) -> None:
        """Write one change to the log and to the file; what was only skipped is none."""
        if repair.outcome is Outcome.SKIPPED:
            return
        line = entry(repair, reading, link, at)
        log.info("repair", extra=line)
        if self._path is None:
            return
        try:
            # A disk that filled up in the middle of a line has left a part of it.
            end = "\n" if self._lost and _torn(self._path) else ""
            with self._path.open("a", encoding="utf-8") as file:
                file.write(end + json.dumps({"at": rfc3339(at), **line}) + "\n")
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                log.warning("journal.lost", extra={"path": str(self._path), "why": error.strerror})
            return
        if self._lost:
            log.warning("journal.recovered", extra={"lines_lost": self._lost})
            self._lost = 0


def entry(repair: Repair, reading: Reading, link: str, at: datetime) -> dict[str, Any]:
    """Give the evidence of one change: before, after, who owns what, and what says so."""
    judgement = repair.judgement
    neighbour = judgement.neighbour
    return {
        "address": format_address(neighbour.address),
        "link": link,
        "action": judgement.action.value,
        "outcome": repair.outcome.value,
        "error": repair.error,
        "verdict": judgement.verdict.value,
        "rule": judgement.rule,
        "reason": judgement.reason,
        "before": _entry(neighbour),
        "after": None if repair.after is None else _entry(repair.after),
        "expected_mac": None
        if judgement.expected_mac is None
        else format_mac(judgement.expected_mac),
        "owner": eni_document(judgement.owner),
        "mac_owner": eni_document(judgement.mac_owner),
        "reading": {
            "source": reading.source,
            "fetched_at": rfc3339(reading.fetched_at),
            "complete": reading.targets is None,
            "enis": len(reading.enis),
        },
        "ended_at": rfc3339(at),
        "seconds": round(repair.seconds, 6),
    }


def _torn(path: Path) -> bool:
    """Say whether the file's last line has no end."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _entry(neighbour: Neighbour) -> dict[str, Any]:
    return {
        "mac": None if neighbour.lladdr is None else format_mac(neighbour.lladdr),
        "nud": neighbour.nud,
        "flags": neighbour.flags,
        "protocol": neighbour.protocol,
        "age": ages(neighbour),
    }
