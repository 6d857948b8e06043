"""A kernel of dictionaries, for tests that need no real one.

It behaves like Linux where a repair can go wrong: PERMANENT is not protected,
an administrative write drops flags, nothing answers but the wire.
"""

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from reconciler.core.model import (
    Address,
    Key,
    Link,
    Mac,
    Neighbour,
    NextHops,
    Ntf,
    Nud,
    Surroundings,
    Table,
)
from reconciler.testing.clock import ManualClock

_UNRESOLVED = frozenset({Nud.NONE, Nud.INCOMPLETE, Nud.FAILED})
# What Linux forgets on every administrative write that does not repeat it.
_FORGOTTEN = Ntf.EXT_LEARNED | Ntf.MANAGED | Ntf.VALIDATED


def _silence(_: Key) -> Mac | None:
    return None


class FakeKernel:
    """Reads and transmits over ``neighbours`` (``kernel.protocol.Reader`` and ``Transmitter``).

    ``wire`` says which MAC answers for a key, or None. ``writes`` lists every
    change that was sent, refused ones too: the method's name, the key, and the
    MAC where one is written. ``fail_next`` holds an exception by method name,
    raised once: OSError for what transmits, KernelError for what reads.
    ``before_next`` holds a function by method name, called once, just before.
    ``clock`` gives ``Table.seen_at``, in seconds. ``probes`` is every link's
    ``ucast_solicit``.
    """

    def __init__(
        self,
        neighbours: Iterable[Neighbour] = (),
        *,
        links: tuple[Link, ...] = (),
        addresses: Iterable[Address] = (),
        wire: Callable[[Key], Mac | None] = _silence,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.neighbours = {neighbour.key: neighbour for neighbour in neighbours}
        self.links = links
        self.addresses = frozenset(addresses)
        self.next_hops = NextHops()
        self.wire = wire
        self.clock = clock or ManualClock()
        self.may_write = True
        self.probes = 3
        self.writes: list[tuple[str, Key] | tuple[str, Key, Mac]] = []
        self.fail_next: dict[str, Exception] = {}
        self.before_next: dict[str, Callable[[], object]] = {}

    # ---------------------------------------------------------------- Reader

    def table(self) -> Table:
        """Read everything; ``seen_at`` is when the look began."""
        seen_at = self.clock()
        self._begin("table")
        return Table(
            self.links, self.addresses, self.next_hops, tuple(self.neighbours.values()), seen_at
        )

    def surroundings(self) -> Surroundings:
        """Read what stands around the neighbours."""
        self._begin("surroundings")
        return Surroundings(self.links, self.addresses, self.next_hops)

    def neighbour(self, key: Key) -> Neighbour | None:
        """Read one entry anew."""
        self._begin("neighbour")
        return self.neighbours.get(key)

    def ucast_solicit(self, ifindex: int) -> int:  # noqa: ARG002 - the protocol's.
        """Return ``probes``, whatever the link."""
        self._begin("ucast_solicit")
        return self.probes

    # ----------------------------------------------------------- Transmitter

    def delete(self, key: Key) -> None:
        """Remove any entry, PERMANENT ones too."""
        self._send("delete", key)
        self._standing(key)
        del self.neighbours[key]

    def replace(self, key: Key, lladdr: Mac) -> None:
        """Write the MAC as STALE, unless the entry holds another one."""
        self._send("replace", key, lladdr)
        entry = self.neighbours.get(key)
        if entry is None:
            self.neighbours[key] = Neighbour(*key, lladdr, Nud.STALE)
        elif entry.state in _UNRESOLVED or entry.lladdr == lladdr:
            self._administer(entry, lladdr=lladdr, state=Nud.STALE)

    def probe(self, key: Key) -> None:
        """Ask the wire and believe it; without ``probes`` the entry fails at once."""
        self._send("probe", key)
        entry = self._standing(key)
        if entry.state in _UNRESOLVED:
            raise _refusal(errno.EINVAL)
        self._administer(entry, state=Nud.PROBE)
        if self.probes == 0:
            self.fail_unanswered()
        else:
            self._ask(key)

    def resolve(self, key: Key) -> None:
        """Make an entry and ask the wire for it, where none stands."""
        self._send("resolve", key)
        if key in self.neighbours:
            raise _refusal(errno.EEXIST)
        self.neighbours[key] = Neighbour(*key, None, Nud.INCOMPLETE)
        self._ask(key)

    def reask(self, key: Key) -> None:
        """Ask the wire for an entry that failed; PERMANENT is demoted, as Linux does."""
        self._send("reask", key)
        entry = self._standing(key)
        if entry.state in _UNRESOLVED or entry.state == Nud.PERMANENT:
            self.neighbours[key] = replace(entry, lladdr=None, state=Nud.INCOMPLETE)
            self._ask(key)

    def permitted(self) -> bool:
        """Return ``may_write``."""
        self._begin("permitted")
        return self.may_write

    # -------------------------------------------------------------- the test

    def fail_unanswered(self) -> None:
        """Let the time-out pass: what still waits for an answer is FAILED."""
        for key, entry in self.neighbours.items():
            if entry.state in {Nud.INCOMPLETE, Nud.PROBE}:
                self.neighbours[key] = replace(entry, lladdr=None, state=Nud.FAILED)

    def _send(self, name: str, key: Key, lladdr: Mac | None = None) -> None:
        self._hook(name)
        self.writes.append((name, key) if lladdr is None else (name, key, lladdr))
        self._fail(name)
        if not self.may_write:
            raise _refusal(errno.EPERM)

    def _begin(self, name: str) -> None:
        self._hook(name)
        self._fail(name)

    def _hook(self, name: str) -> None:
        hook = self.before_next.pop(name, None)
        if hook is not None:
            hook()

    def _fail(self, name: str) -> None:
        error = self.fail_next.pop(name, None)
        if error is not None:
            raise error

    def _standing(self, key: Key) -> Neighbour:
        try:
            return self.neighbours[key]
        except KeyError:
            raise _refusal(errno.ENOENT) from None

    def _administer(self, entry: Neighbour, *, state: Nud, lladdr: Mac | None = None) -> None:
        self.neighbours[entry.key] = replace(
            entry,
            lladdr=lladdr or entry.lladdr,
            state=state,
            flags=entry.flags & ~_FORGOTTEN,
        )

    def _ask(self, key: Key) -> None:
        answer = self.wire(key)
        if answer is not None:
            self.neighbours[key] = replace(
                self.neighbours[key],
                lladdr=answer,
                state=Nud.REACHABLE,
                confirmed=0.0,
                used=0.0,
                updated=0.0,
            )


def _refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


__all__ = ["FakeKernel"]
