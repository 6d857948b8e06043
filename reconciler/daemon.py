"""The process around the loop: lock, signals, logging."""

import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Self

from reconciler.assembly import Assembly
from reconciler.core.memory import Memory
from reconciler.loop import Loop, lock
from reconciler.report import log
from reconciler.settings import Settings


class _Alarm:
    """A wait that a signal cuts short, without a lock that a handler could meet."""

    def __enter__(self) -> Self:
        self._ours, self._pythons = socket.socketpair()
        self._ours.setblocking(False)
        self._pythons.setblocking(False)
        signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._ours.close()
        self._pythons.close()

    def wait(self, seconds: float) -> None:
        """Wait some seconds, or until a signal comes that has not been waited for yet."""
        select.select([self._ours], [], [], seconds)
        with suppress(BlockingIOError):
            while self._ours.recv(4096):
                pass


def run(load: Callable[[], Settings], *, dry_run: bool) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    Raises:
        LockError: another daemon runs in this network namespace.
    """

    def load_and_log() -> Settings:
        settings = load()
        log.configure(settings.log.level, settings.log.format, sys.stderr)
        return settings

    with closing(lock()), _Alarm() as alarm, Assembly() as assembly:
        memory = Memory()
        loop = Loop(
            load_and_log,
            lambda settings: assembly.make_pass(settings, dry_run=dry_run, memory=memory),
            wait=alarm.wait,
        )

        for number, act in (
            (signal.SIGTERM, loop.stop),
            (signal.SIGINT, loop.stop),
            (signal.SIGHUP, loop.reload),
        ):
            signal.signal(number, lambda *_, act=act: act())
        loop.run()
    return 0
