"""What a command has to tell, as a value: rendered as JSON or as a table, and as an exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from reconciler.core.model import (
    Judgement,
    Key,
    ManagedLink,
    Outcome,
    Reading,
    Repair,
    Verdict,
)
from reconciler.core.plan import WRONG
from reconciler.errors import ConfigError, Interrupted, ReconcilerError, Refused

REPORTED = WRONG | {Verdict.UNLISTED, Verdict.UNKNOWN}
_ENDED_WELL = {Outcome.HEALED, Outcome.GONE}
_UNTOUCHED = {Outcome.CHANGED, Outcome.SKIPPED}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of ``plan`` or ``apply``. ``mode`` and the rest as in the JSON output."""

    command: str
    mode: str
    at: datetime
    reading: Reading | None = None
    links: Mapping[int, ManagedLink] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    passed_over: Mapping[int, str] = field(default_factory=dict)
    judgements: Sequence[Judgement] = ()
    repairs: Mapping[Key, Repair] = field(default_factory=dict)
    refusal: Refused | None = None
    error: ReconcilerError | None = None

    USAGE: ClassVar[int] = 64
    INTERRUPTED: ClassVar[int] = 130

    @property
    def wrong(self) -> list[Judgement]:
        """The entries that are wrong, waiting ones included, as judged before any action."""
        return [judgement for judgement in self.judgements if judgement.verdict in WRONG]

    @property
    def left(self) -> list[Judgement]:
        """The wrong entries that were not repaired and verified, and are not gone."""
        return [
            judgement
            for judgement in self.wrong
            if (repair := self.repairs.get(judgement.neighbour.key)) is None
            or repair.outcome not in _ENDED_WELL
        ]

    @property
    def touched(self) -> bool:
        """Whether the kernel may have been changed."""
        return any(repair.outcome not in _UNTOUCHED for repair in self.repairs.values())

    @property
    def result(self) -> str:
        """The one word: in_sync, drift, repaired, refused or error."""
        if self.error is not None:
            return "error"
        if self.refusal is not None and not self.touched:
            return "refused"
        if not self.wrong:
            return "in_sync"
        return "drift" if self.left else "repaired"

    @property
    def exit_code(self) -> int:
        """The exit code of ``plan`` and ``apply``."""
        if isinstance(self.error, Interrupted):
            return self.INTERRUPTED
        if isinstance(self.error, ConfigError):
            return self.USAGE
        return {"error": 1, "refused": 3, "drift": 2, "in_sync": 0, "repaired": 0}[self.result]
