"""Read the kernel's tables. Needs no privilege and changes nothing."""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reconciler.core.model import Address, Key, Link, Neighbour, NextHops, Surroundings, Table
from reconciler.errors import KernelError
from reconciler.kernel import netlink

# linux/if_link.h: IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS halves every link message.
_LINKS = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + netlink.pack_attribute(29, struct.pack("=I", 8))
_ADDRESSES = bytes(8)
_NEIGHBOURS = bytes(12)
_NEXTHOPS = bytes(8)
_NEIGHBOUR_TABLES = bytes(4)
_KNOWN_TAILS = 4096


class NetlinkReader:
    """Reads over one netlink socket (``protocol.Reader``); not for two threads at a time.

    ``clock`` gives seconds of CLOCK_BOOTTIME, ``timeout`` is seconds for each
    datagram. The socket is opened at the first reading, in the network
    namespace of the thread that reads.
    """

    def __init__(self, clock: Callable[[], float], *, timeout: float = 5.0) -> None:
        self._clock = clock
        self._netlink = netlink.NetlinkSocket(timeout=timeout)

    def table(self) -> Table:
        """Read links, addresses, next hops and both families' neighbours.

        ``seen_at`` is the clock just before the neighbours are asked for.

        Raises:
            KernelError: the kernel could not be read whole.
        """
        around = self.surroundings()
        seen_at = self._clock()
        with _reading("neighbours"):
            neighbours = self._netlink.dump(
                netlink.RTM_GETNEIGH, _NEIGHBOURS, netlink.RTM_NEWNEIGH, _collect_neighbours
            )
        return Table(around.links, around.addresses, around.next_hops, neighbours, seen_at)

    def surroundings(self) -> Surroundings:
        """Read links, addresses and next hops, without the neighbours.

        Raises:
            KernelError: the kernel could not be read whole.
        """
        with _reading("links"):
            links = self._netlink.dump(
                netlink.RTM_GETLINK, _LINKS, netlink.RTM_NEWLINK, _collect_links
            )
        with _reading("addresses"):
            addresses = self._netlink.dump(
                netlink.RTM_GETADDR, _ADDRESSES, netlink.RTM_NEWADDR, _collect_addresses
            )
        return Surroundings(links, addresses, self._next_hops())

    def neighbour(self, key: Key) -> Neighbour | None:
        """Read one entry anew; None when there is none.

        RTM_GETNEIGH without dump, Linux 5.0 and later.

        Raises:
            KernelError: the kernel did not answer.
        """
        with _reading("neighbour"):
            try:
                payload = self._netlink.get(
                    netlink.RTM_GETNEIGH, netlink.pack_neighbour_request(key), netlink.RTM_NEWNEIGH
                )
            except OSError as error:
                # The last two: the link is gone, and its neighbours with it.
                if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
                    return None
                raise
        return netlink.parse_neighbour(payload)

    def ucast_solicit(self, ifindex: int) -> int:
        """How many unicast probes the link sends before it gives up: the fewest of both families.

        Raises:
            KernelError: the kernel did not answer, or knows no such link.
        """
        with _reading("neighbour parameters"):
            probes = self._netlink.dump(
                netlink.RTM_GETNEIGHTBL,
                _NEIGHBOUR_TABLES,
                netlink.RTM_NEWNEIGHTBL,
                lambda payloads: [
                    found.ucast
                    for payload in payloads
                    if (found := netlink.parse_probes(payload)) and found.ifindex == ifindex
                ],
            )
        if not probes:
            raise KernelError(
                f"The kernel has no neighbour parameters for link {ifindex}: it is gone. "
                "Nothing was changed on it; read the links again."
            )
        return min(probes)

    def close(self) -> None:
        """Close the socket; the next reading opens another."""
        self._netlink.close()

    def _next_hops(self) -> NextHops:
        """Read the gateways of all tables, then the nexthop objects that routes point to.

        In this order, since a route stands only on an object that stands already.
        """
        everywhere: set[Address] = set()
        default: set[Address] = set()
        default_ids: set[int] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            # The kernel itself leaves out the local and broadcast routes (strict checking).
            body = struct.pack("=8BI", family, 0, 0, 0, 0, 0, 0, netlink.RTN_UNICAST, 0)
            with _reading("routes"):
                routes = self._netlink.dump(
                    netlink.RTM_GETROUTE, body, netlink.RTM_NEWROUTE, _collect_routes
                )
            for route in routes:
                everywhere.update(route.gateways)
                if route.default:
                    default.update(route.gateways)
                    default_ids.add(route.nexthop_id)
        with _reading("nexthop objects"):
            try:
                objects = self._netlink.dump(
                    netlink.RTM_GETNEXTHOP, _NEXTHOPS, netlink.RTM_NEWNEXTHOP, _collect_nexthops
                )
            except OSError as error:
                # Kernels before 5.3 have no nexthop objects, so no route points to one.
                if error.errno != errno.EOPNOTSUPP:
                    raise
                objects = ()
        for hop in objects:
            if hop.number in default_ids:
                default_ids.update(hop.members)
        for hop in objects:
            if hop.gateway is not None:
                everywhere.add(hop.gateway)
                if hop.number in default_ids:
                    default.add(hop.gateway)
        return NextHops(frozenset(everywhere), frozenset(default))


def _collect_links(payloads: Iterator[bytes]) -> tuple[Link, ...]:
    return tuple(map(netlink.parse_link, payloads))


def _collect_addresses(payloads: Iterator[bytes]) -> frozenset[Address]:
    found = map(netlink.parse_local_address, payloads)
    return frozenset(address for address in found if address is not None)


def _collect_neighbours(payloads: Iterator[bytes]) -> tuple[Neighbour, ...]:
    found = map(netlink.parse_neighbour, payloads)
    return tuple(neighbour for neighbour in found if neighbour is not None)


def _collect_routes(payloads: Iterator[bytes]) -> set[netlink.Route]:
    # A million routes have a handful of different tails: only those are parsed and kept.
    found: set[netlink.Route] = set()
    known: set[bytes] = set()
    for payload in payloads:
        tail = netlink.route_tail(payload)
        if tail in known:
            continue
        route = netlink.parse_route(payload)
        if route is not None:
            found.add(route)
        if tail is not None and len(known) < _KNOWN_TAILS:
            known.add(tail)
    return found


def _collect_nexthops(payloads: Iterator[bytes]) -> tuple[netlink.Nexthop, ...]:
    return tuple(map(netlink.parse_nexthop, payloads))


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError(
            f"The kernel did not give its {what}: {error.strerror or error}. Nothing was changed. "
            "Run again; if it stays, see whether `ip neigh` works here: it needs AF_NETLINK "
            "sockets too (systemd's RestrictAddressFamilies), and Linux 5.0 or newer."
        ) from error
