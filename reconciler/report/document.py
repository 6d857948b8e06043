"""The JSON of ``plan`` and ``apply``: one whole document, whatever happened."""

from datetime import UTC, datetime
from typing import Any

from reconciler.core.model import (
    Eni,
    Judgement,
    ManagedLink,
    Neighbour,
    Reading,
    count_verdicts,
    format_address,
    format_mac,
)
from reconciler.report.result import REPORTED, Result

SCHEMA_VERSION = 1


def document(result: Result, *, everything: bool = False) -> dict[str, Any]:
    """Build the document; ``everything`` lists the unremarkable entries too."""
    listed = [
        judgement for judgement in result.judgements if everything or judgement.verdict in REPORTED
    ]
    listed.sort(key=lambda judgement: in_order(result, judgement))
    refusal, error = result.refusal, result.error
    return {
        "schema_version": SCHEMA_VERSION,
        "command": result.command,
        "mode": result.mode,
        "at": rfc3339(result.at),
        "result": result.result,
        "authority": None if result.reading is None else _authority(result.reading),
        "links": [_link(link) for _, link in sorted(result.links.items())],
        "counts": count_verdicts(result.judgements),
        "findings": [finding(result, judgement) for judgement in listed],
        "refusal": None
        if refusal is None
        else {"guard": refusal.guard, "message": str(refusal), "setting": refusal.setting},
        "error": None if error is None else {"code": error.code, "message": str(error)},
    }


def rfc3339(at: datetime) -> str:
    """Write a time as UTC, to the second, with a Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_order(result: Result, judgement: Judgement) -> tuple[str, int, bytes]:
    """Sort by link name, then IPv4 before IPv6, then by address."""
    key = judgement.neighbour.key
    return result.names.get(key.ifindex, ""), len(key.address), key.address


def eni_document(eni: Eni | None) -> dict[str, Any] | None:
    """Say whose ENI it is."""
    if eni is None:
        return None
    return {
        "eni_id": eni.eni_id,
        "instance_id": eni.instance_id,
        "interface_type": eni.interface_type,
        "description": eni.description,
    }


def ages(neighbour: Neighbour) -> dict[str, float]:
    """Give the entry's ages in seconds."""
    return {
        "confirmed": round(neighbour.confirmed, 2),
        "used": round(neighbour.used, 2),
        "updated": round(neighbour.updated, 2),
    }


def _authority(reading: Reading) -> dict[str, Any]:
    return {
        "source": reading.source,
        "complete": reading.targets is None,
        "fetched_at": rfc3339(reading.fetched_at),
        "enis": len(reading.enis),
        "addresses": reading.addresses,
        "api_calls": reading.api_calls,
    }


def _link(link: ManagedLink) -> dict[str, Any]:
    return {
        "name": link.link.name,
        "index": link.link.index,
        "mac": format_mac(link.link.mac),
        "eni_id": link.eni.eni_id,
        "subnet_id": link.subnet.subnet_id,
        "vpc_id": link.subnet.vpc_id,
        "cidrs": [str(cidr) for cidr in link.subnet.cidrs],
        "shared_subnet": link.shared,
    }


def finding(result: Result, judgement: Judgement) -> dict[str, Any]:
    """Tell one entry: what it is, what it should be, and what came of it."""
    neighbour = judgement.neighbour
    repair = result.repairs.get(neighbour.key)
    return {
        "address": format_address(neighbour.address),
        "link": result.names.get(neighbour.ifindex, str(neighbour.ifindex)),
        "mac": None if neighbour.lladdr is None else format_mac(neighbour.lladdr),
        "nud": neighbour.nud,
        "verdict": judgement.verdict.value,
        "rule": judgement.rule,
        "reason": judgement.reason,
        "expected_mac": None
        if judgement.expected_mac is None
        else format_mac(judgement.expected_mac),
        "owner": eni_document(judgement.owner),
        "mac_owner": eni_document(judgement.mac_owner),
        "age": ages(neighbour),
        "action": judgement.action.value,
        "outcome": None if repair is None else repair.outcome.value,
    }
