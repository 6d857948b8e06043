"""The judge, rule by rule and by property."""

import random as _random
from dataclasses import replace

import pytest
from core.strategies import (
    ACCOUNT,
    MACS,
    enis,
    make_view,
    neighbours,
    next_hops,
    policies,
    subnet_owners,
    tables,
)
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.judge import reserved
from reconciler.core.model import (
    Action,
    Eni,
    Neighbour,
    NextHops,
    Nud,
    Policy,
    Prefix,
    Verdict,
    format_address,
    pack_address,
)
from reconciler.core.plan import make_plan

OWNER = Eni(
    "eni-x", "subnet-a", "vpc-1", MACS[0], owner_id=ACCOUNT, addresses=(pack_address("10.0.0.9"),)
)


def entry(address: str = "10.0.0.9", lladdr: bytes | None = MACS[0], **more: int) -> Neighbour:
    """Make an entry on eth0."""
    return Neighbour(2, pack_address(address), lladdr, more.pop("state", Nud.REACHABLE), **more)


RULES = [
    (entry(), "match", "owner-has-mac"),
    (entry(lladdr=MACS[5]), "mismatch", "owner-has-other-mac"),
    (entry("10.0.0.10", MACS[0]), "unlisted", "mac-is-live"),
    (entry("10.0.0.10", MACS[5]), "orphan", "nobody"),
    (entry(lladdr=None, state=Nud.FAILED), "unresolved", "no-lladdr"),
    (entry(lladdr=MACS[0], state=Nud.INCOMPLETE), "unresolved", "no-lladdr"),
    (entry(lladdr=b"\x01" * 8), "unknown", "lladdr-length"),
    (entry(state=Nud.PERMANENT), "protected", "state-permanent"),
    (entry(state=Nud.NOARP), "protected", "state-noarp"),
    (entry(lladdr=MACS[5], flags=0x08), "protected", "flag-proxy"),
    (entry(lladdr=MACS[5], flags=0x10), "protected", "flag-ext-learned"),
    (entry(lladdr=MACS[5], flags=0x80), "protected", "flag-router"),
    (entry(lladdr=MACS[5], flags=0x100), "protected", "flag-managed"),
    (entry(lladdr=MACS[5], flags=0x400), "protected", "flag-validated"),
    (entry(lladdr=MACS[5], flags=0x2000), "protected", "flag-extended"),
    (entry("10.0.0.1", MACS[5]), "protected", "reserved-address"),
    (entry("10.0.0.31", MACS[5]), "protected", "reserved-address"),
    (entry("10.0.0.5", MACS[5]), "protected", "own-address"),
    (entry("169.254.169.254", MACS[5]), "protected", "link-local"),
    (entry("fe80::1", MACS[5]), "protected", "link-local"),
    (entry("224.0.0.251", MACS[5]), "protected", "multicast"),
    (entry("ff02::1", MACS[5]), "protected", "multicast"),
    (entry("fd00:ec2::254", MACS[5]), "protected", "ec2-services"),
    (entry("10.9.9.9", MACS[5]), "unmanaged", "outside-subnet"),
    (replace(entry(lladdr=MACS[5]), ifindex=1), "unmanaged", "link"),
    (replace(entry(lladdr=MACS[5]), ifindex=77), "unmanaged", "link"),
]


@pytest.mark.parametrize(("neighbour", "verdict", "rule"), RULES, ids=[r for *_, r in RULES])
def test_rules(neighbour: Neighbour, verdict: str, rule: str) -> None:
    """Each rule decides the entry that was made for it."""
    judgement = make_view((OWNER,)).judge(neighbour)
    assert (judgement.verdict.value, judgement.rule) == (verdict, rule)


def test_a_mismatch_names_its_evidence() -> None:
    """A mismatch carries the owner's MAC and says who owns what in one sentence."""
    other = replace(OWNER, eni_id="eni-y", mac=MACS[5], addresses=())
    judgement = make_view((OWNER, other)).judge(entry(lladdr=MACS[5]))
    assert judgement.expected_mac == MACS[0]
    assert judgement.owner == OWNER
    assert judgement.mac_owner == other
    assert judgement.reason == (
        "eni-x owns the address and has 02:00:00:00:01:00; 02:00:00:00:01:05 is eni-y's."
    )


