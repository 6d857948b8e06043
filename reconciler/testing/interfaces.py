"""How the links of the lab's namespaces are configured, as lines for ``ip -batch``."""

import array
import fcntl
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from reconciler.core.model import Address, Eni, Mac, Subnet, format_address, format_mac
from reconciler.testing.namespaces import Namespace
from reconciler.testing.wire import router_address

_SIOCETHTOOL = 0x8946
# Transmit checksums, TCP segmentation, generic segmentation (linux/ethtool.h).
_ETHTOOL_SETTERS = (0x17, 0x1F, 0x24)


def host_lines(eni: Eni, subnet: Subnet, index: int) -> list[str]:
    """Configure one link of the broker as its image does: addresses, routes, default route.

    The default route is the first link's. Every further link has a routing
    table of its own, chosen by source address, as on EC2 (subnets may overlap).
    """
    link = f"eth{index}"
    lines = _up(link, eni.mac)
    for address in eni.addresses:
        length = next((c.length for c in subnet.cidrs if c.covers(address)), len(address) * 8)
        lines.append(address_line(address, link=link, length=length))
    routers = [format_address(router_address(c)) for c in subnet.cidrs if len(c.address) == 4]
    table = "main" if index == 0 else str(100 + index)
    if index:
        lines += [f"route add {cidr} dev {link} table {table}" for cidr in subnet.cidrs]
        lines += [f"rule add from {format_address(a)} lookup {table}" for a in eni.addresses]
    lines += [f"route add default via {router} dev {link} table {table}" for router in routers]
    return lines


def client_lines(eni: Eni, subnet: Subnet, brokers: Iterable[Eni]) -> list[str]:
    """Configure a client, with its entries for the brokers pinned.

    A client that asked a broker for its MAC would tell it its own by asking,
    and heal the entry under test by accident. Every address has full length and
    the subnet a route of its own, so that each can go without the others.
    """
    return [
        *_up("eth0", eni.mac),
        *(address_line(address) for address in eni.addresses),
        *(f"route add {cidr} dev eth0" for cidr in subnet.cidrs),
        *(
            f"neigh add {format_address(address)} lladdr {format_mac(broker.mac)}"
            " dev eth0 nud permanent"
            for broker in brokers
            for address in broker.addresses
        ),
    ]


def address_line(
    address: Address, *, verb: str = "add", link: str = "eth0", length: int | None = None
) -> str:
    """Add or delete an address; at once usable, without duplicate address detection."""
    nodad = " nodad" if verb == "add" and len(address) == 16 else ""
    return f"addr {verb} {format_address(address)}/{length or len(address) * 8} dev {link}{nodad}"


def disable_offload(namespace: Namespace, link: str) -> None:
    """Make the link send whole frames with their checksums, as a relay must have them.

    Raises:
        OSError: the kernel refused.
    """
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for setter in _ETHTOOL_SETTERS:
            value = array.array("I", (setter, 0))
            request = struct.pack("16sP", link.encode(), value.buffer_info()[0])
            fcntl.ioctl(sock, _SIOCETHTOOL, request.ljust(40, b"\0"))


def disable_forwarding(namespace: Namespace) -> None:
    """Make the namespace an end station.

    A new namespace inherits IPv4 forwarding from the machine, where Docker for
    one turns it on; then the holder of a wrong MAC would pass the packets on.

    Raises:
        OSError: the kernel refused.
    """
    with namespace.entered():
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            setting = Path("/proc/sys/net", name)
            # Read first: in a container /proc/sys may be read-only, and right.
            if setting.read_text(encoding="utf-8").strip() != "0":
                setting.write_text("0", encoding="utf-8")


def _up(link: str, mac: Mac) -> list[str]:
    # The kernel's own link-local address would be tentative, hence silent, for a second.
    eui64 = bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]))
    link_local = b"\xfe\x80" + bytes(6) + eui64
    return [
        "link set lo up",
        f"link set {link} addrgenmode none",
        f"link set {link} up",
        address_line(link_local, link=link, length=64),
    ]


__all__ = ["address_line", "client_lines", "disable_forwarding", "disable_offload", "host_lines"]
