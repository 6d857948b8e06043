"""What is really written: against the real kernel, byte by byte and by its effects."""

import asyncio
import ctypes
import errno
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kernel.host import Host, standing

from reconciler.clock import boottime
from reconciler.core.model import Evidence, Key, Neighbour, Ntf, Nud, pack_mac
from reconciler.kernel.read import NetlinkReader
from reconciler.kernel.write import NetlinkTransmitter, Writer, Written
from reconciler.testing.namespaces import Namespace

pytestmark = pytest.mark.kernel

WRONG = pack_mac("02:00:00:00:00:66")
PEERS = pytest.mark.parametrize("peer", ["10.0.0.2", "2001:db8::2"])
NOBODIES = pytest.mark.parametrize("nobody", ["10.0.0.9", "2001:db8::9"])


@pytest.fixture
def transmitter() -> Iterator[NetlinkTransmitter]:
    """Write to the real kernel."""
    transmitter = NetlinkTransmitter()
    yield transmitter
    transmitter.close()


@pytest.fixture
def writer(reader: NetlinkReader, transmitter: NetlinkTransmitter) -> Writer:
    """Write to the real kernel as the program does."""
    return Writer(reader, transmitter, observe=False, hold_file=None, clock=boottime)


def fresh() -> Evidence:
    """Return evidence that is good just now."""
    now = boottime()
    return Evidence(now - 3, now - 2, now - 1)


def add(host: Host, address: str, words: str) -> Key:
    """Put an entry in place."""
    host.ip(f"neigh replace {address} dev v0 {words}")
    return host.key(address)


def wait(reader: NetlinkReader, key: Key, done: Callable[[Neighbour], bool]) -> Neighbour:
    """Wait until the kernel has come to something; it takes up to three seconds."""
    end = boottime() + 10
    while not done(entry := standing(reader, key)) and boottime() < end:
        time.sleep(0.002)  # The kernel's own timers and another namespace's answer.
    return entry


# ------------------------------------------------------------------ messages


class Tap:
    """Stands between the transmitter and pyroute2's socket and keeps what was sent."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.sent: list[str] = []

    def put(self, message: Any, *arguments: Any, **options: Any) -> None:
        """Pass a message on, and keep it without sequence number and port."""
        self.inner.put(message, *arguments, **options)
        data = bytes(message.data)
        attributes = 28 + (8 if data[16] == socket.AF_INET else 20)
        parts = (data[:8], data[16:28], data[28:attributes], data[attributes:])
        self.sent.append(" ".join(part.hex() for part in parts if part))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_the_very_messages_that_were_meant_go_out(
    host: Host, transmitter: NetlinkTransmitter
) -> None:
    """Type, flags, one state bit or none, NTF_USE, and no attribute that was not asked for."""
    key, key6 = host.key("10.0.0.9"), host.key("2001:db8::9")
    transmitter.permitted()
    tap = transmitter._socket = Tap(transmitter._socket)
    transmitter.resolve(key)
    transmitter.reask(key)
    transmitter.replace(key6, WRONG)
    transmitter.probe(key6)
    transmitter.delete(key6)
    transmitter.permitted()
    link = host.index.to_bytes(4, sys.byteorder).hex()
    dst = "08000100" + key.address.hex()
    dst6 = "14000100" + key6.address.hex()
    # nlmsghdr: length, type, flags; ndmsg: family, link, state, flags; attributes.
    assert [
        f"240000001c000506 02000000{link}00000100 {dst}",
        f"240000001c000500 02000000{link}00000100 {dst}",
        f"3c0000001c000504 0a000000{link}04000000 {dst6} 0a0002000200000000660000",
        f"300000001c000500 0a000000{link}10000000 {dst6}",
        f"300000001d000500 0a000000{link}00000000 {dst6}",
        "1c0000001d000500 020000000000000000000000",
    ] == tap.sent


# ------------------------------------------------------------------- effects


@PEERS
def test_a_wrong_entry_is_deleted_and_resolved_anew(
    host: Host, reader: NetlinkReader, writer: Writer, peer: str
) -> None:
    """Delete, then ask: within milliseconds the wire's own answer stands."""
    key = add(host, peer, "lladdr 02:00:00:00:00:66 nud reachable")
    wrong = standing(reader, key)
    assert Written.DONE is writer.delete(wrong, fresh())
    assert Written.DONE is writer.resolve(key, fresh())
    entry = wait(reader, key, lambda entry: entry.state != Nud.INCOMPLETE)
    assert (Nud.REACHABLE, host.peer_mac) == (entry.state, entry.lladdr)
    assert Written.CHANGED is writer.delete(wrong, fresh())


