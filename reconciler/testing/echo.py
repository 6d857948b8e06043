"""A TCP service that echoes: what a client of the lab connects to."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.testing.poller import Poller

# Close with a reset. A socket that waits for its last acknowledgement on a dead
# path would keep its network namespace alive for minutes after its process.
_RESET = struct.pack("ii", 1, 0)


def reset_on_close(sock: socket.socket) -> socket.socket:
    """Let nothing of the connection survive its descriptor; return the socket."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return sock


@contextmanager
def echo(listener: socket.socket) -> Iterator[None]:
    """Serve a listening socket from a thread until the block ends; closes the socket then."""
    connections: set[socket.socket] = set()

    def accept() -> None:
        connection = reset_on_close(listener.accept()[0])
        connection.setblocking(False)
        connections.add(connection)
        poller.watch(connection, lambda: reply(connection))

    def reply(connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
            if data:
                connection.send(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # Reset or timed out: over, like a connection that was closed.
        poller.forget(connection)
        connections.discard(connection)
        connection.close()

    with listener:
        try:
            with Poller("echo") as poller:
                poller.watch(listener, accept)
                yield
        finally:
            for connection in connections:
                connection.close()


__all__ = ["echo", "reset_on_close"]
