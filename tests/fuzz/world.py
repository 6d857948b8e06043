"""One small world for all fuzz tests: two VPCs with the same private range on one host."""

from datetime import UTC, datetime

from reconciler.core.judge import view
from reconciler.core.links import candidates, managed
from reconciler.core.model import (
    Host,
    HostEni,
    Judgement,
    Key,
    Policy,
    Reading,
    Table,
    pack_address,
)
from reconciler.core.ownership import Ownership
from reconciler.core.plan import make_plan
from reconciler.testing.vpc import ACCOUNT, Vpc, eni, subnet

US = "i-broker"
HOME = subnet(1, ["10.0.0.0/24", "2001:db8::/64"])
AWAY = subnet(2, ["10.0.0.0/24"], vpc=2)

VPC = Vpc(
    (HOME, AWAY),
    (
        eni(1, ["10.0.0.10", "2001:db8::10"], subnet=HOME, instance=US),
        eni(2, ["10.0.0.12"], subnet=AWAY, instance=US),
        # These two stand on links that must never be managed.
        eni(3, ["10.0.0.13"], subnet=HOME, instance=US),
        eni(4, ["10.0.0.14"], subnet=HOME, instance=US),
        eni(5, ["10.0.0.30", "2001:db8::30"], subnet=HOME, instance="i-client"),
        eni(6, ["10.0.0.31", "2001:db8::31"], subnet=HOME),
        eni(7, ["10.0.0.41", "10.0.0.70"], subnet=HOME, prefixes=["10.0.0.80/28"]),
        eni(8, ["10.0.0.60"], subnet=HOME, status="detaching"),
        eni(9, ["10.0.0.30"], subnet=AWAY),
        eni(10, ["10.0.0.32"], subnet=AWAY),
    ),
)

HOST = Host(
    US,
    ACCOUNT,
    tuple(
        HostEni(
            e.eni_id,
            e.mac,
            e.subnet_id,
            e.vpc_id,
            ACCOUNT,
            VPC.subnet(e.subnet_id).cidrs,
            e.addresses,
            e.prefixes,
        )
        for e in VPC.enis
        if e.instance_id == US
    ),
    "metadata",
)

READING = Reading(
    began=2.0,
    ended=3.0,
    fetched_at=datetime(2026, 1, 1, tzinfo=UTC),
    enis=VPC.enis,
    subnets={s.subnet_id: s for s in VPC.subnets},
    api_calls=1,
)

ETH0, ETH1 = 2, 3

# What is to be done about the honest table, by an honest reading: (link, address).
WRONG = {
    Key(ETH0, pack_address("10.0.0.31")),
    Key(ETH0, pack_address("10.0.0.32")),
    Key(ETH0, pack_address("2001:db8::31")),
    Key(ETH0, pack_address("2001:db8::32")),
    Key(ETH1, pack_address("10.0.0.31")),
    Key(ETH1, pack_address("10.0.0.32")),
}


def planned(table: Table, reading: Reading = READING) -> tuple[Judgement, ...]:
    """Judge a table and return the changes that would be made.

    Raises:
        ReconcilerError: no link can be managed.
    """
    chosen = candidates(table.links, HOST)
    links, passed_over = managed(chosen, HOST, reading)
    policy = Policy()
    judge = view(table, HOST, reading, links, passed_over, policy, Ownership(reading.enis))
    plan = make_plan(map(judge.judge, table.neighbours), policy, budget=10_000)
    return plan.changes
