"""Fixtures of the kernel's tests."""

import socket
from collections.abc import Iterator

import pytest
from kernel.host import Host

from reconciler.clock import boottime
from reconciler.kernel.read import NetlinkReader
from reconciler.testing.namespaces import Namespace


@pytest.fixture
def host(namespaces: None) -> Iterator[Host]:  # noqa: ARG001 - it allows what follows.
    """Stand in a fresh namespace with one veth to a peer."""
    with Namespace() as namespace, Namespace() as peer:
        namespace.batch(
            "ip",
            [
                f"link add v0 type veth peer name p0 address 02:00:00:00:00:02 netns {peer.path}",
                "link set lo up",
                "link set v0 addrgenmode none up",
                "addr add 10.0.0.1/24 dev v0",
                "addr add 2001:db8::1/64 dev v0 nodad",
                # A neighbour solicitation goes out from a link-local address.
                "addr add fe80::1/64 dev v0 nodad",
            ],
            pass_fds=[peer.fd],
        )
        peer.batch(
            "ip",
            [
                "link set p0 addrgenmode none up",
                "addr add 10.0.0.2/24 dev p0",
                "addr add 2001:db8::2/64 dev p0 nodad",
                "addr add fe80::2/64 dev p0 nodad",
            ],
        )
        with namespace.entered():
            yield Host(namespace, peer, socket.if_nametoindex("v0"))


@pytest.fixture
def reader() -> Iterator[NetlinkReader]:
    """Read the real kernel."""
    reader = NetlinkReader(boottime)
    yield reader
    reader.close()
