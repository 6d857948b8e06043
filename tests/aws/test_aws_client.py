"""The one client: region, attempts, counting, and what a failure says."""

from collections import Counter
from pathlib import Path

import pytest

from reconciler import __version__
from reconciler.aws.client import CONFIG, Ec2, Ec2Error
from reconciler.aws.metadata import Metadata
from reconciler.errors import AuthorityError
from reconciler.testing.endpoint import Ec2Endpoint, Fault, FaultKind
from reconciler.testing.metadata import MetadataService
from reconciler.testing.vpc import Vpc

SUBNET = {"subnet-id": ["subnet-1"]}


def refused(ec2: Ec2) -> Ec2Error:
    """Return the error that a call ends in."""
    with pytest.raises(Ec2Error) as caught:
        list(ec2.network_interfaces(SUBNET, Counter()))
    return caught.value


def test_region_from_aws_region(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_REGION, which boto3 ignores, comes before AWS_DEFAULT_REGION, which it reads."""
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert "eu-west-3" == ec2.region


def test_region_from_profile(ec2: Ec2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without AWS_REGION the AWS configuration decides."""
    (tmp_path / "config").write_text("[profile broker]\nregion = sa-east-1\n")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "broker")
    assert "sa-east-1" == ec2.region


def test_region_from_metadata(monkeypatch: pytest.MonkeyPatch, vpc: Vpc) -> None:
    """Where nothing is configured, the instance knows its region."""
    monkeypatch.delenv("AWS_REGION")
    with MetadataService(vpc, "i-broker", region="ap-south-1") as service:
        metadata = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url})
        assert "ap-south-1" == Ec2(metadata).region
        metadata.close()


def test_no_region(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any region the error names everything that was tried."""
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(AuthorityError) as caught:
        list(ec2.network_interfaces(SUBNET, Counter()))
    for tried in ("AWS_REGION", "AWS_DEFAULT_REGION", "profile", "AWS_EC2_METADATA_DISABLED"):
        assert tried in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "nobody"),
        ("AWS_REGION", "eu west!"),
        ("AWS_ENDPOINT_URL_EC2", "nonsense"),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ],
)
def test_unusable_configuration(
    ec2: Ec2, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A broken AWS configuration is an error of the authority, not a traceback."""
    monkeypatch.setenv(name, value)
    with pytest.raises(AuthorityError, match="Nothing was changed"):
        list(ec2.network_interfaces(SUBNET, Counter()))


def test_configuration_is_explicit() -> None:
    """Attempts, time-outs and user agent do not depend on botocore's defaults."""
    assert {"mode": "standard", "total_max_attempts": 1} == CONFIG.retries
    assert 2 == CONFIG.connect_timeout
    assert f"arp-reconciler/{__version__}" == CONFIG.user_agent_extra


def test_one_attempt(ec2: Ec2, endpoint: Ec2Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK never repeats a call by itself, whatever AWS_MAX_ATTEMPTS says."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    endpoint.faults.add(Fault("throttle", times=None))
    assert refused(ec2).transient
    assert 1 == len(endpoint.calls)


def test_counts(ec2: Ec2, endpoint: Ec2Endpoint) -> None:
    """Every HTTP call is counted once, by operation and code, for the reading and in total."""
    endpoint.faults.add(Fault("throttle"))
    refused(ec2)
    endpoint.page_limit = 2
    calls: Counter[tuple[str, str]] = Counter()
    list(ec2.network_interfaces({"vpc-id": [endpoint.vpc.enis[0].vpc_id]}, calls))
    ok = ("DescribeNetworkInterfaces", "OK")
    throttled = ("DescribeNetworkInterfaces", "RequestLimitExceeded")
    assert {ok: 4} == calls
    assert {ok: 4, throttled: 1} == ec2.requests
    assert len(endpoint.calls) == ec2.requests.total()


@pytest.mark.parametrize(
    ("kind", "code", "transient"),
    [
        ("throttle", "RequestLimitExceeded", True),
        ("server_error", "InternalError", True),
        ("bad_gateway", "502", True),
        ("cut", "ResponseParserError", True),
        ("truncated", "ResponseParserError", True),
        ("garbage", "ResponseParserError", True),
        ("expired", "RequestExpired", False),
        ("expired_token", "ExpiredToken", False),
    ],
)
def test_failures(
    ec2: Ec2, endpoint: Ec2Endpoint, kind: FaultKind, code: str, *, transient: bool
) -> None:
    """Each failure has a code, and only those that may pass are worth another try."""
    endpoint.faults.add(Fault(kind))
    error = refused(ec2)
    assert (code, transient) == (error.aws_code, error.transient)
    assert "Nothing was changed" in str(error)
    assert "\n" not in str(error)


def test_denied(ec2: Ec2, endpoint: Ec2Endpoint) -> None:
    """A missing permission is named, with EC2's words and the request's id."""
    endpoint.denied.add("DescribeNetworkInterfaces")
    error = refused(ec2)
    assert (True, False) == (error.denied, error.transient)
    for words in ("UnauthorizedOperation: You are not", "(request ", "Allow ec2:DescribeNetwork"):
        assert words in str(error)


def test_unreachable(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that refuses connections may come back, and the message says what to check."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9")
    error = refused(ec2)
    assert ("EndpointConnectionError", True) == (error.aws_code, error.transient)
    assert "VPC endpoint" in str(error)


def test_no_credentials(ec2: Ec2, endpoint: Ec2Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials nothing is sent, and nothing is tried again."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refused(ec2)
    assert ("NoCredentialsError", False, []) == (error.aws_code, error.transient, endpoint.calls)


@pytest.mark.parametrize("filters", [{}, {"subnet-id": []}, {"vpc-id": ["vpc-1"], "subnet-id": []}])
def test_never_describes_all(
    ec2: Ec2, endpoint: Ec2Endpoint, filters: dict[str, list[str]]
) -> None:
    """An empty list of ids is refused before a call is made."""
    with pytest.raises(AuthorityError, match="whole region"):
        list(ec2.network_interfaces(filters, Counter()))
    assert [] == endpoint.calls


def test_managed_resources(
    ec2: Ec2, endpoint: Ec2Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Hidden ENIs are asked for where the SDK's model can, and their lack is said once."""
    list(ec2.network_interfaces(SUBNET, Counter()))
    assert "true" == endpoint.calls[0].params["IncludeManagedResources"]
    old = Ec2(Metadata({}))
    model = old._client.meta.service_model.operation_model("DescribeNetworkInterfaces")
    del model.input_shape.members["IncludeManagedResources"]
    for _ in range(2):
        list(old.network_interfaces(SUBNET, Counter()))
    assert not old.sees_managed
    assert "IncludeManagedResources" not in endpoint.calls[1].params
    assert ["authority.managed_unseen"] == [record.message for record in caplog.records]
    old.close()
