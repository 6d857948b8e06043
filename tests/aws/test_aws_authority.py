"""Reading EC2 whole: what is asked, what is believed, what is tried again."""

from dataclasses import replace
from typing import Any

import pytest
from aws.broker import AWAY, HOME, Clock
from botocore.awsrequest import AWSResponse

from reconciler.aws.authority import Authority, Scope
from reconciler.aws.client import Ec2, Ec2Error
from reconciler.core.model import Host, Reading, pack_address
from reconciler.errors import AuthorityError
from reconciler.testing.endpoint import Ec2Endpoint, Fault, FaultKind
from reconciler.testing.vpc import eni

ENIS = "DescribeNetworkInterfaces"
BOTH = frozenset({HOME.subnet_id, AWAY.subnet_id})


def read(authority: Authority, host: Host, scope: Scope = "subnet") -> Reading:
    """Read the first subnet."""
    return authority.read(host, frozenset({HOME.subnet_id}), frozenset({HOME.vpc_id}), scope)


def item(inner: str) -> str:
    """Write an answer with one ENI."""
    return f"<r><networkInterfaceSet><item>{inner}</item></networkInterfaceSet></r>"


class Canned:
    """Give the SDK bytes instead of a connection, so that its own parser meets them."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        """Answer the request that was about to be sent."""
        return AWSResponse(request.url, 200, {}, self)

    def stream(self) -> list[bytes]:
        """Return the body as botocore reads it."""
        return [self._body]


def test_subnet_scope(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """A reading holds every ENI of the subnet just as EC2 describes it, and the subnet."""
    reading = read(authority, host)
    assert tuple(e for e in endpoint.vpc.enis if e.subnet_id == HOME.subnet_id) == reading.enis
    assert {HOME.subnet_id: HOME} == reading.subnets
    assert (None, True, "ec2", 2) == (
        reading.targets,
        reading.sees_managed,
        reading.source,
        reading.api_calls,
    )
    asked = endpoint.calls[-1]
    assert {"vpc-id": (HOME.vpc_id,), "subnet-id": (HOME.subnet_id,)} == asked.filters
    assert "1000" == asked.params["MaxResults"]


def test_vpc_scope(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """The VPC's scope reads every subnet of it, and describes only the managed ones."""
    reading = read(authority, host, "vpc")
    assert endpoint.vpc.enis == reading.enis
    assert {HOME.subnet_id} == reading.subnets.keys()
    assert {"vpc-id": (HOME.vpc_id,)} == endpoint.calls[-1].filters


