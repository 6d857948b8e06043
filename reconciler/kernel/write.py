"""The one place that changes the kernel.

Only ``Writer`` holds a transmitter, and every change passes its ``check``: so
observe, the hold file and the age of the evidence are decided here and nowhere
else. The kernel does not protect PERMANENT, NOARP or flagged entries against
an administrative write, so the entry is read again just before, and left alone
unless it is the very one that was judged and one that may be touched.
"""

import errno
import socket
import struct
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from reconciler.core.model import Evidence, Key, Mac, Neighbour, Ntf, Nud, format_mac
from reconciler.errors import CapabilityError, HoldRefused, KernelError, StaleRefused
from reconciler.kernel import netlink
from reconciler.kernel.protocol import Reader, Transmitter

# The contract's bound between the end of the confirming reading and the write, in seconds.
CONFIRMATION_MAX_AGE = 30.0

_FIXED_STATES = Nud.NOARP | Nud.PERMANENT
_FIXED_FLAGS = Ntf.PROXY | Ntf.EXT_LEARNED | Ntf.ROUTER
_ACK_TIMEOUT = 5


class Written(StrEnum):
    """What became of one change."""

    DONE = "done"
    SKIPPED = "skipped"
    CHANGED = "changed"
    ABSENT = "absent"


class Writer:
    """Changes neighbours: the only holder of a transmitter.

    ``observe`` sends nothing at all. ``hold_file`` stops every change while it
    exists; None when there is none to look for. ``clock`` gives seconds of
    CLOCK_BOOTTIME, the clock of the evidence.
    """

    def __init__(
        self,
        reader: Reader,
        transmitter: Transmitter,
        *,
        observe: bool,
        hold_file: Path | None,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._transmitter = transmitter
        self._observe = observe
        self._hold_file = hold_file
        self._clock = clock

    def check(self, evidence: Evidence) -> None:
        """Refuse unless the hold file is absent and the evidence is young and in order.

        Raises:
            HoldRefused: the hold file exists, or cannot be checked.
            StaleRefused: the reading did not begin after the entry was seen
                wrong, or ended more than 30 s ago, or in the future.
        """
        self._check_hold()
        now = self._clock()
        if not evidence.seen_at < evidence.reading_began <= evidence.reading_ended:
            raise StaleRefused(
                "The reading of EC2 did not begin after the entry was seen wrong, so it proves "
                "nothing about it; the entry was left as it is. Read EC2 again and judge anew. "
                "No setting allows older readings, not even authority.max_age."
            )
        if not evidence.reading_ended <= now <= evidence.reading_ended + CONFIRMATION_MAX_AGE:
            raise StaleRefused(
                f"The confirming reading of EC2 ended {now - evidence.reading_ended:.1f} s ago, "
                f"not between 0 and {CONFIRMATION_MAX_AGE:.0f} s; the entry was left as it is. "
                "Read EC2 again and judge anew. No setting allows older readings, not even "
                "authority.max_age."
            )

    def require_permission(self) -> None:
        """Ask the kernel whether this process may write here; observing needs no permission.

        Raises:
            CapabilityError: it may not, or the kernel could not be asked.
        """
        if self._observe:
            return
        try:
            permitted = self._transmitter.permitted()
            why = "CAP_NET_ADMIN is missing"
        except OSError as error:
            permitted = False
            why = f"the kernel could not be asked ({error.strerror or error})"
        if not permitted:
            raise CapabilityError(
                f"This process may not change neighbours: {why}. Nothing was changed. Run as root, "
                "or give it the capability (systemd: AmbientCapabilities=CAP_NET_ADMIN; "
                "capsh or setpriv: an ambient capability). `plan` works without."
            )

    def delete(self, judged: Neighbour, evidence: Evidence) -> Written:
        """Delete the entry that was judged, if it still stands as it was.

        ABSENT: it is gone, or has no link-layer address any more; deleting that
        would only drop the packets which wait for the answer.

        Raises:
            HoldRefused, StaleRefused: see ``check``.
            KernelError: the entry could not be read again.
            OSError: the kernel refused.
        """
        return self._change(judged, evidence, self._transmitter.delete)

    def probe(self, judged: Neighbour, evidence: Evidence) -> Written:
        """Let the kernel verify the entry that was judged, if it still stands as it was.

        On a link whose ``ucast_solicit`` is 0 this is a delete; the caller
        decides with that in mind.

        Raises:
            HoldRefused, StaleRefused: see ``check``.
            KernelError: the entry could not be read again.
            OSError: the kernel refused.
        """
        return self._change(judged, evidence, self._transmitter.probe)

    def resolve(self, key: Key, evidence: Evidence) -> Written:
        """Ask the wire for an address; DONE also where an entry stands, and is left alone.

        Only one that stands as FAILED, as a delete leaves an entry in use, is
        asked for again. ABSENT: that one went away in between.

        Raises:
            HoldRefused, StaleRefused: see ``check``.
            KernelError: the entry could not be read.
            OSError: the kernel refused.
        """
        self.check(evidence)
        if self._observe:
            return Written.SKIPPED
        try:
            self._transmitter.resolve(key)
        except FileExistsError:
            standing = self._reader.neighbour(key)
            if standing is not None and standing.state == Nud.FAILED and not _fixed(standing):
                return _send(self._transmitter.reask, key)
        return Written.DONE

    def replace(self, key: Key, lladdr: Mac, evidence: Evidence) -> Written:
        """Write the owner's MAC as STALE, only where the wire has not answered another one.

        Raises:
            HoldRefused, StaleRefused: see ``check``.
            KernelError: the entry could not be read.
            OSError: the kernel refused.
        """
        self.check(evidence)
        if self._observe:
            return Written.SKIPPED
        standing = self._reader.neighbour(key)
        if standing is not None and (_fixed(standing) or not _unresolved(standing)):
            return Written.CHANGED
        self._transmitter.replace(key, lladdr)
        return Written.DONE

    def verify(self, seen: Neighbour) -> bool:
        """Let the kernel verify an entry of which nothing is known; say whether it does.

        The one change that rests on no reading: for the neighbour without which
        there can be no reading. A probe writes nothing, and the kernel believes
        nobody but the wire. The caller has seen that the link's
        ``ucast_solicit`` is not 0.

        Raises:
            HoldRefused: the hold file exists, or cannot be checked.
            KernelError: the entry could not be read again.
            OSError: the kernel refused.
        """
        self._check_hold()
        if self._observe:
            return False
        return self._send_if_same(seen, self._transmitter.probe) is Written.DONE

    def _change(
        self, judged: Neighbour, evidence: Evidence, transmit: Callable[[Key], None]
    ) -> Written:
        self.check(evidence)
        if self._observe:
            return Written.SKIPPED
        return self._send_if_same(judged, transmit)

    def _send_if_same(self, judged: Neighbour, transmit: Callable[[Key], None]) -> Written:
        standing = self._reader.neighbour(judged.key)
        if standing is None:
            return Written.ABSENT
        if _fixed(standing):
            return Written.CHANGED
        if _unresolved(standing):
            return Written.ABSENT
        if not standing.same_entry(judged):
            return Written.CHANGED
        return _send(transmit, judged.key)

    def _check_hold(self) -> None:
        if self._hold_file is None:
            return
        try:
            # A link that points nowhere holds too: somebody put it there.
            self._hold_file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise HoldRefused(
                f"The hold file {self._hold_file} cannot be checked ({error.strerror or error}), "
                "so it counts as present: nothing is changed. Make its folder readable, or "
                "name another one (guard.hold_file)."
            ) from error
        raise HoldRefused(
            f"The hold file {self._hold_file} exists: nothing is changed while it does. Remove it "
            "to let repairs go on (guard.hold_file)."
        )


def _fixed(entry: Neighbour) -> bool:
    """Say whether an entry is somebody's decision, which no repair may undo."""
    return bool(entry.state & _FIXED_STATES or entry.flags & _FIXED_FLAGS or entry.flags >> 8)


def _unresolved(entry: Neighbour) -> bool:
    return entry.lladdr is None or entry.state in (Nud.NONE, Nud.INCOMPLETE, Nud.FAILED)


def _send(transmit: Callable[[Key], None], key: Key) -> Written:
    try:
        transmit(key)
    except FileNotFoundError:
        return Written.ABSENT
    return Written.DONE


class NetlinkTransmitter:
    """Sends single changes with pyroute2 (``protocol.Transmitter``).

    pyroute2's ``neigh()`` writes PERMANENT where no state is given, cannot send
    a change without NLM_F_REPLACE, and drives an event loop for each call; its
    ``IPRSocket`` does none of that: one plain blocking socket, messages packed
    from their fields. It is opened at the first change, stays in the network
    namespace of the thread that opened it, works in any thread and inside a
    running event loop, and is opened anew after any fault but a plain refusal.
    Not for two threads at a time.
    """

    def __init__(self) -> None:
        self._socket: Any = None
        self._sequence = 0

    def delete(self, key: Key) -> None:
        """Send RTM_DELNEIGH.

        Raises:
            OSError: the kernel refused (ENOENT: there is none).
        """
        self._send(netlink.RTM_DELNEIGH, 0, key)

    def replace(self, key: Key, lladdr: Mac) -> None:
        """Write the lladdr as STALE; another one that is valid already stays as it is.

        The kernel's __neigh_update() overrides a valid lladdr only for
        NLM_F_REPLACE, which is not sent.

        Raises:
            OSError: the kernel refused.
        """
        self._send(netlink.RTM_NEWNEIGH, netlink.NLM_F_CREATE, key, state=Nud.STALE, lladdr=lladdr)

    def probe(self, key: Key) -> None:
        """Set PROBE on an entry that stands.

        Raises:
            OSError: the kernel refused (ENOENT: there is none; EINVAL: it has no lladdr).
        """
        self._send(netlink.RTM_NEWNEIGH, 0, key, state=Nud.PROBE)

    def resolve(self, key: Key) -> None:
        """Ask the wire for an address that has no entry.

        Raises:
            OSError: the kernel refused (EEXIST: an entry stands, and is untouched).
        """
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
        self._send(netlink.RTM_NEWNEIGH, flags, key, ntf=Ntf.USE)

    def reask(self, key: Key) -> None:
        """Ask the wire again for an entry that is FAILED.

        Raises:
            OSError: the kernel refused (ENOENT: there is none).
        """
        self._send(netlink.RTM_NEWNEIGH, 0, key, ntf=Ntf.USE)

    def permitted(self) -> bool:
        """Ask the kernel whether this process may write neighbours here; changes nothing.

        rtnetlink_rcv_msg() answers EPERM without CAP_NET_ADMIN before
        neigh_delete() misses the address (EINVAL).

        Raises:
            OSError: the kernel could not be asked.
        """
        try:
            self._send(netlink.RTM_DELNEIGH, 0, None)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                return False
            if error.errno != errno.EINVAL:
                raise
        return True

    def close(self) -> None:
        """Close the socket; the next change opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(
        self,
        kind: int,
        flags: int,
        key: Key | None,
        *,
        # The kernel does not read the state of a delete, nor with NTF_USE.
        state: Nud = Nud.NONE,
        ntf: int = 0,
        lladdr: Mac | None = None,
    ) -> None:
        """Send one request and wait for its acknowledgement."""
        # Importing pyroute2 costs 0.1-0.3 s and 25 MiB, which a look without change never needs.
        from pyroute2.netlink.rtnl.ndmsg import ndmsg  # noqa: PLC0415 - the sentence above.

        message = ndmsg()
        message["family"] = socket.AF_INET
        message["state"] = int(state)
        message["flags"] = int(ntf)
        if key is not None:
            ipv4 = len(key.address) == 4
            family = socket.AF_INET if ipv4 else socket.AF_INET6
            message["family"] = family
            message["ifindex"] = key.ifindex
            message["attrs"].append(("NDA_DST", socket.inet_ntop(family, key.address)))
        if lladdr is not None:
            message["attrs"].append(("NDA_LLADDR", format_mac(lladdr)))
        try:
            self._exchange(message, kind, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK | flags)
        except netlink.NetlinkRefusal as error:
            raise OSError(error.errno, error.strerror) from None
        except BaseException:
            self.close()
            raise

    def _exchange(self, message: Any, kind: int, flags: int) -> None:
        sock = self._opened()
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        sock.put(message, kind, flags, msg_seq=self._sequence)
        port = sock.socket.getsockname()[0]
        received = iter(lambda: sock.recv(16384), b"")
        try:
            for _ in netlink.answers(received, self._sequence, port, kind):
                pass
        except BlockingIOError as error:
            raise TimeoutError(
                errno.ETIMEDOUT, f"the kernel did not acknowledge within {_ACK_TIMEOUT} s"
            ) from error
        except KernelError as error:
            raise OSError(errno.EPROTO, str(error)) from error

    def _opened(self) -> Any:
        if self._socket is None:
            from pyroute2.netlink.rtnl.iprsocket import IPRSocket  # noqa: PLC0415 - as above.

            self._socket = IPRSocket(groups=0, ext_ack=True)
            # pyroute2 has no request time-out of its own.
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _ACK_TIMEOUT, 0)
            )
        return self._socket
