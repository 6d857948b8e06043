"""What the commands do, once the flags are understood."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.assembly import Assembly
from reconciler.core.model import Address
from reconciler.errors import Interrupted, ReconcilerError
from reconciler.passes import Look, Pass
from reconciler.report.explain import Explanation
from reconciler.report.journal import Journal
from reconciler.report.result import Result
from reconciler.settings import Settings


def plan(settings: Settings) -> Result:
    """Look at both sides and tell what differs; nothing is ever changed."""
    result = Result(command="plan", mode=settings.mode, at=datetime.now(UTC))
    try:
        with Assembly() as assembly:
            return _looked(result, assembly.make_pass(settings, dry_run=True).look())
    except ReconcilerError as error:
        return replace(result, error=error)
    except KeyboardInterrupt:
        return replace(result, error=Interrupted("Interrupted. Nothing was changed."))


def apply(settings: Settings, *, dry_run: bool, force: bool) -> Result:
    """Look, repair, verify; what was done is told whatever happens."""
    result = Result(command="apply", mode=settings.mode, at=datetime.now(UTC))
    try:
        with Assembly() as assembly:
            one = assembly.make_pass(settings, dry_run=dry_run)
            look = one.look(force=force)
            result = _looked(result, look)
            return _repaired(result, one, look, Journal(settings.log.journal))
    except ReconcilerError as error:
        return replace(result, error=error)
    except KeyboardInterrupt:
        return replace(result, error=Interrupted("Interrupted. Nothing was changed."))


def explain(settings: Settings, address: Address) -> Explanation:
    """Look once and tell everything about one address.

    Raises:
        ReconcilerError: one of the two sides could not be read.
    """
    with Assembly() as assembly:
        look = assembly.make_pass(settings, dry_run=True).look()
    result = _looked(Result(command="explain", mode=settings.mode, at=datetime.now(UTC)), look)
    return Explanation(address, result, look.view.ownership)


def _looked(result: Result, look: Look) -> Result:
    return replace(
        result,
        reading=look.reading,
        links=look.links,
        names=look.table.names,
        passed_over=look.view.passed_over,
        judgements=look.plan.judgements,
        refusal=look.refusal,
    )


def _repaired(result: Result, one: Pass, look: Look, journal: Journal) -> Result:
    with _interruptible() as interrupted:
        repairs = one.repair(
            look,
            tell=lambda repair: journal.record(
                repair,
                look.reading,
                result.names[repair.judgement.neighbour.ifindex],
                datetime.now(UTC),
            ),
            stopped=interrupted.is_set,
        )
    planned, done = len(look.plan.changes), len(repairs.done)
    return replace(
        result,
        repairs={repair.judgement.neighbour.key: repair for repair in repairs.done},
        refusal=repairs.refusal or look.refusal,
        error=Interrupted(f"Interrupted. {done} of {planned} planned changes were made.")
        if interrupted.is_set()
        else None,
    )


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn Ctrl-C into a flag, so that no repair is left without a report."""
    flag = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: flag.set())
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
