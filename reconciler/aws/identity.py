"""Who this host is: from instance metadata, else from the API by the links' MACs."""

import logging
from collections.abc import Collection

from reconciler.aws.authority import Authority
from reconciler.aws.metadata import Metadata, MetadataError
from reconciler.core.model import Eni, Host, HostEni, Mac, format_mac
from reconciler.errors import AuthorityError, IdentityError

log = logging.getLogger(__name__)

_REMEDY = (
    "In a container raise the instance's metadata hop limit (the default 1 "
    "reaches the host's own network namespace only), or set AWS_EC2_METADATA_SERVICE_ENDPOINT, or "
    "allow ec2:DescribeNetworkInterfaces for the account that owns the ENIs."
)


def identify(metadata: Metadata, authority: Authority, macs: Collection[Mac]) -> Host:
    """Say which instance this is and what ENIs it holds.

    ``macs`` are those of the kernel's physical links; they are looked up in the
    API only where metadata cannot tell.

    Raises:
        IdentityError: neither knows, or the MACs belong to several instances.
    """
    try:
        host = metadata.host()
        if host.enis:
            return host
        how = "it describes no network interface whole"
    except MetadataError as error:
        how = str(error)
    log.debug("identity.by_mac", extra={"metadata": how})
    try:
        return _by_mac(authority, frozenset(macs))
    except AuthorityError as error:
        raise IdentityError(
            f"Nobody says which EC2 instance this is. Metadata: {how}. API: {error} {_REMEDY}"
        ) from error


def _by_mac(authority: Authority, macs: frozenset[Mac]) -> Host:
    asked = sorted(map(format_mac, macs))
    if not asked:
        raise IdentityError(
            "there is no physical link whose MAC could be looked up. Nothing was changed."
        )
    found = [eni for eni in authority.find("mac-address", asked) if eni.live]
    instances = sorted({eni.instance_id for eni in found if eni.instance_id})
    if len(instances) != 1:
        whose = f"belong to {', '.join(instances)}" if instances else "are no instance's ENI"
        raise IdentityError(
            f"the MACs {', '.join(asked)} {whose} in this account and region. Nothing was changed."
        )
    ours = {eni.eni_id: eni for eni in found if eni.instance_id}
    # EC2 is eventually consistent: an ENI just seen by its MAC is not lost to a second answer.
    ours |= {eni.eni_id: eni for eni in authority.find("attachment.instance-id", instances)}
    accounts = [eni.instance_owner_id for eni in ours.values() if eni.instance_owner_id]
    return Host(
        instance_id=instances[0],
        account_id=accounts[0] if accounts else None,
        enis=tuple(map(_of_host, ours.values())),
        source="api",
    )


def _of_host(eni: Eni) -> HostEni:
    return HostEni(
        eni_id=eni.eni_id,
        mac=eni.mac,
        subnet_id=eni.subnet_id,
        vpc_id=eni.vpc_id,
        owner_id=eni.owner_id,
        addresses=eni.addresses,
        prefixes=eni.prefixes,
    )


__all__ = ["identify"]
