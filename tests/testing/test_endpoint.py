"""The lab's EC2 endpoint, asked by the real SDK."""

import ctypes
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError
from botocore.parsers import ResponseParserError

from reconciler.testing.endpoint import Call, Ec2Endpoint, Fault, FaultKind
from reconciler.testing.vpc import ACCOUNT, Vpc, eni, subnet

SUBNET = subnet(1, ["10.0.0.0/24", "2001:db8::/64", "2001:db8:0:1::/64"])
OTHER = subnet(2, ["10.0.1.0/24"], vpc=2, owner_id="999999999999")
BROKER = eni(
    1,
    ["10.0.0.10", "2001:db8::a", "10.0.0.11"],
    subnet=SUBNET,
    prefixes=["10.0.0.64/28", "2001:db8::1:0:0:0/80"],
    instance="i-1",
    description="broker <1> & co",
)
SECOND = eni(2, ["10.0.1.10"], subnet=OTHER, instance="i-1")
SERVICE = replace(
    eni(3, ["10.0.0.20"], subnet=SUBNET, interface_type="network_load_balancer"),
    instance_owner_id="amazon-elb",
)
SPARE = eni(4, ["10.0.0.30"], subnet=SUBNET, status="available")
VPC = Vpc((SUBNET, OTHER), (BROKER, SECOND, SERVICE, SPARE))
CROWD = Vpc((SUBNET,), tuple(eni(n, [f"10.0.0.{n}"], subnet=SUBNET) for n in range(10, 30)))
IDS = [one.eni_id for one in CROWD.enis]


@pytest.fixture
def ec2() -> Iterator[Ec2Endpoint]:
    """An endpoint for the small VPC."""
    with Ec2Endpoint(VPC) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """One session: loading the service model is what costs time."""
    return boto3.Session("AKIAEXAMPLE", "example", region_name="eu-central-1")


@pytest.fixture
def client(ec2: Ec2Endpoint, session: boto3.Session) -> Iterator[Any]:
    """The real client, one attempt a call."""
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=2,
        read_timeout=2,
        parameter_validation=False,
    )
    client = session.client("ec2", endpoint_url=ec2.url, config=config)
    yield client
    client.close()


def read(client: Any, size: int = 5) -> list[str]:
    """Read all pages and return the ids."""
    pages = client.get_paginator("describe_network_interfaces").paginate(
        PaginationConfig={"PageSize": size}
    )
    return [one["NetworkInterfaceId"] for page in pages for one in page["NetworkInterfaces"]]


def find(client: Any, **filters: list[str]) -> list[str]:
    """Ask with filters, their names written with ``__`` for a dot and ``_`` for a dash."""
    asked = [
        {"Name": name.replace("__", ".").replace("_", "-"), "Values": values}
        for name, values in filters.items()
    ]
    answer = client.describe_network_interfaces(Filters=asked, MaxResults=1000)
    return [one["NetworkInterfaceId"] for one in answer["NetworkInterfaces"]]


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    """Return EC2's code and the HTTP status of an error."""
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_eni_shape(client: Any) -> None:
    """An instance's ENI comes out of the SDK's parser with everything it was described with."""
    answer = client.describe_network_interfaces(NetworkInterfaceIds=[BROKER.eni_id])
    assert {
        "NetworkInterfaceId": BROKER.eni_id,
        "SubnetId": SUBNET.subnet_id,
        "VpcId": SUBNET.vpc_id,
        "AvailabilityZone": "eu-central-1a",
        "Description": "broker <1> & co",
        "OwnerId": ACCOUNT,
        "RequesterManaged": False,
        "Status": "in-use",
        "MacAddress": "02:00:00:00:00:01",
        "PrivateIpAddress": "10.0.0.10",
        "SourceDestCheck": True,
        "Groups": [{"GroupId": "sg-00000000000000001", "GroupName": "default"}],
        "Attachment": {
            "AttachmentId": "eni-attach-00000000000000001",
            "InstanceId": "i-1",
            "InstanceOwnerId": ACCOUNT,
            "DeviceIndex": 0,
            "NetworkCardIndex": 0,
            "Status": "attached",
            "AttachTime": datetime(2026, 1, 1, tzinfo=UTC),
            "DeleteOnTermination": True,
        },
        "TagSet": [],
        "PrivateIpAddresses": [
            {"PrivateIpAddress": "10.0.0.10", "Primary": True},
            {"PrivateIpAddress": "10.0.0.11", "Primary": False},
        ],
        "Ipv6Addresses": [{"Ipv6Address": "2001:db8::a", "IsPrimaryIpv6": False}],
        "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.0.64/28"}],
        "Ipv6Prefixes": [{"Ipv6Prefix": "2001:db8:0:0:1::/80"}],
        "InterfaceType": "interface",
    } == answer["NetworkInterfaces"][0]


