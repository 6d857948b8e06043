"""What the fuzz tests found, shrunk by hand: each was a fault once."""

import struct
from dataclasses import replace

import pytest
from fuzz.cases import case
from fuzz.sdk import Sdk
from fuzz.world import HOME, VPC

from reconciler.core.judge import reserved
from reconciler.core.model import Prefix, pack_address
from reconciler.errors import AuthorityError, KernelError
from reconciler.kernel import netlink
from reconciler.kernel.netlink import pack_attribute


@pytest.mark.parametrize("address", [b"\x0a\0\0", bytes(16)])
def test_an_own_address_that_is_cut_is_an_error(address: bytes) -> None:
    """What cannot be an own address would protect nothing, so the reading is refused."""
    with pytest.raises(KernelError, match="not of its family"):
        netlink.parse_local_address(bytes((2, 24, 0, 0, 2, 0, 0, 0)) + pack_attribute(2, address))


def test_a_gateway_in_an_unusual_place_is_not_passed_over() -> None:
    """A route with a gateway where its table should stand has no tail that others share."""
    fixed = struct.pack("=8BI", 2, 32, 0, 0, 254, 3, 0, 1, 0)
    gateway = pack_attribute(5, pack_address("10.0.0.41"))
    rest = pack_attribute(1, bytes(4)) + pack_attribute(4, struct.pack("=I", 2))
    assert netlink.route_tail(fixed + gateway + rest) is None


@pytest.mark.parametrize("block", ["255.255.255.255/32", f"{'ffff:' * 7}fffe/127"])
def test_a_block_at_the_end_of_all_addresses_is_reserved_whole(block: str) -> None:
    """A block too small for a subnet has no reserved address beyond its end."""
    prefix = Prefix.parse(block)
    assert all(map(prefix.covers, reserved([prefix])))


def test_a_subnet_that_is_described_in_two_ways_is_not_believed(sdk: Sdk) -> None:
    """Whose a subnet is decides whether absence is proof: two answers are none."""
    shared = replace(HOME, owner_id="999988887777")
    honest = sdk.endpoint.vpc
    for subnets in ((HOME, shared), (shared, HOME)):
        sdk.endpoint.vpc = replace(VPC, subnets=(*subnets, *VPC.subnets[1:]))
        try:
            with pytest.raises(AuthorityError, match="twice and differently"):
                sdk.case(case(0)).one.look()
        finally:
            sdk.endpoint.vpc = honest
