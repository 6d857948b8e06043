"""Whatever EC2 answers: a plan that the answers bear out, or an error."""

from random import Random

from fuzz.cases import case, run_cases
from fuzz.ec2_truth import Said, items
from fuzz.sdk import WRONG, Bends, Sdk, Wire
from fuzz.world import HOST

from reconciler.core.memory import Memory
from reconciler.core.model import Address, Judgement, Key
from reconciler.core.ownership import TargetedOwnership
from reconciler.errors import ReconcilerError
from reconciler.passes import Look


def changed(look: Look) -> set[Key]:
    """Name what would be changed."""
    return {change.neighbour.key for change in look.plan.changes}


EXPECTED = {wrong.key for wrong in WRONG}

# ------------------------------------------------------------------- the oracle


def assert_borne_out(change: Judgement, look: Look, wire: Wire) -> None:
    """Check one planned change against what the bent answers plainly say."""
    link, address = look.links[change.neighbour.ifindex], change.neighbour.address
    lladdr, subnet_id = change.neighbour.lladdr, link.subnet.subnet_id
    assert lladdr is not None

    def read(*names: str) -> list[Said]:
        answers = wire.said("DescribeNetworkInterfaces", *names)
        return items([answer.body for answer in answers], "networkInterfaceSet")

    whole = read("subnet-id", "vpc-id")
    ownership = look.view.ownership
    asked = ownership._targets if isinstance(ownership, TargetedOwnership) else frozenset()
    targeted = [
        said
        for name in ("addresses.private-ip-address", "ipv6-addresses.ipv6-address", "mac-address")
        for said in (read(*sorted((name, "subnet-id"))) if asked else ())
    ]
    every = whole + targeted
    assert any(s.live(subnet_id) and s.has(link.link.mac) for s in whole), "the link is not ours"
    deciding = every if (subnet_id, address) in asked else whole
    assert not any(s.live(subnet_id) and s.has(lladdr) and s.lists(address) for s in deciding)
    if change.owner is None:
        assert (subnet_id, address) in asked
        assert not any(s.lists(address) for s in every if s.stands_in(subnet_id))
        assert not any(s.covers(address) for s in whole if s.stands_in(subnet_id))
        assert not any(s.live(vpc_id=link.eni.vpc_id) and s.has(lladdr) for s in every)
        described = [
            subnet
            for subnet in items([a.body for a in wire.said("DescribeSubnets")], "subnetSet")
            if subnet_id in subnet.texts.get("subnetId", ())
        ]
        assert described
        for subnet in described:
            assert [link.eni.owner_id] == subnet.texts.get("ownerId")
            assert not any(subnet.texts.get("outpostArn", ()))
            assert not any(subnet.texts.get("enableLniAtDeviceIndex", ()))
        return
    assert any(
        1 == len({s.texts["networkInterfaceId"][0] for s in owners})
        and any(s.has(change.expected_mac or b"") for s in owners)
        for owners in (owners_in(some, subnet_id, address) for some in (whole, targeted))
    )


def owners_in(every: list[Said], subnet_id: str, address: Address) -> list[Said]:
    """Return the live ENIs that list an address, or else those whose prefix covers it."""
    live = [said for said in every if said.live(subnet_id)]
    return [s for s in live if s.lists(address)] or [s for s in live if s.covers(address)]


# -------------------------------------------------------------------- the tests


def test_honest_answers_lead_to_what_is_meant(sdk: Sdk) -> None:
    """Unbent, the answers lead to exactly the changes that the world calls for, either way."""
    for known in (HOST, None):
        one, wire = sdk.case(case(0), known=known)
        assert EXPECTED == changed(one.look())
        assert wire.honest


def bending(rng: Random) -> Bends:
    """Choose which calls are bent: one, all from one on, or all of one action."""
    start = rng.randrange(9)
    action = rng.choice(("DescribeSubnets", "DescribeNetworkInterfaces"))
    return rng.choice(
        (
            lambda number, _: number == start,
            lambda number, _: number == start,
            lambda number, _: number >= start,
            lambda _, called: called == action,
        )
    )


def test_no_mutated_answer_leads_to_a_wrong_change(sdk: Sdk) -> None:
    """A bent answer ends in an error, or every planned change is one that the answers allow."""

    def attempt(rng: Random) -> str:
        one, wire = sdk.case(rng, bending(rng), known=rng.choice((HOST, HOST, None)))
        try:
            look = one.look()
        except ReconcilerError as error:
            return type(error).__name__
        for change in look.plan.changes:
            assert_borne_out(change, look, wire)
        if wire.honest:
            assert EXPECTED == changed(look)
            return "honest at last"
        return "as if honest" if changed(look) == EXPECTED else "other changes"

    ended = run_cases(0.25, attempt)
    assert {"Ec2Error", "IdentityError", "as if honest", "other changes"} <= ended.keys()


def test_no_mutated_confirmation_leads_to_a_wrong_change(sdk: Sdk) -> None:
    """The same for the daemon's targeted reading, which confirms what a whole one made suspect."""

    def attempt(rng: Random) -> str:
        one, wire = sdk.case(rng, memory=Memory())
        one.look()
        wire.bends = rng.choice((lambda *_: True, lambda *_: rng.random() < 0.3))
        try:
            look = one.glance()
        except ReconcilerError as error:
            return type(error).__name__
        assert look is not None
        for change in look.plan.changes:
            assert_borne_out(change, look, wire)
        return "confirmed" if look.plan.changes else "not confirmed"

    ended = run_cases(0.1, attempt)
    assert {"Ec2Error", "confirmed", "not confirmed"} <= ended.keys()
