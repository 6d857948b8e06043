"""One thread that serves sockets and a beat, and ends when it is told to."""

import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Self


class Poller:
    """Calls the handlers of readable sockets, and ``beat`` every so many seconds.

    A context manager: the thread has ended when the ``with`` block has. The
    sockets stay their owners' to close, after that.
    """

    def __init__(
        self, name: str, *, beat: Callable[[], None] | None = None, every: float = 0.2
    ) -> None:
        self._beat = beat
        self._every = every
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopper = socket.socketpair()
        self._selector.register(self._stop, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._turn, name=f"lab-{name}", daemon=True)

    def watch(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        """Call the handler, in the thread, whenever the socket is readable."""
        self._selector.register(sock, selectors.EVENT_READ, handler)

    def forget(self, sock: socket.socket) -> None:
        """Watch the socket no longer. Only a handler may ask."""
        self._selector.unregister(sock)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopper.close()
        self._thread.join()
        self._selector.close()
        self._stop.close()

    def _turn(self) -> None:
        due = time.monotonic()
        while True:
            wait = None if self._beat is None else max(0.0, due - time.monotonic())
            ready = [key.data for key, _ in self._selector.select(wait)]
            if None in ready:
                return
            for handler in ready:
                handler()
            if self._beat is not None and time.monotonic() >= due:
                self._beat()
                due = time.monotonic() + self._every


__all__ = ["Poller"]