@NOBODIES
def test_a_delete_leaves_nothing(
    host: Host, reader: NetlinkReader, writer: Writer, nobody: str
) -> None:
    """An orphan is gone at once, and gone is gone."""
    key = add(host, nobody, "lladdr 02:00:00:00:00:66 nud stale")
    wrong = standing(reader, key)
    assert Written.DONE is writer.delete(wrong, fresh())
    assert reader.neighbour(key) is None
    assert Written.ABSENT is writer.delete(wrong, fresh())


@PEERS
def test_a_probe_lets_the_kernel_verify(
    host: Host, reader: NetlinkReader, writer: Writer, peer: str
) -> None:
    """The wrong MAC stays until its probes went unanswered, then the wire is asked."""
    host.ip(
        "ntable change name arp_cache dev v0 retrans 20",
        "ntable change name ndisc_cache dev v0 retrans 20",
    )
    key = add(host, peer, "lladdr 02:00:00:00:00:66 nud reachable")
    assert Written.DONE is writer.probe(standing(reader, key), fresh())
    # Either the wire's MAC, or FAILED, from which the next packet asks anew.
    entry = wait(reader, key, lambda entry: entry.state != Nud.PROBE)
    assert WRONG != entry.lladdr


@NOBODIES
def test_a_probe_sets_nothing_but_the_state(
    host: Host, reader: NetlinkReader, writer: Writer, nobody: str
) -> None:
    """MAC and protocol are still those of before."""
    key = add(host, nobody, "lladdr 02:00:00:00:00:66 nud stale proto 17")
    before = standing(reader, key)
    assert Written.DONE is writer.probe(before, fresh())
    after = standing(reader, key)
    assert Nud.PROBE == after.state
    assert before.same_entry(after)


@NOBODIES
def test_resolve_asks_the_wire(
    host: Host, reader: NetlinkReader, writer: Writer, nobody: str
) -> None:
    """An entry is made that waits for an answer, with a timer that ends it."""
    host.ip(
        "ntable change name arp_cache dev v0 retrans 20",
        "ntable change name ndisc_cache dev v0 retrans 20",
    )
    key = host.key(nobody)
    assert Written.DONE is writer.resolve(key, fresh())
    made = standing(reader, key)
    assert (Nud.INCOMPLETE, None) == (made.state, made.lladdr)
    assert Nud.FAILED == wait(reader, key, lambda entry: entry.state != Nud.INCOMPLETE).state


@PEERS
@pytest.mark.parametrize(
    "words",
    [
        "nud permanent",
        "nud noarp",
        "nud stale",
        "nud reachable extern_learn proto 186",
        "nud stale router",
        "nud permanent proto 42",
    ],
)
def test_resolve_does_not_touch_a_standing_entry(
    host: Host, reader: NetlinkReader, writer: Writer, peer: str, words: str
) -> None:
    """State, MAC, flags and protocol are as before, PERMANENT included."""
    key = add(host, peer, f"lladdr 02:00:00:00:00:66 {words}")
    before = standing(reader, key)
    assert Written.DONE is writer.resolve(key, fresh())
    after = standing(reader, key)
    assert before.same_entry(after)
    assert before.state == after.state


