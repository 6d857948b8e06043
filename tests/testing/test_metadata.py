"""The lab's instance metadata service, asked by hand and by the real SDK."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import boto3
import pytest
import urllib3

from reconciler.testing.endpoint import Ec2Endpoint
from reconciler.testing.metadata import ROLE, MetadataCall, MetadataService
from reconciler.testing.vpc import ACCOUNT, Vpc, eni, subnet

SUBNET = subnet(1, ["10.0.0.0/24", "2001:db8::/64"])
OTHER = subnet(2, ["10.7.1.0/24"])
FAR = subnet(3, ["192.168.0.0/24"], vpc=2)
FIRST = eni(
    1,
    ["10.0.0.10", "10.0.0.11", "2001:db8::a"],
    subnet=SUBNET,
    prefixes=["10.0.0.64/28", "2001:db8::1:0:0:0/80"],
    instance="i-1",
)
SECOND = eni(2, ["10.7.1.10"], subnet=OTHER, instance="i-1", owner_id="999999999999")
FOREIGN = eni(3, ["10.0.0.20"], subnet=SUBNET, instance="i-2")
VPC = Vpc((SUBNET, OTHER, FAR), (FIRST, SECOND, FOREIGN))
MACS = "/latest/meta-data/network/interfaces/macs/"


class Asker:
    """Metadata version 2 by hand: a token, then a path."""

    def __init__(self, service: MetadataService) -> None:
        self.service = service
        self.token = self.put().data.decode()

    def put(self, ttl: str = "60") -> urllib3.BaseHTTPResponse:
        """Ask for a token."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": ttl}
        url = f"{self.service.url}/latest/api/token"
        return urllib3.request("PUT", url, headers=headers, retries=False, timeout=5)

    def get(self, path: str) -> tuple[int, str]:
        """Ask for a path with the token."""
        headers = {"X-aws-ec2-metadata-token": self.token}
        url = f"{self.service.url}{path}"
        answer = urllib3.request("GET", url, headers=headers, retries=False, timeout=5)
        return answer.status, answer.data.decode()


@pytest.fixture
def service() -> Iterator[MetadataService]:
    """The metadata of i-1."""
    with MetadataService(VPC, "i-1", clock=repeat(0.0).__next__) as service:
        yield service


@pytest.fixture
def asker(service: MetadataService) -> Asker:
    """Somebody with a token."""
    return Asker(service)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/latest/", "dynamic/\nmeta-data/"),
        ("/latest/meta-data/", "iam/\ninstance-id\nmac\nnetwork/\nplacement/"),
        ("/latest/meta-data/instance-id", "i-1"),
        ("/latest/meta-data/mac", "02:00:00:00:00:01"),
        ("/latest/meta-data/placement/region", "eu-central-1"),
        ("/latest/meta-data/placement/availability-zone", "eu-central-1a"),
        (MACS, "02:00:00:00:00:01/\n02:00:00:00:00:02/"),
        (MACS + "02:00:00:00:00:01/interface-id", FIRST.eni_id),
        (MACS + "02:00:00:00:00:01/subnet-id", SUBNET.subnet_id),
        (MACS + "02:00:00:00:00:01/vpc-id", SUBNET.vpc_id),
        (MACS + "02:00:00:00:00:01/owner-id", ACCOUNT),
        (MACS + "02:00:00:00:00:02/owner-id", "999999999999"),
        (MACS + "02:00:00:00:00:01/device-number", "0"),
        (MACS + "02:00:00:00:00:02/device-number", "1"),
        (MACS + "02:00:00:00:00:01/subnet-ipv4-cidr-block", "10.0.0.0/24"),
        (MACS + "02:00:00:00:00:01/subnet-ipv6-cidr-blocks", "2001:db8::/64"),
        (MACS + "02:00:00:00:00:01/vpc-ipv4-cidr-blocks", "10.0.0.0/16\n10.7.0.0/16"),
        (MACS + "02:00:00:00:00:01/local-ipv4s", "10.0.0.10\n10.0.0.11"),
        (MACS + "02:00:00:00:00:01/ipv6s", "2001:db8::a"),
        (MACS + "02:00:00:00:00:01/ipv4-prefix", "10.0.0.64/28"),
        (MACS + "02:00:00:00:00:01/ipv6-prefix", "2001:db8:0:0:1::/80"),
        (
            MACS + "02:00:00:00:00:02/",
            "device-number interface-id local-ipv4s mac owner-id subnet-id "
            "subnet-ipv4-cidr-block vpc-id vpc-ipv4-cidr-blocks".replace(" ", "\n"),
        ),
        ("/latest/meta-data/iam/security-credentials/", ROLE),
    ],
)
def test_keys(asker: Asker, path: str, expected: str) -> None:
    """Every key has the instance's own value, folders list their members."""
    assert (200, expected) == asker.get(path)


