"""Read mutated EC2 answers a second time, by other means than the SDK and the code under test.

Every ``item`` is taken for what it plainly says. Where the answer says one thing
twice, each of them counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from xml.etree import ElementTree as ET

from reconciler.core.model import Address, Mac, format_address


@dataclass(frozen=True)
class Said:
    """What one item says: texts by element name; addresses and prefixes of its lists besides."""

    texts: dict[str, list[str]]
    addresses: frozenset[Address]
    prefixes: tuple[str, ...]

    def live(self, subnet_id: str | None = None, vpc_id: str | None = None) -> bool:
        """Say whether this is a whole ENI in use, there."""
        return (
            "in-use" in self.texts.get("status", ())
            and any(self.texts.get("networkInterfaceId", ()))
            and all(any(self.texts.get(name, ())) for name in ("subnetId", "vpcId"))
            and any(len(mac) == 6 and any(mac) and not mac[0] & 1 for mac in self._macs())
            and subnet_id in (None, *self.texts["subnetId"])
            and vpc_id in (None, *self.texts["vpcId"])
        )

    def stands_in(self, subnet_id: str) -> bool:
        """Say whether it is in this subnet; where it names none, it may be in any."""
        named = self.texts.get("subnetId", [])
        return subnet_id in named or not any(named)

    def has(self, mac: Mac) -> bool:
        """Say whether this MAC is named."""
        return mac in self._macs()

    def _macs(self) -> list[Mac]:
        return list(map(_mac, self.texts.get("macAddress", ())))

    def lists(self, address: Address) -> bool:
        """Say whether the address itself is listed."""
        return address in self.addresses

    def covers(self, address: Address) -> bool:
        """Say whether a delegated prefix covers the address."""
        asked = ip_address(format_address(address))
        return any(asked in network for network in map(_network, self.prefixes) if network)


def items(bodies: Iterable[bytes], element: str) -> list[Said]:
    """Read every item of the pages of one answer; each of them has one list of this name.

    Raises:
        AssertionError: a page is no XML or has no such list, so nobody may believe it.
    """
    found: list[Said] = []
    for body in bodies:
        # Like the SDK, believe no declaration of another encoding.
        parser = ET.XMLParser(encoding="utf-8")  # noqa: S314 - the test's own text.
        try:
            parser.feed(body)
            (rows,) = _children(parser.close(), element)
        except (ET.ParseError, ValueError) as error:
            raise AssertionError(f"a page was believed that has no {element}: {error}") from error
        found += map(_read, rows)
    return found


def _read(row: ET.Element) -> Said:
    texts: dict[str, list[str]] = {}
    for child in row:
        texts.setdefault(_name(child), []).append(child.text or "")
    listed = [*texts.get("privateIpAddress", ()), *texts.get("ipv6Address", ())]
    listed += _inner(row, "privateIpAddressesSet", "privateIpAddress")
    listed += _inner(row, "ipv6AddressesSet", "ipv6Address")
    prefixes = _inner(row, "ipv4PrefixSet", "ipv4Prefix")
    prefixes += _inner(row, "ipv6PrefixSet", "ipv6Prefix")
    return Said(texts, frozenset(filter(None, map(_address, listed))), tuple(prefixes))


def _inner(row: ET.Element, outer: str, inner: str) -> list[str]:
    return [
        element.text or ""
        for rows in _children(row, outer)
        for member in rows
        for element in _children(member, inner)
    ]


def _children(parent: ET.Element, name: str) -> list[ET.Element]:
    return [child for child in parent if _name(child) == name]


def _name(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _address(text: str) -> Address | None:
    try:
        return ip_address(text).packed
    except ValueError:
        return None


def _mac(text: str) -> Mac:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        return b""


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


__all__ = ["Said", "items"]
