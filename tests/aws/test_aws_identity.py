"""Who this host is: metadata first, then the API."""

from dataclasses import replace

import pytest
from aws.broker import US

from reconciler.aws.authority import Authority
from reconciler.aws.identity import identify
from reconciler.aws.metadata import Metadata
from reconciler.errors import IdentityError
from reconciler.testing.endpoint import Ec2Endpoint, Fault
from reconciler.testing.metadata import MetadataService
from reconciler.testing.vpc import ACCOUNT, Vpc

NO_METADATA = Metadata({"AWS_EC2_METADATA_DISABLED": "true"})


def test_metadata_first(metadata: Metadata, authority: Authority, endpoint: Ec2Endpoint) -> None:
    """Where metadata answers, the API is not asked."""
    host = identify(metadata, authority, [])
    assert (US, "metadata", []) == (host.instance_id, host.source, endpoint.calls)


def test_by_mac(authority: Authority, endpoint: Ec2Endpoint) -> None:
    """One link's MAC is enough to find the instance and every ENI it holds."""
    ours = endpoint.vpc.enis[:2]
    host = identify(NO_METADATA, authority, [ours[0].mac, b"\x02\xff\xff\xff\xff\xff"])
    assert (US, ACCOUNT, "api") == (host.instance_id, host.account_id, host.source)
    assert [(e.eni_id, e.mac, e.subnet_id, e.addresses, e.prefixes) for e in ours] == [
        (e.eni_id, e.mac, e.subnet_id, e.addresses, e.prefixes) for e in host.enis
    ]
    assert {("DescribeNetworkInterfaces", "OK"): 2} == authority.requests


def test_metadata_without_interfaces(
    metadata: Metadata, authority: Authority, endpoint: Ec2Endpoint, service: MetadataService
) -> None:
    """Metadata that describes no ENI whole is no answer."""
    service.vpc = Vpc((), ())
    assert "api" == identify(metadata, authority, [endpoint.vpc.enis[0].mac]).source


def test_replicas_disagree(authority: Authority, endpoint: Ec2Endpoint) -> None:
    """An ENI that was just found by its MAC stays ours though the next answer lacks it."""
    first, second = endpoint.vpc.enis[:2]
    endpoint.faults.add(Fault("lacking", ids=(first.eni_id,), after=1))
    host = identify(NO_METADATA, authority, [first.mac])
    assert [first.eni_id, second.eni_id] == [eni.eni_id for eni in host.enis]
    assert not endpoint.faults


@pytest.mark.parametrize(
    ("macs", "words"),
    [
        ([], "no physical link"),
        ([b"\x02\xff\xff\xff\xff\xff"], "02:ff:ff:ff:ff:ff are no instance's"),
        ([b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\3"], "belong to i-broker, i-client"),
        ([b"\x02\0\0\0\0\6"], "02:00:00:00:00:06 are no instance's"),
    ],
)
def test_nobody_knows(authority: Authority, macs: list[bytes], words: str) -> None:
    """No match, or two instances, is an error that says what was tried and what to do."""
    with pytest.raises(IdentityError) as caught:
        identify(NO_METADATA, authority, macs)
    for said in (words, "AWS_EC2_METADATA_DISABLED", "hop limit", "Nothing was changed"):
        assert said in str(caught.value)


def test_denied(authority: Authority, endpoint: Ec2Endpoint) -> None:
    """A denied API call is told beside what metadata said."""
    endpoint.denied.add("DescribeNetworkInterfaces")
    with pytest.raises(IdentityError, match=r"AWS_EC2_METADATA_DISABLED.*UnauthorizedOperation"):
        identify(NO_METADATA, authority, [b"\x02\0\0\0\0\1"])


def test_another_instance_of_that_mac(authority: Authority, endpoint: Ec2Endpoint) -> None:
    """An ENI that is being detached no longer says whose host this is."""
    endpoint.vpc = endpoint.vpc.with_eni(replace(endpoint.vpc.enis[0], status="detaching"))
    with pytest.raises(IdentityError):
        identify(NO_METADATA, authority, [endpoint.vpc.enis[-1].mac])
