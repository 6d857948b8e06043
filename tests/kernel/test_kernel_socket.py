"""The netlink socket when the kernel's answer is late, cut, interrupted or refused."""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import netlink
from reconciler.kernel.netlink import NetlinkRefusal, NetlinkSocket

PORT = 42
Step = Callable[[int], bytes] | Exception
DONE = (netlink.NLMSG_DONE, 2, bytes(4))


def message(kind: int, flags: int, body: bytes) -> Step:
    """Answer a request with one datagram of one message."""

    def pack(sequence: int) -> bytes:
        return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, PORT) + body

    return pack


class ScriptedSocket:
    """Stands where the kernel's socket would, and plays one script for all of its openings."""

    script: list[Step]
    opened = 0
    flags = 0
    sender = 0

    def __init__(self, *_: object) -> None:
        type(self).opened += 1
        self.sequence = 0

    def send(self, request: bytes) -> None:
        """Take a request."""
        self.sequence = struct.unpack_from("=I", request, 8)[0]

    def recvmsg_into(self, buffers: list[memoryview]) -> tuple[int, list[bytes], int, object]:
        """Play the next step."""
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        datagram = step(self.sequence)
        buffers[0][: len(datagram)] = datagram
        return len(datagram), [], self.flags, (self.sender, 0)

    def getsockname(self) -> tuple[int, int]:
        """Name the port."""
        return PORT, 0

    def settimeout(self, *_: object) -> None:
        """Take anything."""

    setsockopt = bind = close = settimeout


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ScriptedSocket]]:
    """Put a scripted socket in the kernel's place."""

    class Scripted(ScriptedSocket):
        pass

    monkeypatch.setattr(socket, "socket", Scripted)
    yield Scripted
    assert [] == Scripted.script


def dump(asker: NetlinkSocket) -> list[bytes]:
    """Dump neighbours as they come."""
    return asker.dump(netlink.RTM_GETNEIGH, bytes(12), netlink.RTM_NEWNEIGH, list)


ENTRY = message(netlink.RTM_NEWNEIGH, 2, b"entry")
END = message(*DONE)


@pytest.mark.parametrize(
    "fault", [TimeoutError("timed out"), OSError(errno.ENOBUFS, "No buffer space available")]
)
def test_a_fault_never_sticks(scripted: type[ScriptedSocket], fault: OSError) -> None:
    """After a time-out or ENOBUFS the next request has a new socket."""
    scripted.script = [ENTRY, fault, ENTRY, END]
    asker = NetlinkSocket()
    with pytest.raises(OSError, match=str(fault.strerror or fault)):
        dump(asker)
    assert [b"entry"] == dump(asker)
    assert scripted.opened == 2


def test_a_refusal_keeps_the_socket(scripted: type[ScriptedSocket]) -> None:
    """ENOENT is an answer: the socket, and with it the namespace, stays."""
    refusal = message(netlink.NLMSG_ERROR, 0x100, struct.pack("=i", -2) + bytes(16))
    scripted.script = [refusal, ENTRY, END]
    asker = NetlinkSocket()
    with pytest.raises(NetlinkRefusal):
        dump(asker)
    assert [b"entry"] == dump(asker)
    assert scripted.opened == 1


def test_an_interrupted_dump_is_read_again(scripted: type[ScriptedSocket]) -> None:
    """Only the reading that was not interrupted counts."""
    interrupted = message(netlink.RTM_NEWNEIGH, 0x12, b"half")
    scripted.script = [interrupted, END, ENTRY, END]
    assert [b"entry"] == dump(NetlinkSocket())


def test_a_dump_that_is_always_interrupted_is_given_up(scripted: type[ScriptedSocket]) -> None:
    """The tries are counted, then the table counts as unread."""
    scripted.script = [message(netlink.NLMSG_DONE, 0x12, bytes(4)) for _ in range(5)]
    with pytest.raises(KernelError, match="each of 5 readings"):
        dump(NetlinkSocket())


def test_a_cut_datagram_is_an_error(scripted: type[ScriptedSocket]) -> None:
    """MSG_TRUNC means that entries are missing."""
    scripted.script = [ENTRY]
    scripted.flags = socket.MSG_TRUNC
    with pytest.raises(KernelError, match="longer than the buffer"):
        dump(NetlinkSocket())


def test_only_the_kernel_is_believed(scripted: type[ScriptedSocket]) -> None:
    """Datagrams of another process are passed over."""
    scripted.script = [ENTRY, END, TimeoutError("timed out")]
    scripted.sender = 99
    with pytest.raises(TimeoutError):
        dump(NetlinkSocket())


def test_what_a_consumer_leaves_does_not_answer_the_next_request(
    scripted: type[ScriptedSocket],
) -> None:
    """The rest of an answer is read, though nobody wants it."""
    scripted.script = [ENTRY, ENTRY, END, ENTRY, END]
    asker = NetlinkSocket()
    first = asker.dump(netlink.RTM_GETNEIGH, b"", netlink.RTM_NEWNEIGH, next)
    assert [b"entry", [b"entry"]] == [first, dump(asker)]


def test_an_answer_without_object_is_an_error(scripted: type[ScriptedSocket]) -> None:
    """A bare acknowledgement tells nothing about the entry."""
    scripted.script = [message(netlink.NLMSG_ERROR, 0x100, bytes(20))]
    with pytest.raises(KernelError):
        NetlinkSocket().get(netlink.RTM_GETNEIGH, b"", netlink.RTM_NEWNEIGH)


@pytest.mark.kernel
def test_the_kernel_says_inside_the_end_that_a_header_is_wrong() -> None:
    """With strict checking a wrong dump header is an error, not an empty table."""
    asker = NetlinkSocket()
    wrong = struct.pack("=B3xiHBB", 0, 0, 2, 0, 0)  # A state, which a dump must not name.
    with pytest.raises(NetlinkRefusal, match=r"Invalid values? in header") as caught:
        asker.dump(netlink.RTM_GETNEIGH, wrong, netlink.RTM_NEWNEIGH, list)
    asker.close()
    assert errno.EINVAL == caught.value.errno


def descriptors() -> int:
    """Count this process' open descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.kernel
def test_a_socket_is_opened_when_first_needed_and_closed() -> None:
    """Making one costs nothing; closing twice is fine."""
    asker = NetlinkSocket()
    before = descriptors()
    dump(asker)
    opened = descriptors()
    asker.close()
    asker.close()
    assert [before + 1, before] == [opened, descriptors()]