@PEERS
def test_a_failed_entry_is_asked_for_again(
    host: Host, reader: NetlinkReader, writer: Writer, peer: str
) -> None:
    """An entry that stands as FAILED comes back with the wire's answer."""
    host.ip(f"neigh add {peer} dev v0 nud failed")
    key = host.key(peer)
    assert Nud.FAILED == standing(reader, key).state
    assert Written.DONE is writer.resolve(key, fresh())
    entry = wait(reader, key, lambda entry: entry.lladdr is not None)
    assert (Nud.REACHABLE, host.peer_mac) == (entry.state, entry.lladdr)


@NOBODIES
@pytest.mark.parametrize("words", ["", "nud failed", "nud none"])
def test_replace_writes_stale(
    host: Host, reader: NetlinkReader, writer: Writer, nobody: str, words: str
) -> None:
    """Never REACHABLE, never PERMANENT: the kernel verifies it when it is used."""
    key = add(host, nobody, words) if words else host.key(nobody)
    assert Written.DONE is writer.replace(key, WRONG, fresh())
    entry = standing(reader, key)
    assert (Nud.STALE, WRONG, 0) == (entry.state, entry.lladdr, entry.flags)


@PEERS
@pytest.mark.parametrize("state", ["reachable", "stale", "permanent"])
def test_the_kernel_itself_keeps_another_answer(
    host: Host, reader: NetlinkReader, transmitter: NetlinkTransmitter, peer: str, state: str
) -> None:
    """A replace that comes too late, after the second look, changes no MAC."""
    key = add(host, peer, f"lladdr 02:00:00:00:00:02 nud {state}")
    transmitter.replace(key, WRONG)
    entry = standing(reader, key)
    assert (host.peer_mac, state.upper()) == (entry.lladdr, entry.nud)


@pytest.mark.parametrize("words", ["nud permanent", "nud noarp", "nud stale router"])
def test_a_protected_entry_survives_its_own_judgement(
    host: Host, reader: NetlinkReader, writer: Writer, words: str
) -> None:
    """Whatever was judged, the entry stands with state and flags."""
    key = add(host, "10.0.0.9", f"lladdr 02:00:00:00:00:66 {words}")
    before = standing(reader, key)
    assert Written.CHANGED is writer.delete(before, fresh())
    assert Written.CHANGED is writer.probe(before, fresh())
    after = standing(reader, key)
    assert (before.state, before.flags) == (after.state, after.flags)


@pytest.mark.parametrize("flag", ["extern_learn", "managed"])
def test_a_learned_entry_survives_its_own_judgement(
    host: Host, reader: NetlinkReader, writer: Writer, flag: str
) -> None:
    """An administrative write would have dropped the flag."""
    key = add(host, "10.0.0.9", f"lladdr 02:00:00:00:00:66 nud reachable {flag}")
    before = standing(reader, key)
    assert before.flags & (Ntf.EXT_LEARNED | Ntf.MANAGED)
    assert Written.CHANGED is writer.probe(before, fresh())
    assert before.same_entry(standing(reader, key))


# ------------------------------------------------- refusals, threads, faults


def test_a_refusal_has_the_kernels_errno_and_words(
    host: Host, transmitter: NetlinkTransmitter
) -> None:
    """ENOENT, EEXIST, EINVAL and ENODEV arrive as OSError, and leave the socket as it is."""
    host.ip("neigh add 10.0.0.9 dev v0 nud failed")
    there, absent = host.key("10.0.0.9"), host.key("10.0.0.77")
    seen = []
    for change, key in (
        (transmitter.delete, absent),
        (transmitter.probe, absent),
        (transmitter.reask, absent),
        (transmitter.resolve, there),
        (transmitter.probe, there),
        (transmitter.delete, Key(999, there.address)),
    ):
        with pytest.raises(OSError, match=r"\w") as caught:
            change(key)
        seen.append(caught.value.errno)
    enoent, before = errno.ENOENT, transmitter._socket
    assert [enoent, enoent, enoent, errno.EEXIST, errno.EINVAL, errno.ENODEV] == seen
    transmitter.delete(there)
    assert before is transmitter._socket


