"""Exact before prefix, longest prefix first, one owner or none."""

from dataclasses import replace

from reconciler.core.model import Eni, Prefix, pack_address
from reconciler.core.ownership import Ownership

POD = pack_address("10.0.0.20")
NODE = Eni("eni-n", "s", "v", b"\x02\0\0\0\0\1", prefixes=(Prefix.parse("10.0.0.16/28"),))
PEER = Eni("eni-p", "s", "v", b"\x02\0\0\0\0\2", addresses=(POD,))


def test_an_exact_address_beats_a_prefix() -> None:
    """The ENI that lists the very address owns it."""
    assert Ownership([NODE, PEER]).claim("s", POD).owner == PEER


def test_a_prefix_owns_what_nobody_lists() -> None:
    """An address inside a delegated prefix belongs to that ENI."""
    assert Ownership([NODE]).claim("s", POD).owner == NODE


def test_the_longest_prefix_wins() -> None:
    """Of two prefixes the more specific one decides."""
    narrow = replace(PEER, addresses=(), prefixes=(Prefix.parse("10.0.0.20/30"),))
    assert Ownership([NODE, narrow]).claim("s", POD).owner == narrow


def test_ipv6_prefixes() -> None:
    """A delegated /80 owns its addresses."""
    node = replace(NODE, prefixes=(Prefix.parse("fd00:1:0:0:5::/80"),))
    index = Ownership([node])
    assert index.claim("s", pack_address("fd00:1:0:0:5::9")).owner == node
    assert index.claim("s", pack_address("fd00:1:0:0:6::9")).owner is None


def test_two_live_owners_are_none() -> None:
    """Two live ENIs with one address: nobody is believed."""
    claim = Ownership([PEER, replace(PEER, eni_id="eni-q")]).claim("s", POD)
    assert (len(claim.live), claim.owner) == (2, None)


def test_one_eni_seen_on_two_pages_is_one_owner() -> None:
    """A repeated ENI is one owner, not two."""
    assert Ownership([PEER, PEER]).claim("s", POD).owner == PEER


def test_an_idle_listing_hides_the_prefix_below() -> None:
    """An address listed by an ENI that is not in use is nobody's, not the prefix holder's."""
    claim = Ownership([NODE, replace(PEER, status="available")]).claim("s", POD)
    assert (claim.owner, [eni.eni_id for eni in claim.idle]) == (None, ["eni-p"])


def test_ownership_is_by_subnet() -> None:
    """The same address in another subnet is another address."""
    assert Ownership([PEER]).claim("t", POD).owner is None


def test_macs_are_looked_up_within_a_vpc_and_only_when_live() -> None:
    """A MAC names its ENI in its own VPC while that is in use."""
    index = Ownership([PEER, replace(NODE, status="detaching")])
    assert index.mac_owner("v", PEER.mac) == PEER
    assert index.mac_owner("w", PEER.mac) is None
    assert index.mac_owner("v", NODE.mac) is None
