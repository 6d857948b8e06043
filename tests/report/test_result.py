"""The one word and the exit code of a run, for each case of the contract's table."""

from dataclasses import replace

import pytest
from report.test_output import result

from reconciler.core.model import Judgement, Outcome, Repair, Verdict
from reconciler.errors import (
    AuthorityError,
    CapabilityError,
    ConfigError,
    HoldRefused,
    IdentityError,
    Interrupted,
    KernelError,
    RatioRefused,
    ReconcilerError,
    UnbelievableError,
)
from reconciler.report.result import Result

(FIRST, SECOND, *_) = result().judgements


def ended(*outcomes: Outcome, refusal: HoldRefused | None = None) -> Result:
    """Make an apply on two wrong entries, of which the first ones ended so."""
    wrong = (FIRST, replace(SECOND, verdict=Verdict.ORPHAN))
    done = (Repair(judged, outcome) for judged, outcome in zip(wrong, outcomes, strict=False))
    return replace(
        result("apply"),
        judgements=wrong,
        repairs={repair.judgement.neighbour.key: repair for repair in done},
        refusal=refusal,
    )


def told(given: Result) -> tuple[int, str]:
    """Return the exit code and the word."""
    return given.exit_code, given.result


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.UNMANAGED, (0, "in_sync")),
        (Verdict.PROTECTED, (0, "in_sync")),
        (Verdict.UNRESOLVED, (0, "in_sync")),
        (Verdict.UNKNOWN, (0, "in_sync")),
        (Verdict.MATCH, (0, "in_sync")),
        (Verdict.UNLISTED, (0, "in_sync")),
        (Verdict.MISMATCH, (2, "drift")),
        (Verdict.ORPHAN, (2, "drift")),
        (Verdict.PENDING, (2, "drift")),
    ],
)
def test_plan_by_verdict(verdict: Verdict, expected: tuple[int, str]) -> None:
    """Only mismatches, orphans and what waits are wrong entries."""
    judged = [replace(FIRST, verdict=verdict)]
    assert told(replace(result(), judgements=judged)) == expected


def test_an_empty_table_is_in_sync() -> None:
    """Nothing there is nothing wrong."""
    assert told(replace(result(), judgements=[])) == (0, "in_sync")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((Outcome.HEALED, Outcome.GONE), (0, "repaired")),
        ((Outcome.HEALED,), (2, "drift")),
        ((Outcome.HEALED, Outcome.RELEARNED), (2, "drift")),
        ((Outcome.HEALED, Outcome.FAILED), (2, "drift")),
        ((Outcome.CHANGED, Outcome.CHANGED), (2, "drift")),
        ((Outcome.SKIPPED, Outcome.SKIPPED), (2, "drift")),
    ],
)
def test_apply_by_outcome(outcomes: tuple[Outcome, ...], expected: tuple[int, str]) -> None:
    """All repaired or gone is 0; one entry left in any other way is 2."""
    assert told(ended(*outcomes)) == expected


@pytest.mark.parametrize("done", [(), (Outcome.CHANGED,), (Outcome.SKIPPED,)])
def test_a_guard_before_the_first_change_is_3(done: tuple[Outcome, ...]) -> None:
    """A refusal counts as one as long as nothing was sent to the kernel."""
    assert told(ended(*done, refusal=HoldRefused("x"))) == (3, "refused")


@pytest.mark.parametrize("done", [Outcome.HEALED, Outcome.RELEARNED, Outcome.FAILED])
def test_a_guard_after_the_first_change_is_2(done: Outcome) -> None:
    """Once something may have been changed, what matters is what is left."""
    assert told(ended(done, refusal=HoldRefused("x"))) == (2, "drift")


def test_plan_is_refused_too() -> None:
    """A guard that would stop apply gives plan exit 3, whatever was found."""
    assert told(result(refusal=RatioRefused("x"))) == (3, "refused")
    assert told(replace(result(refusal=RatioRefused("x")), judgements=[])) == (3, "refused")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthorityError("x"), 1),
        (IdentityError("x"), 1),
        (UnbelievableError("x"), 1),
        (KernelError("x"), 1),
        (CapabilityError("x"), 1),
        (ConfigError("x"), 64),
        (Interrupted("x"), 130),
    ],
)
def test_errors_outrank_everything(error: ReconcilerError, code: int) -> None:
    """An error decides the exit code, whatever else was found, done or refused."""
    assert told(replace(ended(Outcome.HEALED), error=error)) == (code, "error")
    assert told(result(refusal=RatioRefused("x"), error=error)) == (code, "error")


def test_what_is_left_is_named() -> None:
    """The wrong entries that did not end well are the ones that are left."""
    left: list[Judgement] = ended(Outcome.HEALED, Outcome.FAILED).left
    assert [judged.neighbour.key for judged in left] == [SECOND.neighbour.key]