def test_a_fault_opens_a_new_socket(
    host: Host, transmitter: NetlinkTransmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOBUFS, or no answer in time, never sticks."""
    key = host.key("10.0.0.9")
    transmitter.permitted()
    first = transmitter._socket
    for fault in (OSError(errno.ENOBUFS, "No buffer space available"), BlockingIOError()):

        def fail(*_: object, fault: OSError = fault) -> bytes:
            raise fault

        monkeypatch.setattr(transmitter._socket.asyncore, "recv", fail)
        with pytest.raises(OSError, match=r"No buffer space|did not acknowledge within 5 s"):
            transmitter.delete(key)
        assert transmitter._socket is None
        assert transmitter.permitted()
    assert first is not transmitter._socket


def test_an_acknowledgement_that_makes_no_sense_is_an_oserror(
    host: Host, transmitter: NetlinkTransmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers know one sort of refusal, and the next change has a new socket."""
    transmitter.permitted()
    monkeypatch.setattr(transmitter._socket.asyncore, "recv", lambda *_: b"nonsense")
    with pytest.raises(OSError, match="cannot be understood"):
        transmitter.delete(host.key("10.0.0.9"))
    assert transmitter._socket is None


def in_thread(call: Callable[[], object]) -> object:
    """Call something in a thread of its own and return its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_the_namespace_is_that_of_the_thread_which_changes_first(
    host: Host, reader: NetlinkReader, transmitter: NetlinkTransmitter
) -> None:
    """The socket is made where the calling thread stands, and stays there for every thread."""
    first = add(host, "10.0.0.8", "lladdr 02:00:00:00:00:66 nud stale")
    second = add(host, "10.0.0.9", "lladdr 02:00:00:00:00:66 nud stale")
    reader.table()

    def delete_first() -> None:
        with host.namespace.entered():
            transmitter.delete(first)

    with host.peer.entered():
        in_thread(delete_first)
        transmitter.delete(second)
    assert [None, None] == [reader.neighbour(first), reader.neighbour(second)]


def drop_capabilities() -> None:
    """Take every capability from the calling thread, and from it alone (capset(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0


def test_permission_is_what_the_kernel_says(host: Host, transmitter: NetlinkTransmitter) -> None:
    """With CAP_NET_ADMIN yes; without it no, and the changes are refused with EPERM."""
    key = add(host, "10.0.0.9", "lladdr 02:00:00:00:00:66 nud stale")

    def without() -> object:
        drop_capabilities()
        unprivileged = NetlinkTransmitter()
        permitted = unprivileged.permitted()
        with pytest.raises(PermissionError):
            unprivileged.delete(key)
        unprivileged.close()
        return permitted

    assert [True, False] == [transmitter.permitted(), in_thread(without)]


def test_reading_needs_no_capability(host: Host) -> None:
    """Table, entry and probes are readable by anybody."""
    key = add(host, "10.0.0.9", "lladdr 02:00:00:00:00:66 nud stale")

    def without() -> object:
        drop_capabilities()
        reader = NetlinkReader(boottime)
        table = reader.table()
        entry, probes = standing(reader, key), reader.ucast_solicit(host.index)
        reader.close()
        return entry.key in {entry.key for entry in table.neighbours}, probes

    assert (True, 3) == in_thread(without)


def test_importing_the_writer_does_not_import_pyroute2() -> None:
    """Twenty-five MiB and a quarter of a second are spent by the first change only."""
    code = "import sys, reconciler.kernel.write; print('pyroute2' in sys.modules)"
    with Namespace.own() as here:
        assert here.run([sys.executable, "-c", code]).stdout == "False\n"


def test_it_works_inside_a_running_event_loop(
    host: Host, reader: NetlinkReader, transmitter: NetlinkTransmitter
) -> None:
    """No loop is needed, and one that runs is no obstacle."""
    key = add(host, "10.0.0.9", "lladdr 02:00:00:00:00:66 nud stale")

    async def change() -> None:
        transmitter.delete(key)

    asyncio.run(change())
    assert reader.neighbour(key) is None
