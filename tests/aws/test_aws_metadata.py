"""Instance metadata: what it says of this host, and how it fails."""

from dataclasses import replace

import pytest
from aws.broker import AWAY, HOME, US, Clock

from reconciler.aws.metadata import Metadata, MetadataError
from reconciler.core.model import Prefix, pack_address
from reconciler.testing.metadata import MetadataService
from reconciler.testing.vpc import ACCOUNT, Vpc


def test_host(metadata: Metadata) -> None:
    """Metadata names the instance, its account and each ENI with all that is its own."""
    host = metadata.host()
    first, second = host.enis
    assert (US, ACCOUNT, "metadata") == (host.instance_id, host.account_id, host.source)
    assert (HOME.subnet_id, HOME.vpc_id, HOME.cidrs) == (
        first.subnet_id,
        first.vpc_id,
        first.subnet_cidrs,
    )
    assert b"\x02\0\0\0\0\1" == first.mac
    assert (*map(pack_address, ("10.0.0.10", "10.0.0.11", "2001:db8::10")),) == first.addresses
    assert (AWAY.subnet_id, (Prefix.parse("10.0.1.32/28"),)) == (
        second.subnet_id,
        second.prefixes,
    )


def test_half_attached(metadata: Metadata, service: MetadataService) -> None:
    """A MAC whose ENI is not yet described is passed over."""
    arriving = replace(service.vpc.eni(service.vpc.enis[1].eni_id), subnet_id="")
    service.vpc = service.vpc.with_eni(arriving)
    assert [service.vpc.enis[0].eni_id] == [eni.eni_id for eni in metadata.host().enis]


def test_account_from_document(metadata: Metadata, service: MetadataService) -> None:
    """Where no ENI names its owner, the identity document names the account."""
    service.vpc = Vpc(
        service.vpc.subnets, tuple(replace(e, owner_id=None) for e in service.vpc.enis)
    )
    assert ACCOUNT == metadata.host().account_id


def test_token_is_renewed_once(metadata: Metadata, service: MetadataService) -> None:
    """A token that is no longer known is replaced, and one that is known is kept."""
    metadata.region()
    metadata.region()
    service.expire_tokens()
    assert "eu-central-1" == metadata.region()
    assert ["PUT", "GET", "GET", "GET", "PUT", "GET"] == [call.method for call in service.calls]


def test_always_unauthorized(metadata: Metadata, service: MetadataService) -> None:
    """A service that takes no token is given up after one renewal."""
    metadata.region()
    service.calls.clear()
    service.status = 401
    with pytest.raises(MetadataError, match="401"):
        metadata.region()
    assert 2 == len(service.calls)


@pytest.mark.parametrize(("status", "attempts"), [(503, 3), (403, 1), (404, 1)])
def test_status(metadata: Metadata, service: MetadataService, status: int, attempts: int) -> None:
    """A fault is tried again briefly, a refusal is not, and either names the endpoint."""
    service.status = status
    with pytest.raises(MetadataError, match=f"{service.url} answered {status}"):
        metadata.host()
    assert attempts == len(service.calls)


def test_recovers_from_a_fault(service: MetadataService) -> None:
    """One bad answer does not spoil the look."""
    service.status = 503

    def mend(_seconds: float) -> None:
        service.status = None

    metadata = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}, sleep=mend)
    assert US == metadata.host().instance_id
    metadata.close()


def test_a_slow_service_is_given_up(
    service: MetadataService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service whose every answer takes a while cannot hold a look for longer than 5 s."""
    metadata = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}, clock=clock)
    respond = service.respond

    def slowly(request: object) -> object:
        clock.sleep(0.9)
        return respond(request)  # type: ignore[arg-type]

    monkeypatch.setattr(service, "respond", slowly)
    with pytest.raises(MetadataError, match="more than 5 s"):
        metadata.host()
    assert 5.4 >= clock.now - 1000.0
    metadata.close()


def test_silence(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that says nothing is tried again and then reported."""
    monkeypatch.setattr("reconciler.aws.metadata._PATIENCE", 0.05)
    service.latency = 0.3
    metadata = Metadata(
        {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}, sleep=lambda _seconds: None
    )
    with pytest.raises(MetadataError, match="did not answer"):
        metadata.host()
    assert 3 == len(service.calls)
    metadata.close()


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "http://169.254.169.254"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, "http://[fd00:ec2::254]"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://lab:1338/"}, "http://lab:1338"),
    ],
)
def test_endpoint(environ: dict[str, str], endpoint: str) -> None:
    """The service is looked for where every AWS tool looks."""
    assert endpoint == Metadata(environ)._endpoint()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "TRUE"}, "AWS_EC2_METADATA_DISABLED"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "both"}, "'both', not IPv4 or IPv6"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "nowhere at all"}, "nowhere at all is no address"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "ftp://example"}, "ftp://example is no address"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"}, "did not answer"),
    ],
)
def test_unusable_settings(environ: dict[str, str], words: str) -> None:
    """A setting that leads nowhere is named."""
    with pytest.raises(MetadataError, match=words):
        Metadata(environ, sleep=lambda _seconds: None).host()


@pytest.mark.parametrize("body", ["<html>hello</html>", "10.0.0.1/24", ":::", "\n\n"])
def test_nonsense(metadata: Metadata, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A service that answers everything alike, as other clouds' do, is no metadata."""
    monkeypatch.setattr(metadata, "_ask", lambda *_: (200, body))
    with pytest.raises(MetadataError):
        metadata.host()