@pytest.mark.parametrize(
    "path",
    [
        "/latest/meta-data/nothing",
        "/latest/meta-data/instance-id/more",
        MACS + "02:00:00:00:00:03/interface-id",
        MACS + "02:00:00:00:00:02/ipv6s",
        MACS + "02:00:00:00:00:02/ipv4-prefix",
    ],
)
def test_absent_keys(asker: Asker, path: str) -> None:
    """What the instance does not have is not found."""
    assert (404, "") == asker.get(path)


def test_identity_document(asker: Asker) -> None:
    """The identity document names account, instance and region."""
    status, text = asker.get("/latest/dynamic/instance-identity/document")
    document = json.loads(text)
    assert (200, ACCOUNT, "i-1", "eu-central-1") == (
        status,
        document["accountId"],
        document["instanceId"],
        document["region"],
    )


def test_version_1_is_refused(asker: Asker) -> None:
    """Without a token, or with one never given out, nothing is said."""
    for token in ("", "made-up"):
        asker.token = token
        assert (401, "") == asker.get("/latest/meta-data/instance-id")


@pytest.mark.parametrize("ttl", ["", "0", "21601", "soon"])
def test_token_needs_a_lifetime(asker: Asker, ttl: str) -> None:
    """A token is given for one second to six hours."""
    assert 400 == asker.put(ttl).status


def test_tokens_age() -> None:
    """A token is good until its lifetime is over."""
    now = [100.0]
    with MetadataService(VPC, "i-1", clock=lambda: now[0]) as service:
        asker = Asker(service)
        now[0] = 159.0
        assert (200, "i-1") == asker.get("/latest/meta-data/instance-id")
        now[0] = 160.0
        assert (401, "") == asker.get("/latest/meta-data/instance-id")


def test_expire_tokens(asker: Asker) -> None:
    """Expired tokens are a 401; a new one works, and all of it is on record."""
    asker.service.expire_tokens()
    assert (401, "") == asker.get("/latest/meta-data/mac")
    asker.token = asker.put().data.decode()
    assert (200, "02:00:00:00:00:01") == asker.get("/latest/meta-data/mac")
    assert [
        MetadataCall("PUT", "/latest/api/token", 200),
        MetadataCall("GET", "/latest/meta-data/mac", 401),
        MetadataCall("PUT", "/latest/api/token", 200),
        MetadataCall("GET", "/latest/meta-data/mac", 200),
    ] == asker.service.calls


@pytest.mark.parametrize("status", [401, 404, 503])
def test_forced_status(asker: Asker, status: int) -> None:
    """A forced status is every answer's, the token's included, until it is lifted."""
    asker.service.status = status
    assert (status, "") == asker.get("/latest/meta-data/instance-id")
    assert status == asker.put().status
    asker.service.status = None
    assert (200, "i-1") == asker.get("/latest/meta-data/instance-id")


def test_vpc_is_replaced(asker: Asker) -> None:
    """An ENI that is unplugged disappears with the next answer; without any, so does the mac."""
    asker.service.vpc = VPC.without_eni(FIRST.eni_id)
    assert (200, "02:00:00:00:00:02/") == asker.get(MACS)
    asker.service.vpc = replace(VPC, enis=())
    assert (200, "") == asker.get(MACS)
    assert (404, "") == asker.get("/latest/meta-data/mac")


def test_methods(service: MetadataService) -> None:
    """Only PUT gives tokens and only GET gives values."""
    token = f"{service.url}/latest/api/token"
    value = f"{service.url}/latest/meta-data/mac"
    assert 405 == urllib3.request("GET", token, retries=False).status
    assert 405 == urllib3.request("PUT", value, retries=False).status


def test_role_credentials(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real SDK takes credentials from here and signs a call to the lab's EC2 with them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    with Ec2Endpoint(VPC) as ec2:
        session = boto3.Session(region_name="eu-central-1")
        credentials = session.get_credentials()
        client = session.client("ec2", endpoint_url=ec2.url)
        assert 3 == len(client.describe_network_interfaces(MaxResults=5)["NetworkInterfaces"])
        client.close()
    assert "iam-role" == credentials.method
    assert "ASIAEXAMPLE" == credentials.access_key
