"""The one EC2 client of this process: region, time-outs, and what a failure means.

botocore makes a single attempt here. Attempts multiply, and only the caller
that reads a whole answer knows whether a second one is worth it: the retry
policy stands around the whole reading, in ``reconciler.aws.authority``.
"""

import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as sdk
from botocore.config import Config
from botocore.parsers import ResponseParserError

from reconciler import __version__
from reconciler.aws.metadata import Metadata, MetadataError
from reconciler.core.model import Address, pack_address
from reconciler.errors import AuthorityError

log = logging.getLogger(__name__)

PAGE_SIZE = 1000  # The most that EC2 accepts; unpaginated calls are throttled harder.

# Client configuration is explicit: botocore's default retry mode changed in 1.44.
CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 1},
    connect_timeout=2,
    user_agent_extra=f"arp-reconciler/{__version__}",
)

DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "EC2ThrottledException",
        "TooManyRequestsException",
        "SlowDown",
        "429",
    }
)
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.MetadataRetrievalError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    sdk.LoginError,
)
# TLS errors are among the connection faults: a cut handshake looks the same as a bad certificate.
_UNREACHABLE = (sdk.ConnectionError, sdk.HTTPClientError, sdk.IncompleteReadError)

Calls = Counter[tuple[str, str]]


class Ec2Error(AuthorityError):
    """EC2 failed, refused, or answered something that cannot be believed.

    ``aws_code`` is EC2's error code, or the name of the SDK's exception.
    ``transient`` says whether the same call may succeed a moment later.
    """

    def __init__(self, message: str, *, aws_code: str, transient: bool = False) -> None:
        super().__init__(message)
        self.aws_code = aws_code
        self.transient = transient

    @property
    def kind(self) -> str:
        """One code of EC2's is one failure."""
        return f"{self.code} {self.aws_code}"

    @property
    def denied(self) -> bool:
        """Whether a permission is missing."""
        return self.aws_code in DENIED


class Ec2:
    """Makes EC2 calls with one session and one client, made when first needed.

    Credentials, profile, endpoint and certificates come the way boto3 takes
    them. ``requests`` counts every call by (operation, code); the code is
    ``OK``, EC2's error code, or the name of the SDK's exception. ``read_timeout``
    is in seconds, for each answer.
    """

    def __init__(self, metadata: Metadata, *, read_timeout: float = 10.0) -> None:
        self._metadata = metadata
        self._config = CONFIG.merge(Config(read_timeout=read_timeout))
        self.requests: Calls = Counter()

    @cached_property
    def _session(self) -> Any:
        # botocore itself reads AWS_DEFAULT_REGION only.
        return boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None)

    @cached_property
    def region(self) -> str:
        """The region: AWS_REGION, else what boto3 finds, else instance metadata.

        Raises:
            AuthorityError: none of them names one (the message says what was
                tried), or the AWS configuration cannot be used.
        """
        try:
            region = self._session.region_name
        except sdk.BotoCoreError as error:
            raise _unusable(error) from error
        if region:
            return str(region)
        try:
            region = self._metadata.region()
            how = "has no placement/region"
        except MetadataError as error:
            how = f"failed: {error}"
        if region:
            return str(region)
        raise AuthorityError(
            "No AWS region: AWS_REGION and AWS_DEFAULT_REGION are unset, the AWS profile names "
            f"none, and instance metadata {how}. Nothing was changed. Set AWS_REGION."
        )

    @cached_property
    def _client(self) -> Any:
        region = self.region
        try:
            return self._session.client("ec2", region_name=region, config=self._config)
        except (sdk.BotoCoreError, ValueError) as error:
            raise _unusable(error) from error

    @cached_property
    def sees_managed(self) -> bool:
        """Whether the loaded SDK model can ask for service-managed ENIs; warns once if not.

        Accounts can hide those from describe calls by default, and a hidden ENI
        remains fully operational (EC2 API, DescribeNetworkInterfaces).

        Raises:
            AuthorityError: no client can be made.
        """
        model = self._client.meta.service_model.operation_model("DescribeNetworkInterfaces")
        if "IncludeManagedResources" in model.input_shape.members:
            return True
        log.warning(
            "authority.managed_unseen",
            extra={
                "remedy": "upgrade boto3: addresses of hidden ENIs cannot be told from nobody's"
            },
        )
        return False

    def network_interfaces(self, filters: dict[str, list[str]], calls: Calls) -> Iterator[Any]:
        """Yield one page of DescribeNetworkInterfaces after the other, managed ENIs included.

        Raises:
            AuthorityError: a call failed (``Ec2Error``), or no client can be made.
        """
        managed = {"IncludeManagedResources": True} if self.sees_managed else {}
        return self._pages("DescribeNetworkInterfaces", filters, calls, managed)

    def subnets(self, filters: dict[str, list[str]], calls: Calls) -> Iterator[Any]:
        """Yield one page of DescribeSubnets after the other.

        Raises:
            AuthorityError: a call failed (``Ec2Error``), or no client can be made.
        """
        return self._pages("DescribeSubnets", filters, calls, {})

    def endpoint_addresses(self) -> frozenset[Address]:
        """Resolve the host that EC2 is asked at; empty where there is none or no name service."""
        try:
            host = urlsplit(self._client.meta.endpoint_url).hostname
            found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
        except (AuthorityError, OSError, UnicodeError):
            return frozenset()
        return frozenset(pack_address(str(address[0]).partition("%")[0]) for *_, address in found)

    def close(self) -> None:
        """Close the connections, if any were made."""
        if "_client" in self.__dict__:
            self._client.close()

    def _pages(
        self, operation: str, filters: dict[str, list[str]], calls: Calls, more: dict[str, bool]
    ) -> Iterator[Any]:
        # EC2 answers an empty filter like no filter at all: everything in the region.
        if not filters or not all(filters.values()):
            raise AuthorityError(
                f"{operation} was not called: a filter without values would describe the whole "
                f"region ({', '.join(filters) or 'none given'}). Nothing was changed."
            )
        paginator = self._client.get_paginator(re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())
        pages = iter(
            paginator.paginate(
                Filters=[{"Name": name, "Values": values} for name, values in filters.items()],
                PaginationConfig={"PageSize": PAGE_SIZE},
                **more,
            )
        )
        while True:
            try:
                page = next(pages)
            except StopIteration:
                return
            except Exception as error:  # The SDK's parser raises whatever the bytes cause.
                failure = _translate(operation, error)
                self._count(calls, operation, failure.aws_code)
                raise failure from error
            self._count(calls, operation, "OK")
            yield page

    def _count(self, calls: Calls, operation: str, code: str) -> None:
        calls[operation, code] += 1
        self.requests[operation, code] += 1