def test_attachments(client: Any) -> None:
    """Device indexes count within an instance; a service's ENI names no instance."""
    answer = client.describe_network_interfaces(MaxResults=1000)
    _, second, service, spare = answer["NetworkInterfaces"]
    assert ("i-1", 1) == (second["Attachment"]["InstanceId"], second["Attachment"]["DeviceIndex"])
    assert "amazon-elb" == service["Attachment"]["InstanceOwnerId"]
    assert "InstanceId" not in service["Attachment"]
    assert service["RequesterManaged"] is True
    assert ("available", None) == (spare["Status"], spare.get("Attachment"))


def test_subnet_shape(client: Any, ec2: Ec2Endpoint) -> None:
    """A subnet has one IPv4 block, its IPv6 blocks as associations, and its oddities."""
    odd = replace(OTHER, outpost=True, local_network_interfaces=True)
    ec2.vpc = replace(VPC, subnets=(SUBNET, odd))
    plain, outpost = client.describe_subnets(SubnetIds=[SUBNET.subnet_id, OTHER.subnet_id])[
        "Subnets"
    ]
    assert ("10.0.0.0/24", ACCOUNT, SUBNET.vpc_id) == (
        plain["CidrBlock"],
        plain["OwnerId"],
        plain["VpcId"],
    )
    assert ["2001:db8::/64", "2001:db8:0:1::/64"] == [
        one["Ipv6CidrBlock"] for one in plain["Ipv6CidrBlockAssociationSet"]
    ]
    assert "OutpostArn" not in plain
    assert "EnableLniAtDeviceIndex" not in plain
    assert outpost["OutpostArn"].startswith("arn:aws:outposts:eu-central-1:999999999999:")
    assert 1 == outpost["EnableLniAtDeviceIndex"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"private_ip_address": ["10.0.0.10"]}, [BROKER]),
        ({"private_ip_address": ["10.0.0.11"]}, []),
        ({"addresses__private_ip_address": ["10.0.0.11", "10.0.0.20"]}, [BROKER, SERVICE]),
        ({"addresses__private_ip_address": ["10.0.0.65"]}, []),
        ({"ipv6_addresses__ipv6_address": ["2001:db8::a"]}, [BROKER]),
        ({"ipv6_addresses__ipv6_address": ["2001:DB8::A"]}, []),
        ({"ipv6_addresses__ipv6_address": ["2001:db8:0:0:1::1"]}, []),
        ({"mac_address": ["02:00:00:00:00:03"]}, [SERVICE]),
        ({"subnet_id": [OTHER.subnet_id]}, [SECOND]),
        ({"vpc_id": [SUBNET.vpc_id]}, [BROKER, SERVICE, SPARE]),
        ({"attachment__instance_id": ["i-1"]}, [BROKER, SECOND]),
        ({"status": ["available"]}, [SPARE]),
        ({"owner_id": [ACCOUNT], "status": ["in-use"]}, [BROKER, SECOND, SERVICE]),
        ({"owner_id": ["999999999999"]}, []),
        ({"attachment__instance_id": ["i-1"], "subnet_id": [SUBNET.subnet_id]}, [BROKER]),
    ],
)
def test_filters(client: Any, filters: dict[str, list[str]], expected: list[Any]) -> None:
    """Values are alternatives, names restrict, case counts, and prefixes are not looked into."""
    assert [one.eni_id for one in expected] == find(client, **filters)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"Filters": [{"Name": "colour", "Values": ["red"]}]}, ("InvalidParameterValue", 400)),
        (
            {"Filters": [{"Name": "status", "Values": ["x"] * 201}], "MaxResults": 5},
            ("FilterLimitExceeded", 400),
        ),
        ({"MaxResults": 4}, ("InvalidParameterValue", 400)),
        ({"MaxResults": 1001}, ("InvalidParameterValue", 400)),
        (
            {"MaxResults": 5, "NetworkInterfaceIds": [BROKER.eni_id]},
            ("InvalidParameterCombination", 400),
        ),
        ({"NetworkInterfaceIds": ["eni-0"]}, ("InvalidNetworkInterfaceID.NotFound", 400)),
        ({"MaxResults": 5, "NextToken": "bogus"}, ("InvalidNextToken", 400)),
        ({"DryRun": True}, ("DryRunOperation", 412)),
    ],
)
def test_refusals(client: Any, arguments: dict[str, Any], expected: tuple[str, int]) -> None:
    """What EC2 refuses is refused with its code and status."""
    with pytest.raises(ClientError) as error:
        client.describe_network_interfaces(**arguments)
    assert expected == code_of(error)
    assert error.value.response["ResponseMetadata"]["RequestId"]


