"""The instance metadata service (version 2) for one machine, answered from a ``Vpc``.

Only what says who this instance is: identity, placement, the per-MAC keys of its
ENIs, and role credentials with which the real SDK can sign. Source of the keys:
the EC2 user guide's instance metadata categories.
"""

import ipaddress
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Union
from urllib.parse import unquote

from reconciler.core.model import Eni, Prefix, format_address, format_mac
from reconciler.testing.endpoint import REGION
from reconciler.testing.http import HttpServer, Reply, Request
from reconciler.testing.vpc import ACCOUNT, Vpc

ROLE = "arp-reconciler"
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - the name of a header.

Tree = Mapping[str, Union[str, "Tree"]]


@dataclass(frozen=True, slots=True)
class MetadataCall:
    """One request as it came in, and the HTTP status given."""

    method: str
    path: str
    status: int


class MetadataService(HttpServer):
    """Instance metadata of one instance of a ``Vpc``; version 2 only.

    Args:
        vpc: the description; the instance has the ENIs that carry its id.
        instance_id: whose metadata this is.
        region: the region it claims to be in.
        listener: see ``HttpServer``.
        clock: seconds, for the age of tokens.

    Attributes:
        vpc: may be replaced at any time: an ENI plugged in or out, an address moved.
        status: where set, every answer has this status and no content.
        calls: every request so far.
        latency: seconds added to every answer.
    """

    def __init__(
        self,
        vpc: Vpc,
        instance_id: str,
        *,
        region: str = REGION,
        listener: socket.socket | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(listener=listener)
        self.vpc = vpc
        self.status: int | None = None
        self.calls: list[MetadataCall] = []
        self._instance_id = instance_id
        self._region = region
        self._clock = clock
        self._tokens: dict[str, float] = {}

    def expire_tokens(self) -> None:
        """Forget every token given out: their next use is a 401."""
        self._tokens.clear()

    def respond(self, request: Request) -> Reply | None:
        """Answer one request."""
        path = unquote(request.target.partition("?")[0])
        reply = Reply(self.status) if self.status else self._answer(request, path)
        self.calls.append(MetadataCall(request.method, path, reply.status))
        return reply

    def _answer(self, request: Request, path: str) -> Reply:
        if path == "/latest/api/token":
            return self._give_token(request)
        if request.method != "GET":
            return Reply(405)
        expiry = self._tokens.get(request.headers.get(TOKEN_HEADER, ""))
        if expiry is None or expiry <= self._clock():
            return Reply(401)
        found: str | Tree = {"latest": self._tree()}
        for name in filter(None, path.split("/")):
            if isinstance(found, str) or name not in found:
                return Reply(404)
            found = found[name]
        return Reply(200, (found if isinstance(found, str) else _listing(found)).encode())

    def _give_token(self, request: Request) -> Reply:
        if request.method != "PUT":
            return Reply(405)
        ttl = request.headers.get(TTL_HEADER, "")
        # Source: the user guide's "Use IMDSv2": one second to six hours.
        if not ttl.isdecimal() or not 1 <= int(ttl) <= 21600:
            return Reply(400)
        token = secrets.token_urlsafe(42)
        self._tokens[token] = self._clock() + int(ttl)
        return Reply(200, token.encode(), headers={TTL_HEADER: ttl})

    def _tree(self) -> Tree:
        vpc = self.vpc
        enis = [eni for eni in vpc.enis if eni.instance_id == self._instance_id]
        account = next((eni.instance_owner_id for eni in enis if eni.instance_owner_id), ACCOUNT)
        placement = {"region": self._region, "availability-zone": f"{self._region}a"}
        meta_data: dict[str, str | Tree] = {
            "iam": {"security-credentials": {ROLE: _credentials()}},
            "instance-id": self._instance_id,
            "network": {
                "interfaces": {
                    "macs": {
                        format_mac(eni.mac): _interface(vpc, eni, number)
                        for number, eni in enumerate(enis)
                    }
                }
            },
            "placement": placement,
        }
        if enis:
            meta_data["mac"] = format_mac(enis[0].mac)
        document = {
            "accountId": account,
            "availabilityZone": placement["availability-zone"],
            "instanceId": self._instance_id,
            "region": self._region,
            "version": "2017-09-30",
        }
        return {
            "dynamic": {"instance-identity": {"document": json.dumps(document, indent=2)}},
            "meta-data": meta_data,
        }


def _listing(tree: Tree) -> str:
    """List a folder: one name a line, folders with a slash."""
    return "\n".join(
        name if isinstance(value, str) else f"{name}/" for name, value in sorted(tree.items())
    )


def _interface(vpc: Vpc, eni: Eni, number: int) -> Tree:
    """Write one ENI's keys; what it does not have is absent, as on EC2."""
    subnet_cidrs = [
        cidr for subnet in vpc.subnets if subnet.subnet_id == eni.subnet_id for cidr in subnet.cidrs
    ]
    vpc_cidrs = {
        # The description has no blocks of the VPC's own; a /16 is EC2's largest.
        str(ipaddress.ip_network((cidr.address, min(cidr.length, 16)), strict=False))
        for subnet in vpc.subnets
        if subnet.vpc_id == eni.vpc_id
        for cidr in subnet.cidrs
        if len(cidr.address) == 4
    }
    keys = {
        "device-number": [str(number)],
        "interface-id": [eni.eni_id],
        "ipv4-prefix": _of_family(eni.prefixes, 4),
        "ipv6-prefix": _of_family(eni.prefixes, 16),
        "ipv6s": [format_address(address) for address in eni.addresses if len(address) == 16],
        "local-ipv4s": [format_address(address) for address in eni.addresses if len(address) == 4],
        "mac": [format_mac(eni.mac)],
        "owner-id": [eni.owner_id] if eni.owner_id else [],
        "subnet-id": [eni.subnet_id],
        "subnet-ipv4-cidr-block": _of_family(subnet_cidrs, 4)[:1],
        "subnet-ipv6-cidr-blocks": _of_family(subnet_cidrs, 16),
        "vpc-id": [eni.vpc_id],
        "vpc-ipv4-cidr-blocks": sorted(vpc_cidrs),
    }
    return {name: "\n".join(values) for name, values in keys.items() if values}


def _of_family(prefixes: "tuple[Prefix, ...] | list[Prefix]", size: int) -> list[str]:
    return [str(prefix) for prefix in prefixes if len(prefix.address) == size]


def _credentials() -> str:
    """Write credentials in the shape that the SDK's own fetcher expects."""
    now = datetime.now(UTC)
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAEXAMPLE",
            "SecretAccessKey": "example",
            "Token": "example",
            "Expiration": f"{now + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}",
        },
        indent=2,
    )


__all__ = ["ROLE", "MetadataCall", "MetadataService"]