def _unusable(error: Exception) -> AuthorityError:
    return AuthorityError(
        f"No EC2 client can be made: {_one_line(error)}. Nothing was changed. Check AWS_PROFILE, "
        "the AWS configuration files, AWS_REGION and AWS_ENDPOINT_URL."
    )


def _translate(operation: str, error: Exception) -> Ec2Error:
    """Say what a failed call means: what EC2 said, and what to do."""
    code = type(error).__name__
    said = _one_line(error)
    transient = False
    if isinstance(error, sdk.ClientError):
        code, said, transient = _refusal(error.response)
    if code in DENIED:
        remedy = f"Allow ec2:{operation} on resource * in the role of this instance."
    elif code in _CREDENTIALS or isinstance(error, _NO_CREDENTIALS):
        remedy = (
            "Check the credentials (instance role and metadata, AWS_PROFILE, environment) and "
            "this machine's clock."
        )
    elif code in THROTTLED:
        remedy = "Everybody in this account and region shares the limit: read less often."
    elif isinstance(error, _UNREACHABLE):
        transient = True
        remedy = (
            "Check that the EC2 endpoint can be reached: DNS, route or VPC endpoint, security "
            "group, proxy, AWS_ENDPOINT_URL."
        )
    elif isinstance(error, sdk.ClientError):
        remedy = "It is tried again with the next pass." if transient else "See EC2's message."
    else:
        # A cut or truncated body ends here too, and the next one may be whole.
        transient = isinstance(error, ResponseParserError)
        remedy = "Check that AWS_ENDPOINT_URL, if set, names EC2, and that boto3 is up to date."
    return Ec2Error(
        f"{operation} failed: {said}. Nothing was changed. {remedy}",
        aws_code=code,
        transient=transient,
    )


def _refusal(response: Any) -> tuple[str, str, bool]:
    """Take EC2's own words out of an error answer: code, sentence, worth another try."""
    error = response.get("Error") or {}
    told = response.get("ResponseMetadata") or {}
    code = str(error.get("Code") or "Unknown")
    status = told.get("HTTPStatusCode")
    said = f"{code}: {_one_line(error.get('Message') or 'no message')}"
    if request_id := told.get("RequestId"):
        said += f" (request {request_id})"
    server_side = isinstance(status, int) and status >= 500
    return code, said, server_side or code in THROTTLED


def _one_line(words: object) -> str:
    return " ".join(str(words).split())[:300].rstrip(".") or type(words).__name__


__all__ = ["Calls", "Ec2", "Ec2Error"]
