"""Keep a wrong neighbour entry wrong, in the two ways that production knows.

The kernel takes progress of traffic as proof that a neighbour is reachable, but
it proves only that the *address* answers. While either of these runs, the entry
is REACHABLE, or goes round by STALE and DELAY; it never reaches PROBE, and the
wire is never asked. Every new direct connection meanwhile dies.

Plant the wrong entry first (``Lab.set_neighbour``). Both speak several times a
second, well within ``delay_first_probe_time``: a longer gap lets the kernel's
own probe cure the entry.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from reconciler.core.model import format_address, pack_address
from reconciler.testing.echo import echo, reset_on_close
from reconciler.testing.lab import Lab
from reconciler.testing.poller import Poller

_DISCARD = 9


@contextmanager
def confirmed(lab: Lab, address: str, *, every: float = 0.2, link: str = "eth0") -> Iterator[None]:
    """Send UDP with MSG_CONFIRM from the broker to the address, every so many seconds.

    Raises:
        OSError: the socket could not be made.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.broker.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())

        def beat() -> None:
            # Once the entry is cured the client's "port unreachable" comes back.
            with suppress(OSError):
                sock.sendto(b"alive", socket.MSG_CONFIRM, (address, _DISCARD))

        with Poller("confirmed", beat=beat, every=every):
            yield


@dataclass
class Flow:
    """The one flow that works in spite of the entry. ``echoed`` counts bytes come back."""

    echoed: int = 0


@contextmanager
def relayed(lab: Lab, address: str, *, every: float = 0.2) -> Iterator[Flow]:
    """Keep one TCP flow from the address to the broker going, whatever MAC the broker uses.

    The address belongs to a client with a namespace. The client sends a byte
    every so many seconds, the broker returns it, and a relay on the wire
    carries the broker's frames to the client.

    Raises:
        LabError: nobody owns the address, or its owner has no namespace.
        TimeoutError: the flow could not be opened within 5 s.
    """
    client = lab.owner(address)
    host = lab.broker_eni(client.subnet_id)
    packed = pack_address(address)
    near = next(own for own in host.addresses if len(own) == len(packed))
    flow = Flow()
    with ExitStack() as stack:
        listener = lab.listener(format_address(near))
        stack.enter_context(echo(listener))
        family = listener.family
        sock = stack.enter_context(lab.client(client.eni_id).socket(family, socket.SOCK_STREAM))
        sock.bind((address, 0))
        port = sock.getsockname()[1]
        stack.enter_context(lab.switch.relayed(host.eni_id, client.eni_id, packed, port))
        reset_on_close(sock).settimeout(5.0)
        sock.connect(listener.getsockname()[:2])
        sock.setblocking(False)

        def receive() -> None:
            with suppress(OSError):
                flow.echoed += len(sock.recv(4096))

        def beat() -> None:
            with suppress(OSError):
                sock.send(b".")

        poller = Poller("flow", beat=beat, every=every)
        poller.watch(sock, receive)
        stack.enter_context(poller)
        yield flow


__all__ = ["Flow", "confirmed", "relayed"]
