"""Puts the rooms together: the real kernel, the real authority, one pass."""

import time
from collections.abc import Collection
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from reconciler.aws.authority import Authority
from reconciler.aws.client import Ec2
from reconciler.aws.identity import identify
from reconciler.aws.metadata import Metadata
from reconciler.clock import boottime
from reconciler.core.memory import Memory
from reconciler.core.model import Address, Host, Mac, Reading
from reconciler.kernel.read import NetlinkReader
from reconciler.kernel.write import NetlinkTransmitter, Writer
from reconciler.passes import Pass
from reconciler.repair import Repairer
from reconciler.settings import Settings


class Ec2Source:
    """EC2 and instance metadata as the one source of truth (``passes.Source``)."""

    def __init__(
        self, metadata: Metadata, ec2: Ec2, authority: Authority, settings: Settings
    ) -> None:
        self._metadata = metadata
        self._ec2 = ec2
        self._authority = authority
        self._scope = settings.authority.scope

    def identify(self, macs: Collection[Mac]) -> Host:
        """Say which instance this is; see ``passes.Source``."""
        return identify(self._metadata, self._authority, macs)

    def read(self, host: Host, subnet_ids: frozenset[str], vpc_ids: frozenset[str]) -> Reading:
        """Read the subnets whole; see ``passes.Source``."""
        return self._authority.read(host, subnet_ids, vpc_ids, self._scope)

    def read_targets(
        self,
        pairs: Collection[tuple[str, Address]],
        subnet_ids: frozenset[str],
        macs: Collection[Mac] = (),
    ) -> Reading:
        """Read exactly these addresses and MACs; see ``passes.Source``."""
        return self._authority.read_targets(pairs, subnet_ids, macs)

    def endpoint_addresses(self) -> frozenset[Address]:
        """Return where EC2 is asked; see ``passes.Source``."""
        return self._ec2.endpoint_addresses()


class Assembly:
    """Sockets, session and client for the life of the process; closed at its end.

    ``deadline`` bounds the attempts at one reading, ``read_timeout`` the wait for
    one answer; both in seconds.
    """

    def __init__(self, *, deadline: float = 8.0, read_timeout: float = 10.0) -> None:
        self._stack = ExitStack()
        self._reader = NetlinkReader(boottime)
        self._stack.callback(self._reader.close)
        self._transmitter = NetlinkTransmitter()
        self._stack.callback(self._transmitter.close)
        self._metadata = Metadata()
        self._stack.callback(self._metadata.close)
        self._ec2 = Ec2(self._metadata, read_timeout=read_timeout)
        self._stack.callback(self._ec2.close)
        self._authority = Authority(self._ec2, deadline=deadline, clock=boottime)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def make_pass(self, settings: Settings, *, dry_run: bool, memory: Memory | None = None) -> Pass:
        """Make a pass under these settings; the sockets and the client stay."""
        writer = Writer(
            self._reader,
            self._transmitter,
            observe=dry_run or settings.mode == "observe",
            hold_file=settings.guard.hold_file,
            clock=boottime,
        )
        return Pass(
            self._reader,
            writer,
            Ec2Source(self._metadata, self._ec2, self._authority, settings),
            settings,
            Repairer(self._reader, writer, clock=boottime, sleep=time.sleep),
            clock=boottime,
            memory=memory,
        )
