"""The wire of a VPC: a bridge a subnet, and a responder that alone answers for addresses.

In a VPC nothing is flooded and no instance hears another's ARP: the host card
answers from the mapping of addresses to ENIs. So the bridges neither flood nor
learn, know every MAC from the start, and a responder listens on each port and
answers from ``vpc``. It sends from the port's own hardware address.
"""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Self

from reconciler.core.model import Address, Eni, Mac, Prefix, Subnet, format_mac
from reconciler.testing import frames
from reconciler.testing.namespaces import Namespace
from reconciler.testing.poller import Poller
from reconciler.testing.vpc import Vpc

# The router answers at the second address of every CIDR, with a MAC that is no ENI's.
ROUTER_MAC: Mac = b"\x0a\x52\x00\x00\x00\x01"

_IS_ARP_REQUEST = ((frames.ETHERTYPE_AT, frames.ARP + b"\x00\x01\x08\x00\x06\x04\x00\x01"),)
_IS_SOLICITATION = (
    (frames.ETHERTYPE_AT, frames.IPV6),
    (frames.IPV6_NEXT_HEADER_AT, b"\x3a"),
    (frames.ICMPV6_TYPE_AT, b"\x87"),
)


@dataclass(frozen=True)
class Plug:
    """Where an ENI is plugged in: the link of that name in that namespace."""

    namespace: Namespace
    link: str
    eni: Eni


def router_address(cidr: Prefix) -> Address:
    """Return the address of a CIDR's router: base + 1."""
    size = len(cidr.address)
    return (int.from_bytes(cidr.address, "big") + 1).to_bytes(size, "big")


class Wire:
    """Bridges, ports and the responder, in a namespace of their own.

    ``vpc`` is what the responder answers from; set it to recycle, move and
    terminate. A context manager; everything is gone when the block has ended.
    """

    def __init__(self, vpc: Vpc, plugs: Sequence[Plug]) -> None:
        self.vpc = vpc
        self.asked: Counter[tuple[str, Address]] = Counter()
        self._plugs = {f"w{index}": plug for index, plug in enumerate(plugs)}
        self._ports = {plug.eni.eni_id: port for port, plug in self._plugs.items()}
        self._subnets = {port: vpc.subnet(plug.eni.subnet_id) for port, plug in self._plugs.items()}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.namespace = stack.enter_context(Namespace())
            self._lay()
            poller = Poller("responder")
            for tests in (_IS_ARP_REQUEST, _IS_SOLICITATION):
                sock = stack.enter_context(self._listen(*tests))
                poller.watch(sock, partial(self._respond, sock))
            stack.enter_context(poller)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def relayed(self, from_eni: str, to_eni: str, address: Address, port: int) -> Iterator[None]:
        """Carry one TCP flow to an ENI whatever the destination MAC of its frames.

        So does everything that returns a flow by its state and not by the MAC:
        a load balancer with client-address preservation, for one. ``address``
        and ``port`` are the flow's end at ``to_eni``. Frames that carry the
        right MAC are left to the bridge.
        """
        lladdr = self.vpc.eni(to_eni).mac
        port_in, port_out = self._ports[from_eni], self._ports[to_eni]
        to_address = (
            ((frames.ETHERTYPE_AT, frames.IPV4), (frames.IPV4_DESTINATION_AT, address))
            if len(address) == 4
            else ((frames.ETHERTYPE_AT, frames.IPV6), (frames.IPV6_DESTINATION_AT, address))
        )

        def relay() -> None:
            frame, sender = sock.recvfrom(65536)
            ports = frames.tcp_ports(frame)
            ours = sender[0] == port_in and ports is not None and ports[1] == port
            if ours and frame[:6] != lladdr:
                _send(sock, lladdr + frame[6:], port_out)

        with self._listen(*to_address) as sock, Poller("relay") as poller:
            poller.watch(sock, relay)
            yield

    def _lay(self) -> None:
        bridges: dict[str, str] = {}
        links, ports = [], []
        for subnet in {subnet.subnet_id: subnet for subnet in self._subnets.values()}:
            bridge = bridges[subnet] = f"br{len(bridges)}"
            links += [
                f"link add {bridge} type bridge stp_state 0 mcast_snooping 0",
                f"link set {bridge} addrgenmode none",
                f"link set {bridge} up",
            ]
        for port, plug in self._plugs.items():
            mac = format_mac(plug.eni.mac)
            peer = f"{plug.link} address {mac} netns {plug.namespace.path}"
            links += [
                f"link add {port} address {format_mac(_port_mac(port))} type veth peer name {peer}",
                f"link set {port} master {bridges[plug.eni.subnet_id]} addrgenmode none",
                f"link set {port} up",
            ]
            ports += [
                f"link set dev {port} flood off mcast_flood off bcast_flood off learning off",
                f"fdb add {mac} dev {port} master static",
            ]
        inside = {plug.namespace.fd for plug in self._plugs.values()}
        self.namespace.batch("ip", links, pass_fds=inside)
        self.namespace.batch("bridge", ports)

    def _listen(self, *tests: tuple[int, bytes]) -> socket.socket:
        # A socket of ETH_P_ARP would see nothing on a bridge's port. This one
        # hears every port, and until its filter is in place every frame.
        every = socket.htons(frames.ETH_P_ALL)
        sock = self.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, every)
        frames.accept_only(sock, *tests)
        return sock

    def _respond(self, sock: socket.socket) -> None:
        frame, (port, *_) = sock.recvfrom(2048)
        subnet = self._subnets.get(port)
        request = frames.parse_request(frame)
        if subnet is None or request is None:
            return
        self.asked[subnet.subnet_id, request.target] += 1
        router = any(request.target == router_address(cidr) for cidr in subnet.cidrs)
        lladdr = ROUTER_MAC if router else self._lladdr(subnet, request.target)
        # A host that asks for its own address wants to hear nothing.
        if lladdr is not None and lladdr != request.sender_mac:
            reply = frames.answer(request, lladdr, source=_port_mac(port), router=router)
            _send(sock, reply, port)

    def _lladdr(self, subnet: Subnet, address: Address) -> Mac | None:
        owner = self.vpc.owner(subnet.subnet_id, address)
        return owner.mac if owner else None


def _port_mac(port: str) -> Mac:
    return b"\x0a\x57" + int(port.removeprefix("w")).to_bytes(4, "big")


def _send(sock: socket.socket, frame: bytes, port: str) -> None:
    # A link that was taken down or away meanwhile is no concern of the others.
    with suppress(OSError):
        sock.sendto(frame, (port, 0))


__all__ = ["ROUTER_MAC", "Plug", "Wire", "router_address"]
