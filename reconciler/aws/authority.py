"""Read the authority whole: every page of DescribeNetworkInterfaces, or nothing.

Pages are no transaction: what moves between two of them can appear twice or not
at all. A reading that lists one ENI in two ways contradicts itself; neither
version is known to be the newer one (replicas may answer old after new), so the
reading is taken again instead of choosing.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    wait_random_exponential,
)

from reconciler.aws.client import Calls, Ec2, Ec2Error
from reconciler.aws.reduce import SHAPE_ERRORS, reduce_eni
from reconciler.aws.subnets import Subnets
from reconciler.clock import boottime
from reconciler.core.model import (
    Address,
    Eni,
    Host,
    Mac,
    Reading,
    Subnet,
    format_address,
    format_mac,
)
from reconciler.errors import AuthorityError

log = logging.getLogger(__name__)

_FILTER_VALUES = 200  # EC2 takes at most this many values in one call, all filters together.
# An hour of throttling must not become an hour of calls: everybody shares the bucket.
_ATTEMPTS = 4
_LONGEST = 300.0  # Seconds; an attempt that pages longer describes no moment at all.

Scope = Literal["subnet", "vpc"]
Filters = dict[str, list[str]]
T = TypeVar("T")


class Authority:
    """Reads ENIs and subnets from EC2, with one retry policy around a whole reading.

    ``deadline`` is in seconds: no further attempt starts once it would be passed.
    An attempt under way is bounded by the client's own time-outs. ``clock`` is
    CLOCK_BOOTTIME in seconds.
    """

    def __init__(
        self,
        ec2: Ec2,
        *,
        deadline: float = 8.0,
        clock: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ec2 = ec2
        self._deadline = deadline
        self._clock = clock
        self._sleep = sleep
        self._subnets = Subnets(ec2, clock)

    @property
    def requests(self) -> Calls:
        """Every call this process made, counted by (operation, code)."""
        return self._ec2.requests

    def read(
        self, host: Host, subnet_ids: frozenset[str], vpc_ids: frozenset[str], scope: Scope
    ) -> Reading:
        """Read every ENI of the subnets (scope ``subnet``) or of their VPCs (``vpc``).

        Raises:
            AuthorityError: an id list is empty, or EC2 could not be read whole.
        """
        if not subnet_ids or not vpc_ids:
            raise AuthorityError(
                "EC2 was not asked: no subnet or no VPC of this host is known, and an empty list "
                "would describe the whole region. Nothing was changed."
            )
        self._subnets.remember(host)
        filters = {"vpc-id": sorted(vpc_ids)}
        if scope == "subnet":
            filters["subnet-id"] = sorted(subnet_ids)
        return self._read([filters], subnet_ids, None)

    def read_targets(
        self,
        pairs: Collection[tuple[str, Address]],
        subnet_ids: frozenset[str],
        macs: Collection[Mac] = (),
    ) -> Reading:
        """Read who lists each (subnet, address), and whose the MACs are; it speaks of nothing else.

        No filter finds an address inside a delegated prefix: its owner is in the
        answer only where it has one of the MACs.

        Raises:
            AuthorityError: nothing was asked for, a pair lies outside the subnets,
                or EC2 could not be read whole.
        """
        targets = frozenset(pairs)
        strange = {subnet_id for subnet_id, _ in targets} - subnet_ids
        if not targets or strange:
            raise AuthorityError(
                "EC2 was not asked: "
                + (f"{min(strange)} is no managed subnet" if strange else "no address was named")
                + ". Nothing was changed."
            )
        asked = {address for _, address in targets}
        values = {
            "addresses.private-ip-address": [format_address(a) for a in asked if len(a) == 4],
            "ipv6-addresses.ipv6-address": [format_address(a) for a in asked if len(a) == 16],
            "mac-address": [format_mac(mac) for mac in set(macs)],
        }
        room = max(1, _FILTER_VALUES - len(subnet_ids))
        return self._read(
            [
                {"subnet-id": sorted(subnet_ids), name: some}
                for name, every in values.items()
                for some in _batches(sorted(every), room)
            ],
            subnet_ids,
            targets,
            frozenset(macs),
        )

    def find(self, name: str, values: Iterable[str]) -> tuple[Eni, ...]:
        """Return the ENIs that one of EC2's filters selects, of this whole region.

        Raises:
            AuthorityError: no value was given, or EC2 could not be read whole.
        """
        queries: list[Filters] = [{name: some} for some in _batches(sorted(values), _FILTER_VALUES)]

        def attempt(calls: Calls) -> tuple[Eni, ...]:
            return tuple(self._enis(queries or [{name: []}], frozenset(), calls, self._clock()))

        return self._persist(attempt)

    def _read(
        self,
        queries: list[Filters],
        subnet_ids: frozenset[str],
        targets: frozenset[tuple[str, Address]] | None,
        macs: frozenset[Mac] = frozenset(),
    ) -> Reading:
        def attempt(calls: Calls) -> Reading:
            began = self._clock()
            subnets = self._subnets.look_up(subnet_ids, calls)
            enis = self._enis(queries, subnet_ids, calls, began)
            if targets is not None:
                enis = (
                    e
                    for e in enis
                    if e.mac in macs or any((e.subnet_id, a) in targets for a in e.addresses)
                )
            return self._reading(began, tuple(enis), subnets, calls, targets)

        reading = self._persist(attempt)
        log.debug(
            "authority.read",
            extra={
                "enis": len(reading.enis),
                "api_calls": reading.api_calls,
                "seconds": reading.ended - reading.began,
                "targets": None if targets is None else len(targets),
            },
        )
        return reading

    def _reading(
        self,
        began: float,
        enis: tuple[Eni, ...],
        subnets: dict[str, Subnet],
        calls: Calls,
        targets: frozenset[tuple[str, Address]] | None,
    ) -> Reading:
        return Reading(
            began=began,
            ended=self._clock(),
            fetched_at=datetime.now(UTC),
            enis=enis,
            subnets=subnets,
            api_calls=calls.total(),
            sees_managed=self._ec2.sees_managed,
            targets=targets,
        )

    def _enis(
        self, queries: list[Filters], subnet_ids: frozenset[str], calls: Calls, began: float
    ) -> Iterable[Eni]:
        found: dict[tuple[str, str], Eni] = {}
        for filters in queries:
            for page in self._ec2.network_interfaces(filters, calls):
                try:
                    for raw in page["NetworkInterfaces"]:
                        for eni in reduce_eni(raw, subnet_ids):
                            _keep(found, eni)
                except SHAPE_ERRORS as error:
                    raise Ec2Error(
                        f"DescribeNetworkInterfaces answered something that is no ENI ({error!r})."
                        " Nothing was changed. Check AWS_ENDPOINT_URL and the version of boto3.",
                        aws_code="Unreadable",
                    ) from error
                if self._clock() - began > _LONGEST:
                    raise Ec2Error(
                        f"DescribeNetworkInterfaces had more pages after {_LONGEST:.0f} s. "
                        "Nothing was changed. Read less: scope subnet instead of vpc.",
                        aws_code="TooLong",
                    )
        return found.values()

    def _persist(self, attempt: Callable[[Calls], T]) -> T:
        """Try until the deadline while the failure is one that may pass."""
        calls: Calls = Counter()
        began = self._clock()

        def too_late(state: RetryCallState) -> bool:
            late = self._clock() + state.upcoming_sleep - began >= self._deadline
            return late or state.attempt_number >= _ATTEMPTS

        retrying = Retrying(
            sleep=self._sleep,
            wait=wait_random_exponential(multiplier=0.5, max=8),
            stop=too_late,
            retry=retry_if_exception(lambda e: isinstance(e, Ec2Error) and e.transient),
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return retrying(attempt, calls)
        except Ec2Error as error:
            attempts = retrying.statistics["attempt_number"]
            if attempts == 1:
                raise
            raise Ec2Error(
                f"{error} (tried {attempts} times in {self._clock() - began:.0f} s)",
                aws_code=error.aws_code,
                transient=error.transient,
            ) from error


def _keep(found: dict[tuple[str, str], Eni], eni: Eni) -> None:
    key = (eni.eni_id or f"unnamed {len(found)}", eni.subnet_id)
    if found.setdefault(key, eni) != eni:
        raise Ec2Error(
            f"DescribeNetworkInterfaces listed {eni.eni_id} twice and differently in one reading. "
            "Nothing was changed. It is tried again with the next pass.",
            aws_code="Contradiction",
            transient=True,
        )


def _batches(values: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    code = error.aws_code if isinstance(error, Ec2Error) else None
    log.info("authority.retry", extra={"aws_code": code, "seconds": state.upcoming_sleep})


__all__ = ["Authority", "Scope"]
