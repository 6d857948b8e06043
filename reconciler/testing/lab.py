"""A VPC on one machine: a broker, its clients, the wire between them, and EC2's word on it.

One ``Vpc`` drives everything: the namespaces and their links, the wire that
answers ARP and neighbour discovery, the EC2 endpoint and instance metadata::

    with Lab(example(), host=HOST) as lab, lab.tcp_service(1883) as port:
        lab.connect(lab.owner("10.0.0.11").eni_id, "10.0.0.10", port)
        lab.set_neighbour("10.0.0.11", GONE_MAC)  # now the same times out
        lab.run(["arp-reconciler", "apply"])

The lab is made of namespaces of this process (``namespaces.py``), so it leaves
nothing behind, however the process ends.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from reconciler.core.model import Eni, Mac, format_mac, pack_address
from reconciler.errors import LabError
from reconciler.testing.echo import echo, reset_on_close
from reconciler.testing.endpoint import REGION, Ec2Endpoint
from reconciler.testing.example import example
from reconciler.testing.interfaces import (
    address_line,
    client_lines,
    disable_forwarding,
    disable_offload,
    host_lines,
)
from reconciler.testing.metadata import MetadataService
from reconciler.testing.namespaces import Namespace
from reconciler.testing.vpc import Vpc
from reconciler.testing.wire import Plug, Wire


class Lab:
    """A running one-machine VPC; a context manager.

    Args:
        vpc: what there is, to begin with.
        host: the instance id of the broker; its ENIs become eth0, eth1, ... of
            the broker's namespace, in the order of the description.
        clients: the ids of the ENIs that get a namespace of their own; None
            means every other live ENI of the broker's subnets.

    Attributes:
        broker: the broker's namespace.
        endpoint: the EC2 endpoint; set its ``vpc`` to let the API lag or lead.
        metadata: the instance metadata service; has a ``vpc``, too.
        switch: the wire itself.

    Raises:
        LabError: the lab cannot be built from this description, or not here.
    """

    def __init__(self, vpc: Vpc, *, host: str, clients: Iterable[str] | None = None) -> None:
        self._vpc = vpc
        self._host = host
        self._own = [eni for eni in vpc.enis if eni.instance_id == host]
        if not self._own:
            raise LabError(f"No ENI of the description belongs to the instance {host}.")
        subnets = {eni.subnet_id for eni in self._own}
        self._guests = (
            [e for e in vpc.enis if e.live and e.subnet_id in subnets and e not in self._own]
            if clients is None
            else [vpc.eni(eni_id) for eni_id in clients]
        )
        self._clients: dict[str, Namespace] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.broker = stack.enter_context(Namespace())
            for eni in self._guests:
                self._clients[eni.eni_id] = stack.enter_context(Namespace())
            plugs = [Plug(self.broker, f"eth{i}", eni) for i, eni in enumerate(self._own)]
            plugs += [Plug(self._clients[eni.eni_id], "eth0", eni) for eni in self._guests]
            self.switch = stack.enter_context(Wire(self._vpc, plugs))
            self._configure(plugs)
            self.endpoint = stack.enter_context(
                Ec2Endpoint(self._vpc, listener=self.listener("127.0.0.1"))
            )
            self.metadata = stack.enter_context(
                MetadataService(self._vpc, self._host, listener=self.listener("127.0.0.1"))
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ------------------------------------------------------------ who is who

    @property
    def wire(self) -> Vpc:
        """The truth that the wire answers from. Set it to recycle, move or terminate."""
        return self.switch.vpc

    @wire.setter
    def wire(self, vpc: Vpc) -> None:
        self.switch.vpc = vpc

    def owner(self, address: str) -> Eni:
        """Return the ENI that answers for the address on the wire of the broker's subnets.

        Raises:
            LabError: nobody does.
        """
        for own in self._own:
            owner = self.wire.owner(own.subnet_id, pack_address(address))
            if owner is not None:
                return owner
        raise LabError(f"Nobody on the wire of the broker's subnets owns {address}.")

    def broker_eni(self, subnet_id: str) -> Eni:
        """Return the broker's (first) ENI in a subnet.

        Raises:
            LabError: it has none there.
        """
        for own in self._own:
            if own.subnet_id == subnet_id:
                return own
        raise LabError(f"The broker has no ENI in {subnet_id}.")

    def client(self, eni_id: str) -> Namespace:
        """Return a client's namespace.

        Raises:
            LabError: that ENI has none.
        """
        try:
            return self._clients[eni_id]
        except KeyError:
            raise LabError(f"{eni_id} has no namespace: name it in Lab(clients=...).") from None

    # -------------------------------------------------------------- traffic

    def connect(
        self, eni_id: str, address: str, port: int, timeout: float = 2.0, source: str | None = None
    ) -> float:
        """Open a TCP connection from a client's namespace; return the seconds it took.

        ``timeout`` is in seconds; ``source`` is one of the client's addresses.

        Raises:
            TimeoutError: no answer came in time.
            OSError: the connection was refused or could not be tried.
        """
        family = _family(address)
        with self.client(eni_id).socket(family, socket.SOCK_STREAM) as sock:
            reset_on_close(sock).settimeout(timeout)
            if source is not None:
                sock.bind((source, 0))
            began = time.monotonic()
            sock.connect((address, port))
            return time.monotonic() - began

    def listener(self, address: str, port: int = 0) -> socket.socket:
        """Return a listening TCP socket in the broker's namespace; ``::`` hears IPv4, too.

        Raises:
            OSError: the address is not the broker's, or the port is taken.
        """
        sock = self.broker.socket(_family(address), socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(128)
        except BaseException:
            sock.close()
            raise
        return sock

    @contextmanager
    def tcp_service(self, port: int = 0) -> Iterator[int]:
        """Run an echo service on the broker's addresses of both families; yields its port."""
        listener = self.listener("::", port)
        with echo(listener):
            yield listener.getsockname()[1]

    def requests(self, address: str) -> int:
        """Count the ARP requests or solicitations for the address so far, in any subnet."""
        packed = pack_address(address)
        asked = dict(self.switch.asked)
        return sum(count for (_, target), count in asked.items() if target == packed)

    # ------------------------------------------------- the broker's neighbours

    def neighbours(self) -> list[dict[str, Any]]:
        """Return the broker's table, whole, as ``ip -j -s neigh`` tells it: not our own reader.

        Raises:
            LabError: ``ip`` failed.
        """
        done = self.broker.run(["ip", "-j", "-s", "neigh", "show", "nud", "all"])
        if done.returncode:
            raise LabError(f"ip neigh show: {done.stderr.strip()}")
        entries: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return entries

    def neighbour(self, address: str, link: str = "eth0") -> dict[str, Any] | None:
        """Return one entry of ``neighbours()``, or None."""
        for entry in self.neighbours():
            if (entry["dst"], entry["dev"]) == (address, link):
                return entry
        return None

    def set_neighbour(
        self,
        address: str,
        lladdr: Mac,
        *,
        nud: str = "stale",
        link: str = "eth0",
        options: str = "",
    ) -> None:
        """Plant an entry, right or wrong, by ``ip neigh replace``.

        ``options`` are further words for ``ip``: ``extern_learn``, ``router``,
        ``managed``, ``protocol zebra``.

        Raises:
            LabError: ``ip`` or the kernel refused.
        """
        line = f"neigh replace {address} lladdr {format_mac(lladdr)} nud {nud} dev {link} {options}"
        self.broker.batch("ip", [line])

    def delete_neighbour(self, address: str, link: str = "eth0") -> None:
        """Delete an entry by ``ip neigh del``.

        Raises:
            LabError: there is none.
        """
        self.broker.batch("ip", [f"neigh del {address} dev {link}"])

    def quicken(
        self, *, base_reachable: int = 2000, delay_probe: int = 1000, retrans: int = 300
    ) -> None:
        """Shorten the broker's neighbour timers, in milliseconds, so that tests need not wait.

        IPv4's locktime follows ``retrans``, which it equals by default: were it
        longer than all probes together, no probe could ever cure an entry.

        Raises:
            LabError: the kernel refused.
        """
        timers = f"base_reachable {base_reachable} delay_probe {delay_probe} retrans {retrans}"
        tables = {"arp_cache": f"{timers} locktime {retrans}", "ndisc_cache": timers}
        self.broker.batch(
            "ip",
            [
                f"ntable change name {table} dev eth{index} {values}"
                for index in range(len(self._own))
                for table, values in tables.items()
            ],
        )

    # ------------------------------------------------------- things that move

    def add_address(self, eni_id: str, address: str) -> None:
        """Configure an address in a client's namespace, such as a pod's out of a prefix.

        Raises:
            LabError: that ENI has no namespace, or the kernel refused.
        """
        self.client(eni_id).batch("ip", [address_line(pack_address(address))])

    def recycle(self, address: str, to_eni: str, *, announced: bool = True) -> None:
        """Give an address to another ENI of its subnet: on the wire, and in its namespace.

        ``announced`` False leaves the EC2 endpoint with the old word. The
        broker is told nothing, as in a VPC.

        Raises:
            LabError: the kernel refused the address.
        """
        packed = pack_address(address)
        old = self.wire.owner(self.wire.eni(to_eni).subnet_id, packed)
        if old is not None and old.eni_id in self._clients:
            self._clients[old.eni_id].batch("ip", [address_line(packed, verb="del")])
        self.wire = self.wire.with_moved(address, to_eni)
        if announced:
            self.endpoint.vpc = self.endpoint.vpc.with_moved(address, to_eni)
        if to_eni in self._clients:
            self.add_address(to_eni, address)

    # ------------------------------------------------------ the broker's programs

    def environment(self) -> dict[str, str]:
        """Return the variables under which a program in the broker's namespace sees this EC2."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "AKIALABLABLABLABLABL",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "*",
        }

    def run(
        self, argv: Sequence[str], *, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the broker's namespace, under ``environment()``, to its end.

        ``timeout`` is in seconds; a program that takes longer is killed.

        Raises:
            subprocess.TimeoutExpired: it was killed.
        """
        return self.broker.run(argv, env=self._whole_environment(), timeout=timeout)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program in the broker's namespace; the lab kills it at the end if need be.

        ``options`` are those of ``subprocess.Popen``.
        """
        child = self.broker.popen(argv, env=self._whole_environment(), **options)
        self._stack.callback(_end, child)
        return child

    def _whole_environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "ARP_RECONCILER_"))
        }
        return kept | self.environment()

    def _configure(self, plugs: Sequence[Plug]) -> None:
        for namespace in (self.broker, *self._clients.values()):
            disable_forwarding(namespace)
        for index, eni in enumerate(self._own):
            subnet = self._vpc.subnet(eni.subnet_id)
            self.broker.batch("ip", host_lines(eni, subnet, index))
        for eni in self._guests:
            subnet = self._vpc.subnet(eni.subnet_id)
            near = [own for own in self._own if own.subnet_id == eni.subnet_id]
            self._clients[eni.eni_id].batch("ip", client_lines(eni, subnet, near))
        for plug in plugs:
            disable_offload(plug.namespace, plug.link)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _end(child: subprocess.Popen[str]) -> None:
    with child:
        child.kill()


__all__ = ["Lab", "example"]