def test_a_next_hop_with_one_live_owner_is_judged() -> None:
    """A next hop with exactly one live owner may be a mismatch."""
    hops = NextHops(frozenset({pack_address("10.0.0.9")}))
    judgement = make_view((OWNER,), hops=hops).judge(entry(lladdr=MACS[5]))
    assert judgement.verdict is Verdict.MISMATCH


def test_a_next_hop_without_owner_is_never_an_orphan() -> None:
    """A next hop nobody owns is protected."""
    hops = NextHops(frozenset({pack_address("10.0.0.10")}))
    judgement = make_view((OWNER,), hops=hops).judge(entry("10.0.0.10", MACS[5]))
    assert (judgement.verdict, judgement.rule) == (Verdict.PROTECTED, "next-hop")


def test_the_default_routes_next_hop_stays_protected() -> None:
    """The default route's next hop is protected even with one live owner."""
    hop = frozenset({pack_address("10.0.0.9")})
    judgement = make_view((OWNER,), hops=NextHops(hop, hop)).judge(entry(lladdr=MACS[5]))
    assert (judgement.verdict, judgement.rule) == (Verdict.PROTECTED, "default-route")


def test_configured_protection() -> None:
    """[policy] protect keeps an entry, whatever the authority says."""
    policy = Policy(protect=(Prefix.parse("10.0.0.8/30"),))
    judgement = make_view((OWNER,), policy).judge(entry(lladdr=MACS[5]))
    assert (judgement.verdict, judgement.rule) == (Verdict.PROTECTED, "configured")


def test_own_delegated_prefix_is_protected() -> None:
    """An address inside a prefix of this instance is its own: a local pod, not a peer."""
    own = replace(
        OWNER, eni_id="eni-own", instance_id="i-1", prefixes=(Prefix.parse("10.0.0.16/28"),)
    )
    judgement = make_view((own,)).judge(entry("10.0.0.20", MACS[5]))
    assert (judgement.verdict, judgement.rule) == (Verdict.PROTECTED, "own-address")


DOUBTS = [
    ((replace(OWNER, eni_id="eni-y", mac=MACS[1]), OWNER), ACCOUNT, True, "two-owners"),
    ((replace(OWNER, status="detaching"),), ACCOUNT, True, "owner-not-in-use"),
    ((), None, True, "subnet-owner-unknown"),
    ((), "999988887777", True, "shared-subnet"),
    ((), ACCOUNT, False, "managed-hidden"),
]


@pytest.mark.parametrize(("listed", "owner", "managed", "rule"), DOUBTS, ids=[d[3] for d in DOUBTS])
def test_doubts(listed: tuple[Eni, ...], owner: str | None, managed: bool, rule: str) -> None:  # noqa: FBT001 - a table's column.
    """Where the authority cannot speak for an entry, there is no opinion."""
    view = make_view(listed, owner=owner, sees_managed=managed)
    judgement = view.judge(entry(lladdr=MACS[5]))
    assert (judgement.verdict, judgement.rule) == (Verdict.UNKNOWN, rule)


def test_ignored_interface_type() -> None:
    """An owner of an ignored interface type leaves no opinion."""
    policy = Policy(ignore_interface_types=frozenset({"lambda"}))
    view = make_view((replace(OWNER, interface_type="lambda"),), policy)
    assert view.judge(entry(lladdr=MACS[5])).rule == "ignored-type"


def test_unsettled_owner() -> None:
    """An owner that changed twice lately leaves no opinion."""
    pair = ("subnet-a", pack_address("10.0.0.9"))
    view = replace(make_view((OWNER,)), unsettled=frozenset({pair}))
    assert view.judge(entry(lladdr=MACS[5])).rule == "owner-unsettled"


