"""A host with one link to a peer that really answers, in namespaces of their own."""

import json
from dataclasses import dataclass
from typing import Any

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

    def ip6(self, *lines: str) -> None:
        """Run ``ip -6`` commands."""
        for line in lines:
            done = self.namespace.run(["ip", "-6", *line.split()])
            assert (0, "") == (done.returncode, done.stderr)

    def show(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what ``ip -json`` prints."""
        done = self.namespace.run(["ip", "-json", "-statistics", "-details", *arguments])
        answer: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        # ip prints an empty object where it has nothing to say of an element.
        return [element for element in answer if element]


def standing(reader: NetlinkReader, key: Key) -> Neighbour:
    """Read an entry that must be there."""
    entry = reader.neighbour(key)
    assert entry is not None
    return entry
