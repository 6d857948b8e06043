"""Reducing what EC2 describes, and never turning the unreadable into absence."""

from typing import Any

import pytest

from reconciler.aws.reduce import SHAPE_ERRORS, reduce_eni, reduce_subnet
from reconciler.core.model import Prefix, pack_address

ENI: dict[str, Any] = {
    "NetworkInterfaceId": "eni-1",
    "SubnetId": "subnet-1",
    "VpcId": "vpc-1",
    "MacAddress": "02:00:00:00:00:01",
    "Status": "in-use",
    "PrivateIpAddress": "10.0.0.1",
    "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.1", "Primary": True}],
}
SUBNET: dict[str, Any] = {"SubnetId": "subnet-1", "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/24"}


@pytest.mark.parametrize(
    "change",
    [
        {"MacAddress": None},
        {"MacAddress": "02:00"},
        {"MacAddress": "no mac at all"},
        {"MacAddress": "00:00:00:00:00:00"},
        {"MacAddress": "ff:ff:ff:ff:ff:ff"},
        {"NetworkInterfaceId": None},
        {"VpcId": None},
        {"Status": None},
    ],
)
def test_incomplete(change: dict[str, Any]) -> None:
    """An ENI that lacks something keeps its addresses but is no live owner."""
    (eni,) = reduce_eni(ENI | change, ["subnet-1", "subnet-2"])
    assert (False, (pack_address("10.0.0.1"),)) == (eni.live, eni.addresses)


def test_without_subnet() -> None:
    """Where an ENI might be in any subnet that was asked for, it is no absence in any."""
    enis = list(reduce_eni(ENI | {"SubnetId": None}, ["subnet-1", "subnet-2"]))
    assert [("subnet-1", False), ("subnet-2", False)] == [(e.subnet_id, e.live) for e in enis]


def test_primary_address_alone() -> None:
    """An address that stands only outside the list is an address too."""
    raw = ENI | {"PrivateIpAddresses": [], "Ipv6Address": "2001:db8::1"}
    (eni,) = reduce_eni(raw, [])
    assert (pack_address("10.0.0.1"), pack_address("2001:db8::1")) == eni.addresses


@pytest.mark.parametrize(
    "change",
    [
        {"NetworkInterfaceId": None, "PrivateIpAddress": None, "PrivateIpAddresses": []},
        {"PrivateIpAddresses": [{}]},
        {"PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0"}]},
        {"PrivateIpAddresses": [{"PrivateIpAddress": ["10.0.0.1"]}]},
        {"PrivateIpAddresses": "10.0.0.1"},
        {"PrivateIpAddresses": 1},
        {"Ipv6Addresses": [{"Ipv6Address": "10.0.0.1"}]},
        {"Ipv4Prefixes": [{"Ipv4Prefix": "10.0.0.1/28"}]},
        {"Ipv6Prefixes": [None]},
        {"Description": ["once", "twice"]},
        {"SubnetId": 7},
        {"Attachment": "none"},
    ],
)
def test_unreadable(change: dict[str, Any]) -> None:
    """An address or a shape that cannot be read is an error, never a gap."""
    with pytest.raises(SHAPE_ERRORS):
        list(reduce_eni(ENI | change, []))


def test_repeated_text_is_kept_once() -> None:
    """Fifty thousand ENIs share one copy of what repeats."""
    one, two = (
        next(iter(reduce_eni(ENI | {"SubnetId": f"subnet-{number}"}, []))) for number in (9, 9)
    )
    assert one.subnet_id is two.subnet_id


def test_subnet() -> None:
    """A subnet has its IPv4 block and only those IPv6 blocks that are associated."""
    blocks = [
        {"Ipv6CidrBlock": "2001:db8:0:1::/64", "Ipv6CidrBlockState": {"State": "associated"}},
        {"Ipv6CidrBlock": "2001:db8:0:2::/64", "Ipv6CidrBlockState": {"State": "disassociated"}},
    ]
    raw = SUBNET | {"Ipv6CidrBlockAssociationSet": blocks, "OwnerId": "111122223333"}
    subnet = reduce_subnet(raw | {"OutpostArn": "arn:aws:outposts", "EnableLniAtDeviceIndex": 1})
    assert tuple(map(Prefix.parse, ("10.0.0.0/24", "2001:db8:0:1::/64"))) == subnet.cidrs
    assert ("111122223333", True, True) == (
        subnet.owner_id,
        subnet.outpost,
        subnet.local_network_interfaces,
    )


@pytest.mark.parametrize(
    "raw", [{}, [], None, SUBNET | {"CidrBlock": "10.0.0.1/24"}, SUBNET | {"SubnetId": None}]
)
def test_unreadable_subnet(raw: Any) -> None:
    """A subnet that cannot be read is an error."""
    with pytest.raises(SHAPE_ERRORS):
        reduce_subnet(raw)
