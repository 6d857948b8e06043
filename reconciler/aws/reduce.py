"""Reduce what EC2 describes to what decides; the rest of a page is dropped at once.

Reduced, 10,000 ENIs take 30 MiB less than as the SDK's dictionaries. Anything
of an unexpected shape raises: what cannot be read must not look like absence.
"""

import sys
from collections.abc import Collection, Iterator
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from reconciler.core.model import Address, Eni, Mac, Prefix, Subnet

UNREADABLE = "unreadable"
SHAPE_ERRORS = (AttributeError, KeyError, OSError, TypeError, ValueError)


def reduce_eni(raw: Any, subnet_ids: Collection[str]) -> Iterator[Eni]:
    """Yield the ENI; with the status ``unreadable`` if it lacks id, subnet, VPC or MAC.

    Such an ENI is no live owner, but its addresses must not look like
    nobody's: it is kept, and where not even its subnet is known, it is kept for
    every subnet that was asked for.

    Raises:
        AttributeError, KeyError, OSError, TypeError, ValueError: the shape is not
            DescribeNetworkInterfaces', or an address cannot be read.
    """
    eni_id = _text(raw, "NetworkInterfaceId")
    subnet_id = _text(raw, "SubnetId")
    vpc_id = _text(raw, "VpcId")
    mac = _mac(_text(raw, "MacAddress"))
    status = _text(raw, "Status")
    attachment = raw.get("Attachment") or {}
    readable = eni_id and subnet_id and vpc_id and mac
    addresses, prefixes = _addresses(raw), _prefixes(raw)
    if not eni_id and not addresses and not prefixes:
        raise ValueError("an item has neither an id nor an address")
    for where in (subnet_id,) if subnet_id else subnet_ids or ("",):
        yield Eni(
            eni_id=eni_id,
            subnet_id=sys.intern(where),
            vpc_id=sys.intern(vpc_id),
            mac=mac,
            status=sys.intern(status) if readable else UNREADABLE,
            interface_type=sys.intern(_text(raw, "InterfaceType")),
            owner_id=sys.intern(_text(raw, "OwnerId")) or None,
            instance_id=_text(attachment, "InstanceId") or None,
            instance_owner_id=sys.intern(_text(attachment, "InstanceOwnerId")) or None,
            description=_text(raw, "Description"),
            addresses=addresses,
            prefixes=prefixes,
        )


def reduce_subnet(raw: Any) -> Subnet:
    """Return the subnet with the IPv4 and the associated IPv6 blocks.

    Raises:
        AttributeError, KeyError, OSError, TypeError, ValueError: the shape is not
            DescribeSubnets'.
    """
    cidrs = [raw["CidrBlock"]] if raw.get("CidrBlock") else []
    cidrs += [
        block["Ipv6CidrBlock"]
        for block in raw.get("Ipv6CidrBlockAssociationSet") or ()
        if _text(block.get("Ipv6CidrBlockState") or {}, "State") in {"associated", ""}
    ]
    return Subnet(
        subnet_id=sys.intern(raw["SubnetId"]),
        vpc_id=sys.intern(raw["VpcId"]),
        cidrs=tuple(map(Prefix.parse, cidrs)),
        owner_id=sys.intern(_text(raw, "OwnerId")) or None,
        outpost=bool(raw.get("OutpostArn")),
        local_network_interfaces=bool(raw.get("EnableLniAtDeviceIndex")),
    )


def _text(raw: Any, name: str) -> str:
    value = raw.get(name) or ""
    if not isinstance(value, str):  # An element that came twice reaches us as a list.
        raise TypeError(f"{name} is no text")
    return value


def _mac(text: str) -> Mac:
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        return b""
    # An ENI's MAC is a unicast one; a group or zero address would call every right entry wrong.
    return mac if len(mac) == 6 and not mac[0] & 1 and any(mac) else b""


def _addresses(raw: Any) -> tuple[Address, ...]:
    four = [item["PrivateIpAddress"] for item in raw.get("PrivateIpAddresses") or ()]
    six = [item["Ipv6Address"] for item in raw.get("Ipv6Addresses") or ()]
    for texts, primary in ((four, "PrivateIpAddress"), (six, "Ipv6Address")):
        text = raw.get(primary)
        if text and text not in texts:
            texts.append(text)
    return (
        *(inet_pton(AF_INET, text) for text in four),
        *(inet_pton(AF_INET6, text) for text in six),
    )


def _prefixes(raw: Any) -> tuple[Prefix, ...]:
    return (
        *(Prefix.parse(item["Ipv4Prefix"]) for item in raw.get("Ipv4Prefixes") or ()),
        *(Prefix.parse(item["Ipv6Prefix"]) for item in raw.get("Ipv6Prefixes") or ()),
    )


__all__ = ["SHAPE_ERRORS", "UNREADABLE", "reduce_eni", "reduce_subnet"]