def test_denied(client: Any, ec2: Ec2Endpoint) -> None:
    """A denied action is unauthorized, also as a dry run, and the other one still works."""
    ec2.denied = {"DescribeSubnets"}
    for arguments in ({}, {"DryRun": True}):
        with pytest.raises(ClientError) as error:
            client.describe_subnets(**arguments)
        assert ("UnauthorizedOperation", 403) == code_of(error)
    assert 4 == len(read(client))


def test_unknown_actions_and_subnets(client: Any) -> None:
    """An action or a subnet that does not exist has its own error."""
    with pytest.raises(ClientError) as action:
        client.describe_vpcs()
    assert ("InvalidAction", 400) == code_of(action)
    with pytest.raises(ClientError) as missing:
        client.describe_subnets(SubnetIds=["subnet-0"])
    assert ("InvalidSubnetID.NotFound", 400) == code_of(missing)


def test_managed_are_hidden(client: Any, ec2: Ec2Endpoint) -> None:
    """Service-managed ENIs are listed only to those who ask for them."""
    ec2.managed = frozenset({SERVICE.eni_id})
    assert SERVICE.eni_id not in read(client)
    answer = client.describe_network_interfaces(MaxResults=5, IncludeManagedResources=True)
    assert SERVICE.eni_id in [one["NetworkInterfaceId"] for one in answer["NetworkInterfaces"]]


def test_paging_and_calls(client: Any, ec2: Ec2Endpoint) -> None:
    """A reading is split by MaxResults, arrives whole, and each call is on record."""
    ec2.vpc = CROWD
    assert IDS == read(client, size=8)
    assert [
        ("DescribeNetworkInterfaces", "8", False),
        *[("DescribeNetworkInterfaces", "8", True)] * 2,
    ] == [
        (call.action, call.params["MaxResults"], "NextToken" in call.params) for call in ec2.calls
    ]
    find(client, subnet_id=["subnet-1", "subnet-2"], status=["in-use"])
    assert {"subnet-id": ("subnet-1", "subnet-2"), "status": ("in-use",)} == ec2.calls[-1].filters


def test_page_limit(client: Any, ec2: Ec2Endpoint) -> None:
    """A page may hold fewer rows than were asked for."""
    ec2.page_limit = 2
    assert [one.eni_id for one in VPC.enis] == read(client, size=1000)
    assert 2 == len(ec2.calls)


def test_vpc_is_replaced_between_calls(client: Any, ec2: Ec2Endpoint) -> None:
    """The next call sees the new description."""
    assert [BROKER.eni_id] == find(client, addresses__private_ip_address=["10.0.0.11"])
    ec2.vpc = VPC.with_moved("10.0.0.11", SERVICE.eni_id)
    assert [SERVICE.eni_id] == find(client, addresses__private_ip_address=["10.0.0.11"])


