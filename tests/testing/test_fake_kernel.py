"""The fake kernel does what the real one does where a repair could go wrong."""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from reconciler.core.model import Key, Link, Neighbour, Ntf, Nud, pack_address, pack_mac
from reconciler.errors import KernelError
from reconciler.testing.clock import ManualClock
from reconciler.testing.kernel import FakeKernel

if TYPE_CHECKING:
    from reconciler.kernel.protocol import Reader, Transmitter

KEY = Key(3, pack_address("10.0.0.9"))
OLD, NEW = pack_mac("02:00:00:00:00:66"), pack_mac("02:00:00:00:00:01")
STALE = Neighbour(*KEY, OLD, Nud.STALE)


def test_it_is_a_reader_and_a_transmitter() -> None:
    """It stands wherever either protocol is asked for."""
    kernel = FakeKernel([STALE], links=(Link(3, "eth0", NEW),), clock=ManualClock(5.0))
    reader: Reader = kernel
    transmitter: Transmitter = kernel
    table = reader.table()
    assert ((STALE,), 5.0 + ManualClock.TICK) == (table.neighbours, table.seen_at)
    assert [STALE, None] == [reader.neighbour(KEY), reader.neighbour(Key(4, KEY.address))]
    assert [3, True] == [reader.ucast_solicit(3), transmitter.permitted()]


def test_delete_removes_even_permanent_entries() -> None:
    """Linux protects nothing; what is absent is ENOENT."""
    kernel = FakeKernel([Neighbour(*KEY, OLD, Nud.PERMANENT)])
    kernel.delete(KEY)
    with pytest.raises(FileNotFoundError):
        kernel.delete(KEY)
    assert [("delete", KEY)] * 2 == kernel.writes


def test_resolve_believes_the_wire_and_fails_without_it() -> None:
    """An answer makes REACHABLE, silence INCOMPLETE and then FAILED; EEXIST where one stands."""
    kernel = FakeKernel()
    kernel.resolve(KEY)
    first = kernel.neighbours[KEY].state
    kernel.fail_unanswered()
    with pytest.raises(FileExistsError):
        kernel.resolve(KEY)
    kernel.wire = lambda _: NEW
    second = kernel.neighbours[KEY].state
    kernel.reask(KEY)
    assert [Nud.INCOMPLETE, Nud.FAILED] == [first, second]
    assert Neighbour(*KEY, NEW, Nud.REACHABLE) == kernel.neighbours[KEY]


def test_reask_demotes_permanent_and_leaves_a_good_entry() -> None:
    """NTF_USE without NLM_F_EXCL is dangerous, as in Linux; ENOENT where none stands."""
    other = Key(3, pack_address("10.0.0.10"))
    kernel = FakeKernel([STALE, Neighbour(*other, OLD, Nud.PERMANENT)])
    kernel.reask(KEY)
    kernel.reask(other)
    with pytest.raises(FileNotFoundError):
        kernel.reask(Key(9, KEY.address))
    assert [STALE, Nud.INCOMPLETE] == [kernel.neighbours[KEY], kernel.neighbours[other].state]


def test_probe_asks_the_wire_and_drops_flags() -> None:
    """The wire's MAC wins, silence leads to FAILED, and what an administrator set is lost."""
    entry = Neighbour(*KEY, OLD, Nud.REACHABLE, Ntf.EXT_LEARNED | Ntf.MANAGED | Ntf.ROUTER)
    kernel = FakeKernel([entry])
    kernel.probe(KEY)
    assert Neighbour(*KEY, OLD, Nud.PROBE, Ntf.ROUTER) == kernel.neighbours[KEY]
    kernel.wire = lambda _: NEW
    kernel.probe(KEY)
    assert Neighbour(*KEY, NEW, Nud.REACHABLE, Ntf.ROUTER) == kernel.neighbours[KEY]


def test_probe_without_probes_fails_a_right_entry() -> None:
    """Where ucast_solicit is 0 a probe is a delete."""
    kernel = FakeKernel([STALE], wire=lambda _: OLD)
    kernel.probes = 0
    kernel.probe(KEY)
    assert Neighbour(*KEY, None, Nud.FAILED) == kernel.neighbours[KEY]


def test_probe_needs_an_address() -> None:
    """ENOENT without entry, EINVAL without lladdr."""
    kernel = FakeKernel()
    with pytest.raises(FileNotFoundError):
        kernel.probe(KEY)
    kernel.resolve(KEY)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        kernel.probe(KEY)
    assert errno.EINVAL == caught.value.errno


def test_replace_does_not_override_another_answer() -> None:
    """Where the wire gave a MAC it stays, silently; else the new one stands as STALE."""
    kernel = FakeKernel([STALE])
    kernel.replace(KEY, NEW)
    assert {KEY: STALE} == kernel.neighbours
    kernel.delete(KEY)
    kernel.replace(KEY, NEW)
    assert {KEY: Neighbour(*KEY, NEW, Nud.STALE)} == kernel.neighbours
    assert ("replace", KEY, NEW) == kernel.writes[0]


CALLS: dict[str, Callable[[FakeKernel], object]] = {
    "table": lambda kernel: kernel.table(),
    "neighbour": lambda kernel: kernel.neighbour(KEY),
    "ucast_solicit": lambda kernel: kernel.ucast_solicit(3),
    "delete": lambda kernel: kernel.delete(KEY),
    "replace": lambda kernel: kernel.replace(KEY, NEW),
    "probe": lambda kernel: kernel.probe(KEY),
    "resolve": lambda kernel: kernel.resolve(Key(4, KEY.address)),
    "reask": lambda kernel: kernel.reask(KEY),
    "permitted": lambda kernel: kernel.permitted(),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_method_can_be_made_to_fail_once(name: str) -> None:
    """The hook comes first, then the exception, and the next call works."""
    kernel = FakeKernel([STALE])
    seen: list[str] = []
    kernel.before_next[name] = lambda: seen.append(name)
    kernel.fail_next[name] = KernelError("no answer")
    with pytest.raises(KernelError):
        CALLS[name](kernel)
    CALLS[name](kernel)
    assert [name] == seen


def test_without_permission_nothing_changes() -> None:
    """Every change is EPERM."""
    kernel = FakeKernel([STALE])
    kernel.may_write = False
    for name in ("delete", "replace", "probe", "resolve", "reask"):
        with pytest.raises(PermissionError):
            CALLS[name](kernel)
    assert [{KEY: STALE}, False] == [kernel.neighbours, kernel.permitted()]


def test_the_manual_clock_only_moves_when_told() -> None:
    """Two looks differ by a tick, and a sleep is an advance."""
    clock = ManualClock(10.0)
    first, second = clock(), clock()
    clock.advance(5.0)
    clock.sleep(2.0)
    assert first < second < 10.001
    assert 17.0 < clock() < 17.001
