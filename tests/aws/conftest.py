"""A small VPC, its EC2 endpoint and its metadata, with the real SDK on the other side."""

from collections.abc import Iterator
from functools import cache

import pytest
from aws.broker import AWAY, HOME, US, Clock
from botocore.loaders import create_loader

from reconciler.aws.authority import Authority
from reconciler.aws.client import Ec2
from reconciler.aws.metadata import Metadata
from reconciler.core.model import Host
from reconciler.testing.endpoint import Ec2Endpoint
from reconciler.testing.metadata import MetadataService
from reconciler.testing.vpc import Vpc, eni

# Reading EC2's service model takes 0.3 s, and every test makes a client of its own.
shared_loader = cache(create_loader)


@pytest.fixture(autouse=True)
def _aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this machine's AWS settings, and its own metadata service, out of the tests."""
    monkeypatch.setattr("botocore.session.create_loader", shared_loader)
    for name in (
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_SESSION_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture
def vpc() -> Vpc:
    """Describe a broker with two ENIs, and peers of every kind."""
    return Vpc(
        subnets=(HOME, AWAY),
        enis=(
            eni(1, ["10.0.0.10", "10.0.0.11", "2001:db8::10"], subnet=HOME, instance=US),
            eni(2, ["10.0.1.10"], subnet=AWAY, instance=US, prefixes=["10.0.1.32/28"]),
            eni(3, ["10.0.0.30", "2001:db8::30"], subnet=HOME, instance="i-client"),
            eni(4, ["10.0.0.40"], subnet=HOME, prefixes=["10.0.0.64/28", "2001:db8:0:0:1::/80"]),
            eni(5, ["10.0.0.50"], subnet=HOME, interface_type="nat_gateway", description="NAT"),
            eni(6, ["10.0.0.60"], subnet=HOME, status="available"),
            eni(7, ["10.0.1.70"], subnet=AWAY, owner_id="444455556666"),
        ),
    )


@pytest.fixture
def endpoint(vpc: Vpc, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2Endpoint]:
    """Serve the VPC as EC2 would, and point the SDK there."""
    with Ec2Endpoint(vpc) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", server.url)
        yield server


@pytest.fixture
def service(vpc: Vpc) -> Iterator[MetadataService]:
    """Serve the broker's instance metadata."""
    with MetadataService(vpc, US) as server:
        yield server


@pytest.fixture
def metadata(service: MetadataService) -> Iterator[Metadata]:
    """Read the broker's metadata without waiting between attempts."""
    client = Metadata(
        {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}, sleep=lambda _seconds: None
    )
    yield client
    client.close()


@pytest.fixture
def ec2() -> Iterator[Ec2]:
    """Give a client that knows no metadata."""
    client = Ec2(Metadata({"AWS_EC2_METADATA_DISABLED": "true"}))
    yield client
    client.close()


@pytest.fixture
def authority(ec2: Ec2, endpoint: Ec2Endpoint, clock: Clock) -> Authority:
    """Read the endpoint on a clock that only waiting moves."""
    assert not endpoint.calls
    return Authority(ec2, clock=clock, sleep=clock.sleep)


@pytest.fixture
def host(metadata: Metadata) -> Host:
    """Say who the broker is."""
    return metadata.host()
