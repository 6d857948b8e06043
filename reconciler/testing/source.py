"""An authority made of a description, for tests that need no EC2."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from reconciler.core.model import Address, Eni, Host, HostEni, Mac, Reading
from reconciler.errors import ReconcilerError
from reconciler.testing.vpc import ACCOUNT, Vpc


class FakeSource:
    """Answers from ``vpc`` (``passes.Source``); set it to change what EC2 says.

    ``fail_next`` holds errors that the next readings raise, one each.
    ``readings`` counts the whole readings that were asked for, ``targeted`` the
    others. ``endpoint`` is where EC2 would be asked. ``between`` is called
    once, in the middle of the next reading.
    """

    def __init__(self, vpc: Vpc, instance_id: str, clock: Callable[[], float]) -> None:
        self.vpc = vpc
        self.instance_id = instance_id
        self.clock = clock
        self.fail_next: list[ReconcilerError] = []
        self.readings = self.targeted = 0
        self.endpoint: frozenset[Address] = frozenset()
        self.between: Callable[[], object] | None = None

    def identify(self, macs: Collection[Mac]) -> Host:  # noqa: ARG002 - the protocol's.
        """Return the instance's ENIs as described."""
        ours = [eni for eni in self.vpc.enis if eni.instance_id == self.instance_id]
        return Host(
            self.instance_id,
            ACCOUNT,
            tuple(
                HostEni(
                    eni.eni_id,
                    eni.mac,
                    eni.subnet_id,
                    eni.vpc_id,
                    eni.owner_id,
                    self.vpc.subnet(eni.subnet_id).cidrs,
                    eni.addresses,
                    eni.prefixes,
                )
                for eni in ours
            ),
            "metadata",
        )

    def read(
        self,
        host: Host,  # noqa: ARG002 - the protocol's.
        subnet_ids: frozenset[str],
        vpc_ids: frozenset[str],  # noqa: ARG002 - the protocol's.
    ) -> Reading:
        """Read the subnets whole."""
        self.readings += 1
        return self._read(subnet_ids, lambda _: True, None)

    def read_targets(
        self,
        pairs: Collection[tuple[str, Address]],
        subnet_ids: frozenset[str],
        macs: Collection[Mac] = (),
    ) -> Reading:
        """Read exactly these addresses and MACs."""
        self.targeted += 1

        def asked(eni: Eni) -> bool:
            return eni.mac in macs or any((eni.subnet_id, a) in pairs for a in eni.addresses)

        return self._read(subnet_ids, asked, frozenset(pairs))

    def endpoint_addresses(self) -> frozenset[Address]:
        """Return ``endpoint``."""
        return self.endpoint

    def _read(
        self,
        subnet_ids: frozenset[str],
        asked: Callable[[Eni], bool],
        targets: frozenset[tuple[str, Address]] | None,
    ) -> Reading:
        began = self.clock()
        if self.fail_next:
            raise self.fail_next.pop(0)
        vpc, between, self.between = self.vpc, self.between, None
        if between is not None:
            between()
        return Reading(
            began=began,
            ended=self.clock(),
            fetched_at=datetime.now(UTC),
            enis=tuple(e for e in vpc.enis if e.subnet_id in subnet_ids and asked(e)),
            subnets={s.subnet_id: s for s in vpc.subnets if s.subnet_id in subnet_ids},
            api_calls=1,
            targets=targets,
        )
