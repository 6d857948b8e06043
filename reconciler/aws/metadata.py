"""Instance metadata, version 2 only: who this instance is and which ENIs it holds.

Everything here can be had from the API too, so a missing or slow service ends
in a clear error within seconds and never in a long wait.

Source of paths and headers: Amazon EC2 User Guide, "Use the Instance Metadata
Service" and "Instance metadata categories".
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from reconciler.core.model import Host, HostEni, Prefix, pack_address, pack_mac
from reconciler.errors import AuthorityError

_TOKEN_SECONDS = "21600"  # noqa: S105 - the longest life EC2 gives a token, no secret.
_TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name.
_PATIENCE = 1.0  # Seconds for one connect or read: the service is on the host itself.
_ATTEMPTS = 3
_LOOK = 5.0  # Seconds that a whole look may take.
_ENDPOINTS = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}
_MACS = "meta-data/network/interfaces/macs/"


class MetadataError(AuthorityError):
    """Instance metadata is off, out of reach, or answers something else than metadata."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class Metadata:
    """Reads instance metadata, as every AWS tool is told to find it.

    Honours AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE
    and AWS_EC2_METADATA_DISABLED; never a proxy. A look takes about 5 seconds at most.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = environ
        self._sleep = sleep
        self._clock = clock
        self._pool = urllib3.PoolManager(retries=False)
        self._token: str | None = None
        self._until = 0.0

    def region(self) -> str | None:
        """Return the region; None when metadata has none.

        Raises:
            MetadataError: metadata cannot be read.
        """
        self._until = self._clock() + _LOOK
        # Cutting a letter off the zone instead would be wrong in Local Zones.
        return self._get("meta-data/placement/region")

    def host(self) -> Host:
        """Say who this instance is, with every ENI that metadata describes whole.

        Raises:
            MetadataError: metadata cannot be read, or makes no sense.
        """
        self._until = self._clock() + _LOOK
        try:
            return self._host()
        except ValueError as error:
            raise MetadataError(f"instance metadata makes no sense: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _host(self) -> Host:
        instance_id = self._get("meta-data/instance-id")
        enis = []
        account_id = None
        for line in self._lines(_MACS):
            mac = line.rstrip("/")
            eni = self._eni(mac)
            if eni is None:
                continue
            enis.append(eni)
            if account_id is None and self._get(f"{_MACS}{mac}/device-number") == "0":
                account_id = eni.owner_id
        return Host(
            instance_id=instance_id,
            account_id=account_id or self._account(),
            enis=tuple(enis),
            source="metadata",
        )

    def _eni(self, mac: str) -> HostEni | None:
        packed = pack_mac(mac)
        at = f"{_MACS}{mac}/"
        eni_id = self._get(at + "interface-id")
        subnet_id = self._get(at + "subnet-id")
        # While an ENI is being attached its MAC is listed before its keys are there.
        if not eni_id or not subnet_id:
            return None
        cidrs = self._lines(at + "subnet-ipv4-cidr-block", at + "subnet-ipv6-cidr-blocks")
        return HostEni(
            eni_id=eni_id,
            mac=packed,
            subnet_id=subnet_id,
            vpc_id=self._get(at + "vpc-id") or "",
            owner_id=self._get(at + "owner-id"),
            subnet_cidrs=tuple(map(Prefix.parse, cidrs)),
            addresses=tuple(map(pack_address, self._lines(at + "local-ipv4s", at + "ipv6s"))),
            prefixes=tuple(map(Prefix.parse, self._lines(at + "ipv4-prefix", at + "ipv6-prefix"))),
        )

    def _account(self) -> str | None:
        document = self._get("dynamic/instance-identity/document")
        if document is None:
            return None
        told = json.loads(document)
        account = told.get("accountId") if isinstance(told, dict) else None
        return account if isinstance(account, str) else None

    def _lines(self, *paths: str) -> list[str]:
        return [line for path in paths for line in (self._get(path) or "").split()]

    def _get(self, path: str) -> str | None:
        """Read one item; None when there is none (404)."""
        retrying = Retrying(
            sleep=self._sleep,
            wait=wait_random_exponential(multiplier=0.1, max=0.5),
            stop=stop_after_attempt(_ATTEMPTS),
            retry=retry_if_exception(lambda e: isinstance(e, MetadataError) and e.transient),
            reraise=True,
        )
        answer: str | None = retrying(self._read, path)
        return answer

    def _read(self, path: str) -> str | None:
        for _ in range(2):
            if self._token is None:
                self._token = self._new_token()
            status, body = self._ask("GET", path, {_TOKEN_HEADER: self._token})
            if status != 401:
                break
            self._token = None
        if status == 200:
            return body.strip()
        if status == 404:
            return None
        raise self._unexpected(status, path)

    def _new_token(self) -> str:
        headers = {f"{_TOKEN_HEADER}-ttl-seconds": _TOKEN_SECONDS}
        status, body = self._ask("PUT", "api/token", headers)
        if status != 200:
            raise self._unexpected(status, "api/token")
        if not body.isascii() or not body.isprintable() or not body.strip():
            raise MetadataError(f"{self._endpoint()} answers, but gives no metadata token")
        return body.strip()

    def _unexpected(self, status: int, path: str) -> MetadataError:
        off = " (metadata is turned off for this instance)" if status == 403 else ""
        return MetadataError(
            f"{self._endpoint()} answered {status} for {path}{off}",
            transient=status >= 500 or status == 429,
        )

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        endpoint = self._endpoint()
        left = self._until - self._clock()
        if left <= 0:
            raise MetadataError(f"{endpoint} took more than {_LOOK:.0f} s")
        patience = min(_PATIENCE, left)
        try:
            answer: Any = self._pool.request(
                method,
                f"{endpoint}/latest/{path}",
                headers=headers,
                redirect=False,
                timeout=urllib3.Timeout(connect=patience, read=patience),
            )
        except urllib3.exceptions.LocationValueError as error:
            raise MetadataError(f"{endpoint} is no address of a service: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise MetadataError(f"{endpoint} did not answer: {error}", transient=True) from error
        return answer.status, answer.data.decode(errors="replace")

    def _endpoint(self) -> str:
        if self._environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise MetadataError("AWS_EC2_METADATA_DISABLED turns instance metadata off")
        if endpoint := self._environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"):
            return endpoint.rstrip("/")
        mode = self._environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") or "IPv4"
        try:
            return _ENDPOINTS[mode.lower()]
        except KeyError:
            raise MetadataError(
                f"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is {mode!r}, not IPv4 or IPv6"
            ) from None


__all__ = ["Metadata", "MetadataError"]
