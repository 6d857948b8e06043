"""The managed links' subnets: from DescribeSubnets, or with less to say from metadata."""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from reconciler.aws.client import Calls, Ec2, Ec2Error
from reconciler.aws.reduce import SHAPE_ERRORS, reduce_subnet
from reconciler.core.model import Host, Subnet

log = logging.getLogger(__name__)

_KEPT = 3600.0  # Seconds; a subnet's owner never changes, and its blocks hardly ever do.


class Subnets:
    """Keeps subnets for an hour.

    Where DescribeSubnets is denied, the blocks come from what metadata said of
    this host; the owner then stays unknown, and absence is no proof. ``clock``
    counts seconds.
    """

    def __init__(self, ec2: Ec2, clock: Callable[[], float]) -> None:
        self._ec2 = ec2
        self._clock = clock
        self._known: dict[str, tuple[float, Subnet]] = {}
        self._of_host: dict[str, Subnet] = {}
        self._denied_at: float | None = None

    def remember(self, host: Host) -> None:
        """Keep the blocks that metadata gave, for when the API does not."""
        self._of_host = {}
        for eni in host.enis:
            if eni.subnet_cidrs:
                found = Subnet(eni.subnet_id, eni.vpc_id, eni.subnet_cidrs)
                self._of_host[eni.subnet_id] = found

    def look_up(self, subnet_ids: Collection[str], calls: Calls) -> dict[str, Subnet]:
        """Return those subnets of which somebody told a block.

        Raises:
            AuthorityError: DescribeSubnets failed for another reason than a
                missing permission.
        """
        now = self._clock()
        fresh = {i: s for i, (at, s) in self._known.items() if now - at < _KEPT}
        missing = sorted(set(subnet_ids) - fresh.keys())
        if missing and (self._denied_at is None or now - self._denied_at >= _KEPT):
            fresh |= self._describe(missing, now, calls)
        found = {}
        for subnet_id in subnet_ids:
            told, of_host = fresh.get(subnet_id), self._of_host.get(subnet_id)
            if told and not told.cidrs and of_host:
                told = replace(told, cidrs=of_host.cidrs)
            told = told or of_host
            if told and told.cidrs:
                found[subnet_id] = told
        return found

    def _describe(self, subnet_ids: list[str], now: float, calls: Calls) -> dict[str, Subnet]:
        described: dict[str, Subnet] = {}
        try:
            for page in self._ec2.subnets({"subnet-id": subnet_ids}, calls):
                for raw in page["Subnets"]:
                    subnet = reduce_subnet(raw)
                    _keep(described, subnet)
        except Ec2Error as error:
            if not error.denied:
                raise
            if self._denied_at is None:
                log.warning("authority.subnets_denied", extra={"said": str(error)})
            self._denied_at = now
            return {}
        except SHAPE_ERRORS as error:
            raise Ec2Error(
                f"DescribeSubnets answered something that is no subnet ({error!r}). "
                "Nothing was changed.",
                aws_code="Unreadable",
            ) from error
        self._denied_at = None
        self._known |= {i: (now, subnet) for i, subnet in described.items()}
        return described


def _keep(described: dict[str, Subnet], subnet: Subnet) -> None:
    if described.setdefault(subnet.subnet_id, subnet) != subnet:
        raise Ec2Error(
            f"DescribeSubnets listed {subnet.subnet_id} twice and differently in one reading. "
            "Nothing was changed. It is tried again with the next pass.",
            aws_code="Contradiction",
            transient=True,
        )


__all__ = ["Subnets"]