def test_the_same_range_in_two_vpcs() -> None:
    """Neither VPC's entries are judged by the other's ENIs."""
    here = OWNER
    there = replace(OWNER, eni_id="eni-y", subnet_id="subnet-b", vpc_id="vpc-2", mac=MACS[1])
    view = make_view((here, there))
    on_eth1 = replace(entry(lladdr=MACS[0]), ifindex=3)
    assert view.judge(entry(lladdr=MACS[0])).verdict is Verdict.MATCH
    assert view.judge(entry(lladdr=MACS[1])).verdict is Verdict.MISMATCH
    assert view.judge(on_eth1).expected_mac == MACS[1]
    assert view.judge(replace(on_eth1, address=pack_address("10.0.0.10"))).verdict is Verdict.ORPHAN


def test_reserved_addresses() -> None:
    """AWS keeps base +0 to +3 and the last address of every CIDR."""
    found = reserved([Prefix.parse("10.0.0.0/27"), Prefix.parse("fd00:1::/64")])
    v4 = [f"10.0.0.{n}" for n in (0, 1, 2, 3, 31)]
    v6 = ["fd00:1::", "fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:1::ffff:ffff:ffff:ffff"]
    assert sorted(map(format_address, found)) == sorted([*v4, *v6])


@given(neighbours, enis, policies, next_hops, subnet_owners, st.booleans())
def test_every_entry_gets_one_verdict(
    neighbour: Neighbour,
    listed: tuple[Eni, ...],
    policy: Policy,
    hops: NextHops,
    owner: str | None,
    managed: bool,  # noqa: FBT001 - hypothesis passes it by name.
) -> None:
    """Every possible entry gets exactly one verdict, a rule and a sentence."""
    judgement = make_view(listed, policy, hops, owner, sees_managed=managed).judge(neighbour)
    assert judgement.verdict in set(Verdict) - {Verdict.PENDING}
    assert judgement.rule
    assert judgement.reason.endswith(".")


@given(tables, enis, policies, next_hops, subnet_owners)
def test_only_the_wrong_carry_an_action(
    table: list[Neighbour],
    listed: tuple[Eni, ...],
    policy: Policy,
    hops: NextHops,
    owner: str | None,
) -> None:
    """Nothing protected, unmanaged, unknown, unresolved, right or unlisted is acted on."""
    view = make_view(listed, policy, hops, owner)
    plan = make_plan(map(view.judge, table), policy, budget=1000)
    acted = {judgement.verdict for judgement in plan.changes}
    assert acted <= {Verdict.MISMATCH, Verdict.ORPHAN}
    for judgement in plan.changes:
        neighbour = judgement.neighbour
        assert neighbour.ifindex in {2, 3}
        assert not neighbour.state & (Nud.PERMANENT | Nud.NOARP)
        assert not neighbour.flags & ~0x01
        assert neighbour.address not in hops.default
        assert neighbour.address not in view.reserved[neighbour.ifindex]


@given(tables, enis, policies, next_hops, st.randoms(use_true_random=False))
def test_order_does_not_matter(
    table: list[Neighbour],
    listed: tuple[Eni, ...],
    policy: Policy,
    hops: NextHops,
    random: _random.Random,
) -> None:
    """The plan does not depend on the order of entries or ENIs."""
    shuffled_table, shuffled = list(table), list(listed)
    random.shuffle(shuffled_table)
    random.shuffle(shuffled)

    def planned(entries: list[Neighbour], enis: tuple[Eni, ...]) -> set[object]:
        plan = make_plan(map(make_view(enis, policy, hops).judge, entries), policy, budget=3)
        return set(map(repr, plan.judgements))

    assert planned(table, listed) == planned(shuffled_table, tuple(shuffled))


@given(tables, enis, next_hops)
def test_a_plan_carried_out_leaves_nothing_to_do(
    table: list[Neighbour], listed: tuple[Eni, ...], hops: NextHops
) -> None:
    """Judging a table after its plan was carried out in full finds nothing more to do."""
    view = make_view(listed, hops=hops)
    plan = make_plan(map(view.judge, table), Policy(), budget=1000)
    after = {neighbour.key: neighbour for neighbour in table}
    for change in plan.changes:
        old = after.pop(change.neighbour.key)
        if change.expected_mac is not None:
            after[old.key] = replace(old, lladdr=change.expected_mac, state=Nud.REACHABLE)
    again = make_plan(map(view.judge, after.values()), Policy(), budget=1000)
    assert again.changes == ()
    assert all(change.action is Action.DELETE for change in plan.changes)
