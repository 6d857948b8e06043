"""The small HTTP/1.1 server under the lab's EC2 endpoint and its metadata service.

The standard library's own server is of no use here, for three reasons: the
listening socket may have been made inside another network namespace, requests
that hang must not outlive the ``with`` block, and some answers must be wrong on
purpose (silence, or a body that breaks off).
"""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from io import BufferedIOBase
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole. ``target`` is the path with its query; headers ignore case."""

    method: str
    target: str
    headers: Message
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``cut`` promises the whole body, sends half of it and closes the socket."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class HttpServer:
    """Serve one connection a thread, from entering the ``with`` block until leaving it.

    Args:
        listener: a listening stream socket, which the server then owns and
            closes; None listens on a free port of 127.0.0.1.

    Attributes:
        latency: seconds between taking a request in and answering it. What is
            answered is decided before the wait: a slow answer is an old one.
    """

    def __init__(self, *, listener: socket.socket | None = None) -> None:
        self.latency = 0.0
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._open: dict[threading.Thread, socket.socket] = {}
        host, port = self._listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def respond(self, request: Request) -> Reply | None:
        """Answer one request; None says nothing until the client or the server gives up."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        # On Linux this wakes the blocked accept(); closing the descriptor would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread, connection in self._open.copy().items():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Shut down, or out of descriptors for a moment.
                self._closing.wait(0.01)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._open[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # OSError: the client went away, or the server is closing.
        with (
            suppress(OSError, HTTPException),
            connection,
            connection.makefile("rb") as stream,
        ):
            while (request := _read(stream)) and self._exchange(connection, request):
                pass
        self._open.pop(threading.current_thread(), None)

    def _exchange(self, connection: socket.socket, request: Request) -> bool:
        """Answer one request; False when the connection is done with."""
        reply = self.respond(request)
        self._closing.wait(self.latency)
        if reply is None:
            connection.recv(1)
            return False
        headers = {
            "Content-Type": reply.content_type,
            "Content-Length": str(len(reply.body)),
            **reply.headers,
        }
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        connection.sendall(head + reply.body[: len(reply.body) // 2 if reply.cut else None])
        return not reply.cut and request.headers.get("Connection", "").lower() != "close"


def _read(stream: BufferedIOBase) -> Request | None:
    """Read one request; None at the end of the connection, or where it is no HTTP."""
    words = stream.readline(65536).decode("latin-1").split()
    if len(words) != 3:
        return None
    headers = parse_headers(stream)
    length = headers.get("Content-Length", "0")
    if not length.isdecimal():
        return None
    return Request(words[0], words[1], headers, stream.read(int(length)))


__all__ = ["HttpServer", "Reply", "Request"]
