"""The process around the loop: lock, signals, logging."""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing

from reconciler.assembly import Assembly
from reconciler.core.memory import Memory
from reconciler.loop import Loop, lock
from reconciler.report import log
from reconciler.settings import Settings


def run(load: Callable[[], Settings], *, dry_run: bool) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    Raises:
        LockError: another daemon runs in this network namespace.
    """
    wake = threading.Event()

    def load_and_log() -> Settings:
        settings = load()
        log.configure(settings.log.level, settings.log.format, sys.stderr)
        return settings

    def wait(seconds: float) -> None:
        wake.wait(seconds)
        wake.clear()

    with closing(lock()), Assembly() as assembly:
        memory = Memory()
        loop = Loop(
            load_and_log,
            lambda settings: assembly.make_pass(settings, dry_run=dry_run, memory=memory),
            wait=wait,
        )

        def on(number: signal.Signals, act: Callable[[], None]) -> None:
            def handler(*_: object) -> None:
                act()
                wake.set()

            signal.signal(number, handler)

        on(signal.SIGTERM, loop.stop)
        on(signal.SIGINT, loop.stop)
        on(signal.SIGHUP, loop.reload)
        loop.run()
    return 0
