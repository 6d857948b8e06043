"""Which links are managed, and why each other one is not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.core.links import candidates, managed
from reconciler.core.model import Eni, Host, HostEni, Link, Prefix, Reading, Subnet
from reconciler.errors import IdentityError, UnbelievableError

MAC, MAC2 = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
ETH0 = Link(2, "eth0", MAC)
ETH1 = Link(3, "eth1", MAC2)
HOST_ENI = HostEni("eni-1", MAC, "s", "v", "111")
HOST = Host("i-1", "111", (HOST_ENI, replace(HOST_ENI, eni_id="eni-2", mac=MAC2)), "metadata")
ENI = Eni("eni-1", "s", "v", MAC, owner_id="111", instance_id="i-1", instance_owner_id="111")
ENI2 = replace(ENI, eni_id="eni-2", mac=MAC2)
SUBNET = Subnet("s", "v", (Prefix.parse("10.0.0.0/24"),), "111")


def reading(*enis: Eni, subnet: Subnet = SUBNET) -> Reading:
    """Make a complete reading of one subnet."""
    return Reading(1, 2, datetime(2026, 1, 1, tzinfo=UTC), enis, {"s": subnet}, 1)


def test_a_physical_link_with_an_enis_mac_is_a_candidate() -> None:
    """A plain device that carries an ENI of this instance may be managed."""
    chosen = candidates([Link(1, "lo", b"\0" * 6), Link(4, "docker0", b"\2" * 6), ETH0], HOST)
    assert [link.name for link, _ in chosen.links] == ["eth0"]
    assert chosen.subnet_ids == {"s"}
    assert chosen.passed_over[4] == "its MAC is no ENI of this instance"


KINDS = (
    *("vlan", "macvlan", "ipvlan", "bond", "team", "bridge"),
    *("vxlan", "openvswitch", "gretap", "wireguard", "brand-new"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_derived_devices_are_not_managed(kind: str) -> None:
    """A device that borrows or shares a MAC is never managed, known kind or not."""
    with pytest.raises(IdentityError, match=f"it is a {kind}"):
        candidates([replace(ETH0, kind=kind)], HOST)


def test_a_bridge_port_is_not_managed() -> None:
    """A link with a master is not managed."""
    bridge = Link(9, "br0", b"\x02\0\0\0\0\x09", kind="bridge")
    with pytest.raises(IdentityError, match="it is a port of a bridge"):
        candidates([replace(ETH0, master=9), bridge], HOST)


def test_a_vrf_port_is_managed() -> None:
    """A VRF is the one master that leaves a link as it is."""
    vrf = Link(9, "vrf0", b"\x02\0\0\0\0\x09", kind="vrf")
    assert candidates([replace(ETH0, master=9), vrf], HOST).links[0][0].name == "eth0"


def test_twins_are_all_left_alone() -> None:
    """Several links with one ENI's MAC are all unmanaged, and the others still managed."""
    twin = Link(7, "eth0.5", MAC, kind="vlan")
    chosen = candidates([ETH0, twin, ETH1], HOST)
    assert [link.name for link, _ in chosen.links] == ["eth1"]
    assert "several links" in chosen.passed_over[2]


def test_include_may_name_one_twin() -> None:
    """[links] include decides between twins when it names exactly one."""
    twin = Link(7, "eth0.5", MAC, kind="vlan")
    chosen = candidates([ETH0, twin], HOST, include=["eth0"])
    assert [link.name for link, _ in chosen.links] == ["eth0"]
    with pytest.raises(IdentityError, match="several links"):
        candidates([ETH0, twin], HOST, include=["eth0*"])


def test_include_and_exclude_only_narrow() -> None:
    """Include keeps to what it names, exclude takes away, and neither adds a foreign link."""
    foreign = Link(5, "ens9", b"\x02\0\0\0\0\x55")
    assert [n.name for n, _ in candidates([ETH0, ETH1], HOST, include=["*1"]).links] == ["eth1"]
    assert [n.name for n, _ in candidates([ETH0, ETH1], HOST, exclude=["*1"]).links] == ["eth0"]
    with pytest.raises(IdentityError, match="its MAC is no ENI"):
        candidates([foreign], HOST, include=["ens9"])


def test_an_eni_of_another_account_is_not_managed() -> None:
    """An ENI that another account attached to this instance is left alone."""
    host = replace(HOST, enis=(replace(HOST_ENI, owner_id="222"),))
    with pytest.raises(IdentityError, match="another account"):
        candidates([ETH0], host)


def test_a_link_is_managed_when_its_eni_is_in_the_reading() -> None:
    """A candidate whose ENI stands live in the reading is managed; the other is not."""
    chosen = candidates([ETH0, ETH1], HOST)
    links, passed_over = managed(chosen, HOST, reading(ENI))
    assert [link.link.name for link in links.values()] == ["eth0"]
    assert passed_over[3] == "eni-2 is not in the reading"


DISBELIEF = [
    (replace(ENI, status="detaching"), "is detaching"),
    (replace(ENI, mac=MAC2), "has 02:00:00:00:00:02"),
    (replace(ENI, subnet_id="t"), "is in t"),
    (replace(ENI, instance_id="i-2"), "attached to i-2"),
    (replace(ENI, owner_id="222"), "another account"),
]


@pytest.mark.parametrize(("eni", "why"), DISBELIEF, ids=[why for _, why in DISBELIEF])
def test_a_reading_that_does_not_know_this_host(eni: Eni, why: str) -> None:
    """A reading in which this host's own ENI is not as the host sees it is not believed."""
    with pytest.raises(UnbelievableError, match=why):
        managed(candidates([ETH0], HOST), HOST, reading(eni))


def test_a_subnet_without_cidrs_is_not_judged() -> None:
    """Without the subnet's CIDRs the reserved addresses are unknown, so the link is left alone."""
    with pytest.raises(UnbelievableError, match="CIDRs"):
        managed(candidates([ETH0], HOST), HOST, reading(ENI, subnet=replace(SUBNET, cidrs=())))