def test_replicas_alternate_by_reading(client: Any, ec2: Ec2Endpoint) -> None:
    """Each whole reading comes from the next replica, whatever other actions are called."""
    fewer = replace(CROWD, enis=CROWD.enis[:12])
    ec2.replicas = (CROWD, fewer)
    readings = []
    for _ in range(3):
        readings.append(read(client))
        client.describe_subnets()
    assert [IDS, IDS[:12], IDS] == readings


def test_refused_call_takes_no_turn(client: Any, ec2: Ec2Endpoint) -> None:
    """A throttled call does not move on to the next replica."""
    ec2.replicas = (CROWD, VPC)
    ec2.faults.add(Fault("throttle"))
    with pytest.raises(ClientError):
        read(client)
    assert IDS == read(client)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("throttle", ("RequestLimitExceeded", 503)),
        ("server_error", ("InternalError", 500)),
        ("bad_gateway", ("502", 502)),
        ("expired", ("RequestExpired", 400)),
        ("expired_token", ("ExpiredToken", 400)),
    ],
)
def test_fault_errors(
    client: Any, ec2: Ec2Endpoint, kind: FaultKind, expected: tuple[str, int]
) -> None:
    """An error on the second page voids that reading, once, and the next one is whole."""
    ec2.vpc = CROWD
    ec2.faults.add(Fault(kind, page=2))
    with pytest.raises(ClientError) as error:
        read(client)
    assert expected == code_of(error)
    assert 0 == len(ec2.faults)
    assert IDS == read(client)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("hang", HTTPClientError),
        ("cut", ResponseParserError),
        ("truncated", ResponseParserError),
        ("garbage", ResponseParserError),
    ],
)
def test_fault_bodies(
    client: Any, ec2: Ec2Endpoint, kind: FaultKind, expected: type[Exception]
) -> None:
    """Silence, a cut connection and broken XML reach the client as such."""
    ec2.faults.add(Fault(kind, action="DescribeNetworkInterfaces"))
    client.describe_subnets()
    with pytest.raises(expected):
        read(client)
    assert kind == ec2.calls[-1].fault
    assert 4 == len(read(client))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("missing_page", page=2), IDS[:10] + IDS[15:]),
        (Fault("missing_page", page=3), IDS[:15]),
        (Fault("duplicate", page=1), IDS[:5] + IDS[4:]),
        (Fault("empty"), []),
        (Fault("empty", page=3), IDS[:10]),
        (Fault("lacking", ids=(IDS[7],)), IDS[:7] + IDS[8:]),
    ],
)
def test_fault_answers(client: Any, ec2: Ec2Endpoint, fault: Fault, expected: list[str]) -> None:
    """A well-formed answer can still lack rows, or list one twice."""
    ec2.vpc = CROWD
    ec2.faults.add(fault)
    assert expected == read(client)
    assert IDS == read(client)


def test_wrong_token(client: Any, ec2: Ec2Endpoint) -> None:
    """A wrong token that EC2 gave out is not known when it comes back."""
    ec2.vpc = CROWD
    ec2.faults.add(Fault("wrong_token"))
    with pytest.raises(ClientError) as error:
        read(client)
    assert ("InvalidNextToken", 400) == code_of(error)


def test_fault_that_cannot_strike_stays(client: Any, ec2: Ec2Endpoint) -> None:
    """A paging fault is not used up by a reading of one page."""
    ec2.faults.add(Fault("missing_page"), Fault("lacking", ids=("eni-0",)))
    assert 4 == len(read(client))
    assert 2 == len(ec2.faults)


