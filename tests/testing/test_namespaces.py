"""Namespaces: what happens inside stays inside, and nothing outlives its maker."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.errors import LabError
from reconciler.testing import namespaces as module
from reconciler.testing.namespaces import Namespace, enter_user_namespace

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]


def inode() -> int:
    """Return the number of the calling thread's namespace."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_a_new_namespace_has_only_loopback() -> None:
    """A namespace starts with a loopback link and nothing of the machine's."""
    with Namespace() as namespace:
        done = namespace.run(["ip", "-br", "link", "show"])
    assert ["lo"] == [line.split()[0] for line in done.stdout.splitlines()]


def test_entering_moves_the_calling_thread_and_brings_it_back() -> None:
    """Only inside ``entered()`` is the thread in the namespace, also after an error."""
    home = inode()

    def fail() -> None:
        with namespace.entered():
            seen.append(inode())
            raise RuntimeError

    seen: list[int] = []
    with Namespace() as namespace:
        with pytest.raises(RuntimeError):
            fail()
        there = os.fstat(namespace.fd).st_ino
    assert ([there], home) == (seen, inode())
    assert home != there


def test_other_threads_stay_where_they_are() -> None:
    """Entering a namespace moves no other thread of the process."""
    seen: list[int] = []
    with Namespace() as namespace:
        go, done = threading.Event(), threading.Event()

        def look() -> None:
            go.wait(5)
            seen.append(inode())
            done.set()

        thread = threading.Thread(target=look)
        thread.start()
        with namespace.entered():
            go.set()
            done.wait(5)
        thread.join()
    assert [inode()] == seen


def test_a_socket_stays_in_the_namespace_it_was_made_in() -> None:
    """An address that exists only inside can be bound from outside by such a socket."""
    with Namespace() as namespace:
        namespace.batch("ip", ["link set lo up", "addr add 192.0.2.1/32 dev lo"])
        with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("192.0.2.1", 0))
            assert "192.0.2.1" == sock.getsockname()[0]


def test_a_refused_batch_says_what_the_tool_said() -> None:
    """An error of ``ip`` arrives as a LabError with its words."""
    with Namespace() as namespace, pytest.raises(LabError, match="Cannot find device"):
        namespace.batch("ip", ["link set nothing up"])


def test_a_missing_tool_is_named_with_its_package() -> None:
    """Where the tool is not installed the error says what to install."""
    with Namespace() as namespace, pytest.raises(LabError, match="apt-get install iproute2"):
        namespace.batch("no-such-tool", [])


def test_a_child_that_takes_too_long_is_killed() -> None:
    """The time-out ends the child, not only the waiting."""
    with Namespace() as namespace:
        began = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            namespace.run(["sleep", "60"], timeout=0.2)
    assert time.monotonic() - began < 5


def test_a_child_dies_with_its_maker() -> None:
    """SIGKILL of the process that made the namespace kills the child in it."""
    script = (
        "import sys, time\n"
        "from reconciler.testing.namespaces import Namespace\n"
        "child = Namespace().popen(['sleep', '60'])\n"
        "time.sleep(0.2)\n"  # setpriv has to have asked for the signal.
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(  # noqa: S603 - our own interpreter.
        argv, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        child = int(maker.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        maker.kill()
    assert ended(child, within=2.0)


def test_without_any_permission_the_error_says_what_was_tried_and_what_to_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the kernel refuses both ways, both are named, and the settings that open them."""

    def refuse(name: str, *_: int) -> None:
        raise OSError(errno.EPERM, f"{name}: Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_call", refuse)
        with pytest.raises(LabError) as caught:
            enter_user_namespace()
    message = str(caught.value)
    for part in ("user namespace", "network namespace", "as root", "user.max_user_namespaces"):
        assert part in message


def ended(pid: int, *, within: float) -> bool:
    """Say whether the process ends within so many seconds."""
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state[0] == "Z":  # Ended; whoever inherited it has not looked yet.
            return True
        time.sleep(0.01)
    return False
