"""What the commands do, once the flags are understood."""

import signal
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self

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


class Interrupts:
    """Ctrl-C and SIGTERM for ``apply``; a context manager around all of it, printing included.

    Before the first change they end the command at once. From then on they are
    a flag: the repair under way is looked at, and told, before the end.
    """

    def __enter__(self) -> Self:
        self.acting = self.pressed = False
        self._previous = {
            number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _hear(self, *_: object) -> None:
        if not self.acting:
            raise KeyboardInterrupt
        self.pressed = True


def apply(settings: Settings, *, dry_run: bool, force: bool, interrupts: Interrupts) -> Result:
    """Look, repair, verify; what was done is told whatever happens."""
    result = Result(command="apply", mode=settings.mode, at=datetime.now(UTC))
    try:
        with Assembly() as assembly:
            one = assembly.make_pass(settings, dry_run=dry_run)
            look = one.look(force=force)
            result = _looked(result, look)
            interrupts.acting = True
            return _repaired(result, one, look, Journal(settings.log.journal), interrupts)
    except ReconcilerError as error:
        interrupts.acting = True
        return replace(result, error=error)
    except KeyboardInterrupt:
        interrupts.acting = True
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


def _repaired(
    result: Result, one: Pass, look: Look, journal: Journal, interrupts: Interrupts
) -> Result:
    repairs = one.repair(
        look,
        tell=lambda repair: journal.record(
            repair,
            look.reading,
            result.names[repair.judgement.neighbour.ifindex],
            datetime.now(UTC),
        ),
        stopped=lambda: interrupts.pressed,
    )
    planned = len(look.plan.changes)
    made = sum(repair.written for repair in repairs.done)
    return replace(
        result,
        repairs={repair.judgement.neighbour.key: repair for repair in repairs.done},
        refusal=repairs.refusal or look.refusal,
        error=Interrupted(f"Interrupted. {made} of {planned} planned changes were made.")
        if interrupts.pressed
        else None,
    )
