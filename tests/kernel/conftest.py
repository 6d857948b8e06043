"""A host with one link to a peer that really answers, in namespaces of their own."""

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from reconciler.clock import boottime
from reconciler.core.model import Key, Neighbour, pack_address, pack_mac
from reconciler.kernel.read import NetlinkReader
from reconciler.testing.namespaces import Namespace

PEER_MAC = pack_mac("02:00:00:00:00:02")


@dataclass(frozen=True)
class Host:
    """The namespace that the test stands in: 10.0.0.1 and 2001:db8::1 on ``v0``.

    The peer answers for 10.0.0.2 and 2001:db8::2 with ``peer_mac``.
    """

    namespace: Namespace
    peer: Namespace
    index: int
    peer_mac: bytes = PEER_MAC

    def key(self, address: str) -> Key:
        """Name a neighbour on the link."""
        return Key(self.index, pack_address(address))

    def ip(self, *lines: str) -> None:
        """Run ``ip`` commands."""
        self.namespace.batch("ip", lines)

    def show(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what ``ip -json`` prints."""
        command = ["ip", "-json", "-statistics", "-details", *arguments]
        printed = subprocess.run(command, check=True, capture_output=True).stdout
        answer: list[dict[str, Any]] = json.loads(printed or b"[]")
        # ip prints an empty object where it has nothing to say of an element.
        return [element for element in answer if element]


@pytest.fixture
def host() -> Iterator[Host]:
    """Stand in a fresh namespace with one veth to a peer."""
    with Namespace() as namespace, Namespace() as peer:
        namespace.batch(
            "ip",
            [
                f"link add v0 type veth peer name p0 address 02:00:00:00:00:02 netns {peer.path}",
                "link set lo up",
                "link set v0 up",
                "addr add 10.0.0.1/24 dev v0",
                "addr add 2001:db8::1/64 dev v0 nodad",
            ],
            pass_fds=[peer.fd],
        )
        peer.batch(
            "ip",
            [
                "link set p0 up",
                "addr add 10.0.0.2/24 dev p0",
                "addr add 2001:db8::2/64 dev p0 nodad",
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


def standing(reader: NetlinkReader, key: Key) -> Neighbour:
    """Read an entry that must be there."""
    entry = reader.neighbour(key)
    assert entry is not None
    return entry