def test_fault_counts(client: Any, ec2: Ec2Endpoint) -> None:
    """A fault lets ``after`` calls pass, strikes ``times`` times, or goes on until cleared."""
    ec2.faults.add(Fault("throttle", after=1, times=2), Fault("server_error", times=None))
    statuses = []
    for number in range(6):
        if number == 5:
            ec2.faults.clear()
        try:
            statuses.append(client.describe_subnets()["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            statuses.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert [500, 503, 503, 500, 500, 200] == statuses
    assert statuses == [call.status for call in ec2.calls]
    assert "RequestLimitExceeded" == ec2.calls[1].code


def test_denial_can_be_throttled(client: Any, ec2: Ec2Endpoint) -> None:
    """Throttling comes before any judgement of the call."""
    ec2.faults.add(Fault("throttle"))
    with pytest.raises(ClientError) as error:
        client.describe_network_interfaces(DryRun=True)
    assert ("RequestLimitExceeded", 503) == code_of(error)


def test_latency(client: Any, ec2: Ec2Endpoint) -> None:
    """A slow answer takes its time and tells what was true when the call came in."""
    client.describe_subnets()
    ec2.latency = 0.2
    began = time.monotonic()
    changer = threading.Timer(0.05, setattr, (ec2, "vpc", CROWD))
    changer.start()
    assert 4 == len(read(client))
    assert time.monotonic() - began >= 0.2
    changer.join()


def test_exit_ends_hanging_requests(session: boto3.Session) -> None:
    """Leaving closes the sockets of requests that hang or wait, and every thread ends."""
    before = threading.active_count()
    errors: list[Exception] = []

    def ask(url: str) -> None:
        with urllib3.PoolManager(retries=False, timeout=10) as pool:
            try:
                pool.request("POST", url, fields={"Action": "DescribeSubnets"})
            except urllib3.exceptions.HTTPError as error:
                errors.append(error)

    with Ec2Endpoint(VPC) as endpoint:
        endpoint.faults.add(Fault("hang"))
        asking = [threading.Thread(target=ask, args=(endpoint.url,)) for _ in range(2)]
        asking[0].start()
        while len(endpoint.calls) < 1:
            time.sleep(0.005)
        endpoint.latency = 60
        asking[1].start()
        while len(endpoint.calls) < 2:
            time.sleep(0.005)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for thread in asking:
        thread.join()
    assert len(errors) >= 1
    assert before == threading.active_count()
    client = session.client(
        "ec2",
        endpoint_url=endpoint.url,
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )
    with pytest.raises(EndpointConnectionError):
        client.describe_subnets()
    client.close()


def test_parallel_clients(ec2: Ec2Endpoint) -> None:
    """Connections are served side by side: a hanging one holds up no other."""
    ec2.faults.add(Fault("hang"))
    body = "Action=DescribeSubnets&Version=2016-11-15"
    where = urlsplit(ec2.url)
    with socket.create_connection((where.hostname, where.port or 0), timeout=5) as hanging:
        hanging.sendall(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        while not ec2.calls:
            time.sleep(0.005)
        answer = urllib3.request("POST", ec2.url, body=body, retries=False, timeout=5)
    assert 200 == answer.status
    assert [
        Call("DescribeSubnets", {"Version": "2016-11-15"}, 0, fault="hang"),
        Call("DescribeSubnets", {"Version": "2016-11-15"}, 200),
    ] == ec2.calls


@pytest.mark.parametrize(
    "sent", [b"\x00\xff\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
def test_no_http(ec2: Ec2Endpoint, sent: bytes) -> None:
    """Bytes that are no HTTP close that connection and disturb nothing."""
    where = urlsplit(ec2.url)
    with socket.create_connection((where.hostname, where.port or 0), timeout=5) as connection:
        connection.sendall(sent)
        assert b"" == connection.recv(100)
    assert [] == ec2.calls


@pytest.mark.kernel
def test_listener_of_another_namespace() -> None:
    """A socket made inside a network namespace serves that namespace, from any thread."""
    made: list[socket.socket] = []
    asked = threading.Event()
    statuses: list[int] = []

    def inside() -> None:
        clone_newnet = 0x40000000
        assert 0 == ctypes.CDLL(None).unshare(clone_newnet)
        subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
        made.append(socket.create_server(("127.0.0.1", 8080)))
        asked.wait(10)
        statuses.append(urllib3.request("POST", "http://127.0.0.1:8080", retries=False).status)

    thread = threading.Thread(target=inside)
    thread.start()
    while thread.is_alive() and not made:
        time.sleep(0.005)
    with Ec2Endpoint(VPC, listener=made[0]) as endpoint:
        assert "http://127.0.0.1:8080" == endpoint.url
        asked.set()
        thread.join()
    assert [400] == statuses
    assert 1 == len(endpoint.calls)
