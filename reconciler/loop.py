"""The daemon: a pass every interval until SIGTERM; one in each network namespace.

The loop never ends on a failure of the world around it. What fails is logged
once in full, then counted, and told once more when it works again.
"""

import logging
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from reconciler.core.links import FOREIGN
from reconciler.core.model import Key, Mac, format_address, format_mac
from reconciler.errors import (
    AuthorityError,
    CapabilityError,
    LockError,
    ReconcilerError,
    Refused,
)
from reconciler.passes import Look, Pass
from reconciler.report.journal import Journal
from reconciler.report.result import REPORTED
from reconciler.settings import Settings

log = logging.getLogger(__name__)

# The abstract namespace of unix(7) belongs to the network namespace, and the
# kernel lets go of the name when the process dies, however it dies.
LOCK_NAME = "\0arp-reconciler"


def lock() -> socket.socket:
    """Take this network namespace; hold the socket as long as the daemon lives.

    Raises:
        LockError: another daemon has it.
    """
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(LOCK_NAME)
    except OSError as error:
        held.close()
        raise LockError(
            "another arp-reconciler already runs in this network namespace; nothing was changed. "
            "Stop it first (systemctl stop arp-reconciler), or use `plan`, which may run beside it."
        ) from error
    return held


class Loop:
    """Turns until stopped. ``wait`` sleeps for some seconds and is cut short by a signal."""

    def __init__(
        self,
        load: Callable[[], Settings],
        make_pass: Callable[[Settings], Pass],
        *,
        wait: Callable[[float], object],
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._load = load
        self._make_pass = make_pass
        self._wait = wait
        self._chance = chance
        self._settings = load()
        self._pass = make_pass(self._settings)
        self._journal = Journal(self._settings.log.journal)
        # Plain flags: a signal handler may set them while this very thread holds any lock.
        self._stopped = self._reload = False
        self._failures = 0
        self._failure = ""
        self._told: set[tuple[Key, Mac | None, str]] = set()
        self._left_alone: set[tuple[str, str]] = set()

    def stop(self) -> None:
        """End after the pass that is under way."""
        self._stopped = True

    def reload(self) -> None:
        """Read the settings anew before the next turn."""
        self._reload = True

    def run(self) -> None:
        """Turn until stopped."""
        log.info(
            "daemon.started",
            extra={"mode": self._settings.mode, "interval": self._settings.authority.interval},
        )
        while not self._stopped:
            if self._reload:
                self._reload = False
                self._load_again()
            self.turn()
            if not self._stopped:
                authority = self._settings.authority
                spread = authority.interval * authority.jitter
                self._wait(authority.interval + self._chance(-spread, spread))
        log.info("daemon.stopped")

    def turn(self) -> None:
        """Make one pass and tell what came of it; whatever fails, the loop goes on."""
        failure: Exception | None = None
        try:
            # What the last reading shows wrong is confirmed by name and healed
            # first. Whatever comes of it, both sides are read whole after it.
            suspects = self._pass.glance()
            if suspects is not None:
                self._carry_out(suspects)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not end the loop.
            failure = error
        try:
            look = self._pass.look()
            self._tell(look)
            # A guard that refused the glance is asked again here, and only now believed.
            failure = self._carry_out(look) or failure
        except Exception as error:  # noqa: BLE001 - as above; every write has its own gate.
            failure = error
        if failure is None:
            self._recovered()
            return
        self._failed(failure)
        if isinstance(failure, AuthorityError):
            self._unblind()

    def _carry_out(self, look: Look) -> Refused | None:
        """Repair; return the refusal of the guard that stopped it, if one did."""
        if look.refusal is not None:
            return look.refusal
        repairs = self._pass.repair(
            look,
            tell=lambda repair: self._journal.record(
                repair,
                look.reading,
                look.table.names[repair.judgement.neighbour.ifindex],
                datetime.now(UTC),
            ),
        )
        return repairs.refusal

    def _unblind(self) -> None:
        """See to it that the way to EC2 is not itself a wrong neighbour."""
        try:
            verified = self._pass.unblind()
        except Exception as error:  # noqa: BLE001 - as in turn; the first failure is told already.
            log.debug("endpoint.not_verified", extra={"why": repr(error)})
            return
        for neighbour in verified:
            log.warning(
                "endpoint.verified",
                extra={
                    "address": format_address(neighbour.address),
                    "mac": format_mac(neighbour.lladdr or b""),
                    "why": "EC2 cannot be read, and its endpoint is this neighbour: "
                    "the kernel was asked to verify it",
                },
            )

    def _load_again(self) -> None:
        try:
            settings = self._load()
        except ReconcilerError as error:
            log.error("settings.kept", extra={"why": str(error)})  # noqa: TRY400 - no traceback.
            return
        if settings.log.journal != self._settings.log.journal:
            self._journal = Journal(settings.log.journal)
        self._settings = settings
        self._pass = self._make_pass(settings)
        log.info("settings.reloaded", extra={"mode": settings.mode})

    def _tell(self, look: Look) -> None:
        """Log what is newly wrong; what was told before is not told again."""
        wrong = {
            (j.neighbour.key, j.neighbour.lladdr, j.rule): j
            for j in look.plan.judgements
            if j.verdict in REPORTED
        }
        for told, judgement in wrong.items():
            if told not in self._told:
                neighbour = judgement.neighbour
                log.info(
                    "entry.found",
                    extra={
                        "address": format_address(neighbour.address),
                        "link": look.table.names[neighbour.ifindex],
                        "mac": format_mac(neighbour.lladdr or b""),
                        "verdict": judgement.verdict.value,
                        "rule": judgement.rule,
                        "reason": judgement.reason,
                        "action": judgement.action.value,
                    },
                )
        self._told = set(wrong)
        left_alone = {
            (look.table.names.get(index, str(index)), why)
            for index, why in look.view.passed_over.items()
            if why != FOREIGN
        }
        for name, why in sorted(left_alone - self._left_alone):
            log.info("link.unmanaged", extra={"link": name, "why": why})
        self._left_alone = left_alone

    def _failed(self, error: Exception) -> None:
        """Tell a failure in full the first time, and count the rest."""
        self._failures += 1
        kind = error.kind if isinstance(error, ReconcilerError) else repr(error)
        if kind == self._failure:
            log.debug("pass.failed_again", extra={"kind": kind, "failures": self._failures})
        elif isinstance(error, ReconcilerError):
            level = logging.ERROR if isinstance(error, CapabilityError) else logging.WARNING
            log.log(level, "pass.failed", extra={"code": error.code, "why": str(error)})
        else:
            log.error("pass.bug", extra={"why": repr(error)}, exc_info=error)
        self._failure = kind

    def _recovered(self) -> None:
        if self._failures:
            log.info("pass.recovered", extra={"failures": self._failures})
        self._failures = 0
        self._failure = ""
