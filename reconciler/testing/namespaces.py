"""Anonymous network namespaces, with or without root, that die with this process.

A namespace lives as long as something refers to it. Ours is referred to by one
descriptor, by the sockets made inside and by the children run inside, and by
nothing else: no name, no mount, no process that holds it. So whatever ends this
process ends the namespaces, SIGKILL included (about 60 ms later on Linux 6.18).

Namespaces belong to threads. Only the calling thread moves, and only inside
``entered()``; a socket stays in the namespace it was made in, whoever uses it.
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from reconciler.errors import LabError

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)

_ADVICE = (
    "Run it as root (a container's root also needs the capabilities SYS_ADMIN and NET_ADMIN),"
    " or allow user namespaces: sysctl -w user.max_user_namespaces=10000,"
    " on Debian also kernel.unprivileged_userns_clone=1,"
    " on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0."
)


def _call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns exist from Python 3.12 on.
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter_user_namespace() -> None:
    """Make network namespaces possible for this process; root needs nothing and gets nothing.

    Without root the whole process moves into a user namespace where it is root,
    and into a network namespace whose only link is loopback: the machine's own
    network is out of its reach from then on. That needs a process with one
    thread (user_namespaces(7)), so ask before any other is started.

    Raises:
        LabError: neither way is open here; says what was tried and what to allow.
    """
    try:
        Namespace().close()
    except LabError as error:
        refused = error
    else:
        return
    uid, gid = os.geteuid(), os.getegid()
    try:
        # NEWNET now: nobody can come back into a namespace of the parent's later.
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            Path("/proc/self", name).write_text(line, encoding="utf-8")
        with Namespace.own() as home:
            home.batch("ip", ["link set lo up"])
    except OSError as error:
        threads = threading.active_count()
        crowd = f" (this process has {threads} threads and may have one)" if threads > 1 else ""
        raise LabError(
            f"Cannot make a user namespace: {error}{crowd}. Before that: {refused}"
        ) from error


class Namespace:
    """A network namespace of this process' own; a context manager that lets go of it.

    Raises:
        LabError: the kernel refused to make one.
    """

    def __init__(self) -> None:
        home = _own_namespace()
        try:
            _call("unshare", CLONE_NEWNET)
            try:
                self.fd = _own_namespace()
            finally:
                _call("setns", home, CLONE_NEWNET)
        except OSError as error:
            raise LabError(f"Cannot make a network namespace: {error}. {_ADVICE}") from error
        finally:
            os.close(home)

    @classmethod
    def own(cls) -> Self:
        """Return the calling thread's present namespace."""
        namespace = cls.__new__(cls)
        namespace.fd = _own_namespace()
        return namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the namespace; it dies when its sockets and children are gone, too."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def path(self) -> str:
        """The name by which a child that was passed ``fd`` can refer to this namespace."""
        return f"/proc/self/fd/{self.fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace, and back at the end."""
        home = _own_namespace()
        try:
            _call("setns", self.fd, CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", home, CLONE_NEWNET)
        finally:
            os.close(home)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket inside. The caller closes it.

        Raises:
            OSError: the kernel refused.
        """
        with self.entered():
            return socket.socket(family, kind, protocol)

    def popen(
        self, argv: Sequence[str], *, pass_fds: Iterable[int] = (), **options: Any
    ) -> subprocess.Popen[str]:
        """Start a child inside; ``options`` are those of ``subprocess.Popen``.

        The kernel kills the child when the *thread* that started it ends
        (PR_SET_PDEATHSIG, prctl(2)), so start it from one that lasts. The
        signal is asked for by ``setpriv``: code between fork and exec is unsafe
        in a process with threads.

        Raises:
            LabError: ``setpriv`` is missing.
        """
        guarded = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        try:
            with self.entered():
                return subprocess.Popen(  # noqa: S603 - the lab runs what its user asks for.
                    guarded, text=True, pass_fds=tuple(pass_fds), **options
                )
        except FileNotFoundError as error:
            raise LabError(f"{error}. Install: apt-get install util-linux") from error

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 10.0,
        env: Mapping[str, str] | None = None,
        pass_fds: Iterable[int] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a child inside to its end and return its code and output.

        ``timeout`` is in seconds; a child that takes longer is killed.

        Raises:
            LabError: ``setpriv`` is missing.
            subprocess.TimeoutExpired: the child was killed.
        """
        pipe = subprocess.PIPE
        child = self.popen(argv, pass_fds=pass_fds, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        with child:
            try:
                out, err = child.communicate(stdin, timeout=timeout)
            except BaseException:
                child.kill()
                raise
        return subprocess.CompletedProcess(list(argv), child.returncode, out, err)

    def batch(self, tool: str, lines: Iterable[str], *, pass_fds: Iterable[int] = ()) -> None:
        """Give ``ip`` or ``bridge`` many commands at once.

        Raises:
            LabError: one was refused, or iproute2 is missing; says what the tool said.
        """
        text = "".join(f"{line}\n" for line in lines)
        done = self.run([tool, "-batch", "-"], stdin=text, pass_fds=pass_fds)
        if done.returncode:
            missing = " Install: apt-get install iproute2" if done.returncode == 127 else ""
            raise LabError(f"{tool} refused ({done.returncode}): {done.stderr.strip()}.{missing}")


__all__ = ["Namespace", "enter_user_namespace"]