def test_all_pages(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """Many pages make one reading, and each of them is a call."""
    endpoint.page_limit = 2
    reading = read(authority, host)
    assert (5, 4) == (len(reading.enis), reading.api_calls)
    assert len(endpoint.calls) == reading.api_calls


def test_hidden_enis(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """ENIs that an account hides from describe calls are in the reading."""
    endpoint.managed = frozenset({endpoint.vpc.enis[2].eni_id})
    assert 5 == len(read(authority, host).enis)


@pytest.mark.parametrize(("subnets", "vpcs"), [([], ["vpc-1"]), (["subnet-1"], [])])
def test_nothing_known_is_not_everything(
    authority: Authority, host: Host, endpoint: Ec2Endpoint, subnets: list[str], vpcs: list[str]
) -> None:
    """An empty list of subnets or VPCs is refused before EC2 is asked."""
    with pytest.raises(AuthorityError, match="Nothing was changed"):
        authority.read(host, frozenset(subnets), frozenset(vpcs), "vpc")
    assert [] == endpoint.calls


def test_times(authority: Authority, host: Host, endpoint: Ec2Endpoint, clock: Clock) -> None:
    """A reading begins with the attempt that succeeded, not with those that failed."""
    endpoint.faults.add(Fault("throttle", action=ENIS, times=3))
    reading = read(authority, host)
    assert 1000.0 < reading.began == reading.ended == clock.now
    # DescribeSubnets once, then three refusals and an answer.
    assert 5 == reading.api_calls == len(endpoint.calls)


@pytest.mark.parametrize("kind", ["throttle", "server_error", "bad_gateway", "cut", "truncated"])
def test_second_page_fails_once(
    authority: Authority, host: Host, endpoint: Ec2Endpoint, kind: FaultKind
) -> None:
    """A page that fails makes the whole reading begin anew."""
    endpoint.page_limit = 2
    page = None if kind in {"throttle", "server_error", "bad_gateway"} else 2
    endpoint.faults.add(Fault(kind, action=ENIS, page=page, after=0 if page else 1))
    reading = read(authority, host)
    assert (5, 0) == (len(reading.enis), len(endpoint.faults))
    assert len(endpoint.calls) == reading.api_calls == 1 + 2 + 3


def test_second_page_always_fails(
    authority: Authority, host: Host, endpoint: Ec2Endpoint, clock: Clock
) -> None:
    """Without every page there is no reading, and no attempt starts after the deadline."""
    endpoint.page_limit = 2
    endpoint.faults.add(Fault("cut", page=2, times=None))
    with pytest.raises(AuthorityError, match=r"Nothing was changed.*\(tried \d+ times in \d+ s\)"):
        read(authority, host)
    assert 1020.0 > clock.now


@pytest.mark.parametrize("kind", ["expired", "expired_token"])
def test_credentials_are_not_tried_again(
    authority: Authority, host: Host, endpoint: Ec2Endpoint, kind: FaultKind
) -> None:
    """Credentials that were refused are not sent a second time."""
    endpoint.faults.add(Fault(kind, times=None))
    with pytest.raises(Ec2Error, match="credentials"):
        read(authority, host)
    assert 1 == len(endpoint.calls)


def test_denied_is_not_tried_again(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """A missing permission ends the reading at once."""
    endpoint.denied.add(ENIS)
    with pytest.raises(Ec2Error, match="UnauthorizedOperation"):
        read(authority, host)
    assert 1 == [call.action for call in endpoint.calls].count(ENIS)


def test_wrong_token(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """A page that cannot be followed by the next one voids the reading."""
    endpoint.page_limit = 2
    endpoint.faults.add(Fault("wrong_token", action=ENIS))
    with pytest.raises(Ec2Error, match="InvalidNextToken"):
        read(authority, host)


def test_same_eni_twice(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """An ENI that two pages list alike is one ENI."""
    endpoint.page_limit = 2
    endpoint.faults.add(Fault("duplicate", action=ENIS))
    reading = read(authority, host)
    assert (5, 0) == (len(reading.enis), len(endpoint.faults))


def test_same_eni_differently(
    ec2: Ec2, endpoint: Ec2Endpoint, authority: Authority, host: Host
) -> None:
    """An ENI that two pages list differently makes EC2 be asked again, not believed."""
    endpoint.page_limit = 2
    endpoint.faults.add(Fault("duplicate", action=ENIS))
    twice = endpoint.vpc.enis[2]

    def change(**_: Any) -> None:
        if [ENIS] == [call.action for call in endpoint.calls if call.action == ENIS]:
            leaving = replace(twice, status="detaching")
            enis = tuple(leaving if e is twice else e for e in endpoint.vpc.enis)
            endpoint.vpc = replace(endpoint.vpc, enis=enis)

    ec2._client.meta.events.register("before-send.ec2.DescribeNetworkInterfaces", change)
    reading = read(authority, host)
    assert 1 + 2 + 3 == reading.api_calls
    assert [endpoint.vpc.eni(twice.eni_id)] == [e for e in reading.enis if e.mac == twice.mac]


def test_endless_pages(ec2: Ec2, host: Host, endpoint: Ec2Endpoint) -> None:
    """An answer that goes on for minutes describes no moment and is given up."""
    endpoint.page_limit = 2
    ticking = Clock()

    def tick() -> float:
        ticking.sleep(200.0)
        return ticking.now

    with pytest.raises(Ec2Error, match="more pages after 300 s"):
        read(Authority(ec2, clock=tick), host)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html><body>Sign in to this network</body></html>",
        "<r/>",
        "<r><networkInterfaceSet>text</networkInterfaceSet><networkInterfaceSet/></r>",
        item(""),
        item(
            "<networkInterfaceId>eni-1</networkInterfaceId><privateIpAddress>10</privateIpAddress>"
        ),
        item("<description>one</description><description>two</description>"),
        item("<attachment><attachTime>never</attachTime></attachment>"),
        item("<attachment><deviceIndex>x</deviceIndex></attachment>"),
        "<r><networkInterfaceSet/><nextToken>a</nextToken></r>",
    ],
)
def test_other_shapes(ec2: Ec2, host: Host, clock: Clock, body: str) -> None:
    """Whatever the SDK's parser makes of an answer, it ends as an error of the authority."""
    authority = Authority(ec2, clock=clock, sleep=clock.sleep)
    subnets = b"<r><subnetSet/></r>"
    events = ec2._client.meta.events
    events.register("before-send.ec2.DescribeSubnets", Canned(subnets))
    events.register("before-send.ec2.DescribeNetworkInterfaces", Canned(body.encode()))
    with pytest.raises(AuthorityError, match="Nothing was changed"):
        read(authority, host)


# ------------------------------------------------------------------- targets


def test_targets(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """A targeted reading asks for both families apart and holds only the owners."""
    read(authority, host)
    endpoint.calls.clear()
    pairs = [
        (HOME.subnet_id, pack_address(text)) for text in ("10.0.0.11", "2001:db8::30", "10.0.0.99")
    ]
    reading = authority.read_targets(pairs, frozenset({HOME.subnet_id}))
    assert {e.eni_id for e in (endpoint.vpc.enis[0], endpoint.vpc.enis[2])} == {
        e.eni_id for e in reading.enis
    }
    assert (frozenset(pairs), 2) == (reading.targets, reading.api_calls)
    home = (HOME.subnet_id,)
    assert [
        {"subnet-id": home, "addresses.private-ip-address": ("10.0.0.11", "10.0.0.99")},
        {"subnet-id": home, "ipv6-addresses.ipv6-address": ("2001:db8::30",)},
    ] == [call.filters for call in endpoint.calls]


def test_targets_keep_subnets_apart(authority: Authority, endpoint: Ec2Endpoint) -> None:
    """The owner of the same address in another subnet is not in the answer."""
    other = eni(9, ["10.0.0.30"], subnet=AWAY)
    endpoint.vpc = endpoint.vpc.with_eni(other)
    reading = authority.read_targets([(HOME.subnet_id, pack_address("10.0.0.30"))], BOTH)
    assert [endpoint.vpc.enis[2]] == list(reading.enis)


def test_many_targets(authority: Authority, endpoint: Ec2Endpoint) -> None:
    """EC2's limit of 200 values a call holds for addresses and subnets together."""
    pairs = [(HOME.subnet_id, bytes([10, 0, 0, last])) for last in range(1, 251)]
    reading = authority.read_targets(pairs, BOTH)
    sizes = [
        len(call.filters["addresses.private-ip-address"])
        for call in endpoint.calls
        if call.action == ENIS
    ]
    assert ([198, 52], 5) == (sizes, len(reading.enis))


@pytest.mark.parametrize("pairs", [[], [("subnet-elsewhere", b"\x0a\0\0\1")]])
def test_targets_outside(
    authority: Authority, endpoint: Ec2Endpoint, pairs: list[tuple[str, bytes]]
) -> None:
    """No address, or one of a subnet that is not asked about, is refused before a call."""
    with pytest.raises(AuthorityError, match="Nothing was changed"):
        authority.read_targets(pairs, BOTH)
    assert [] == endpoint.calls


# ------------------------------------------------------------------- subnets


def asked_subnets(endpoint: Ec2Endpoint) -> int:
    """Count the calls of DescribeSubnets."""
    return sum(call.action == "DescribeSubnets" for call in endpoint.calls)


def test_subnets_are_kept_an_hour(
    authority: Authority, host: Host, endpoint: Ec2Endpoint, clock: Clock
) -> None:
    """Subnets are described once an hour, and one that is new at once."""
    read(authority, host)
    clock.sleep(3599.0)
    read(authority, host)
    assert 1 == asked_subnets(endpoint)
    authority.read(host, BOTH, frozenset({HOME.vpc_id}), "subnet")
    assert 2 == asked_subnets(endpoint)
    clock.sleep(1.0)
    read(authority, host)
    assert 3 == asked_subnets(endpoint)


def test_subnets_denied(
    authority: Authority,
    host: Host,
    endpoint: Ec2Endpoint,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where DescribeSubnets is denied, metadata gives the blocks and nobody the owner.

    It is logged when it begins, and asked again every hour.
    """
    endpoint.denied.add("DescribeSubnets")
    assert {HOME.subnet_id: replace(HOME, owner_id=None)} == read(authority, host).subnets
    read(authority, host)
    assert 1 == asked_subnets(endpoint)
    clock.sleep(3600.0)
    read(authority, host)
    assert ["authority.subnets_denied"] == [record.message for record in caplog.records]
    endpoint.denied.clear()
    clock.sleep(3600.0)
    assert {HOME.subnet_id: HOME} == read(authority, host).subnets
    assert {HOME.subnet_id: HOME, AWAY.subnet_id: AWAY} == authority.read(
        host, BOTH, frozenset({HOME.vpc_id}), "subnet"
    ).subnets
    assert 4 == asked_subnets(endpoint)
    endpoint.denied.add("DescribeSubnets")
    clock.sleep(3600.0)
    read(authority, host)
    assert 2 == len(caplog.records)


def test_subnets_denied_without_metadata(
    authority: Authority, host: Host, endpoint: Ec2Endpoint
) -> None:
    """A subnet of which nobody tells a block is left out."""
    endpoint.denied.add("DescribeSubnets")
    unknown = replace(host, enis=tuple(replace(e, subnet_cidrs=()) for e in host.enis))
    assert {} == read(authority, unknown).subnets


def test_subnet_without_blocks(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """Where EC2 tells the owner but no block, metadata gives the blocks, or nobody does."""
    endpoint.vpc = replace(endpoint.vpc, subnets=(replace(HOME, cidrs=()),))
    assert {HOME.subnet_id: HOME} == read(authority, host).subnets
    assert {} == read(authority, replace(host, enis=())).subnets


@pytest.mark.parametrize(
    "inner", ["", "<subnetSet><item/></subnetSet>", "<subnetSet>a</subnetSet><subnetSet/>"]
)
def test_other_shapes_of_subnets(ec2: Ec2, host: Host, clock: Clock, inner: str) -> None:
    """A subnet that cannot be read voids the reading."""
    canned = Canned(f"<r>{inner}</r>".encode())
    ec2._client.meta.events.register("before-send.ec2.DescribeSubnets", canned)
    with pytest.raises(AuthorityError, match="is no subnet"):
        read(Authority(ec2, clock=clock, sleep=clock.sleep), host)


def test_subnets_fail(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """Another failure of DescribeSubnets than a denial voids the reading."""
    endpoint.faults.add(Fault("expired", action="DescribeSubnets"))
    with pytest.raises(Ec2Error, match="DescribeSubnets failed: RequestExpired"):
        read(authority, host)


def test_outpost(authority: Authority, host: Host, endpoint: Ec2Endpoint) -> None:
    """Subnets with neighbours that EC2 never lists are known as such."""
    special = replace(HOME, outpost=True, local_network_interfaces=True)
    endpoint.vpc = replace(endpoint.vpc, subnets=(special,))
    assert {HOME.subnet_id: special} == read(authority, host).subnets
