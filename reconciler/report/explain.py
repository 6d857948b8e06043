"""Everything known about one address: its entries, its owners, and the rule that decided."""

from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from reconciler.core.model import Address, Judgement, Ntf, format_address, format_mac
from reconciler.core.ownership import Ownership
from reconciler.report.document import SCHEMA_VERSION, eni_document, finding, in_order, rfc3339
from reconciler.report.result import Result
from reconciler.report.text import plain


class Explanation(NamedTuple):
    """One address in the light of one look."""

    address: Address
    result: Result
    ownership: Ownership

    @property
    def judgements(self) -> list[Judgement]:
        """The address' entries, in the order of the links."""
        found = [j for j in self.result.judgements if j.neighbour.address == self.address]
        return sorted(found, key=lambda judgement: in_order(self.result, judgement))

    def document(self) -> dict[str, Any]:
        """Build the JSON document."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "explain",
            "at": rfc3339(self.result.at),
            "address": format_address(self.address),
            "entries": [
                {
                    **finding(self.result, judgement),
                    "flags": _flags(judgement),
                    "protocol": judgement.neighbour.protocol,
                }
                for judgement in self.judgements
            ],
            "owners": [
                {"link": name, "subnet_id": subnet_id, "live": live, "idle": idle}
                for name, subnet_id, live, idle in self._owners()
            ],
            "error": None,
        }

    def _owners(self) -> list[tuple[str, str, list[Any], list[Any]]]:
        owners = []
        for _, link in sorted(self.result.links.items()):
            if any(cidr.covers(self.address) for cidr in link.subnet.cidrs):
                claim = self.ownership.claim(link.subnet.subnet_id, self.address)
                live, idle = (
                    [{**(eni_document(e) or {}), "mac": format_mac(e.mac)} for e in enis]
                    for enis in (claim.live, claim.idle)
                )
                owners.append((link.link.name, link.subnet.subnet_id, live, idle))
        return owners

    def print(self, console: Console) -> None:
        """Print it for a person."""
        address = format_address(self.address)
        judgements = self.judgements
        if not judgements:
            console.print(Text(f"{address} is not in the neighbour table.", style="bold"))
        for judgement in judgements:
            told = finding(self.result, judgement)
            console.print(
                plain(f"{address} on {told['link']}: {judgement.verdict.value}", style="bold")
            )
            console.print(plain(f"  {judgement.reason}"))
            for name, value in (
                ("rule", judgement.rule),
                ("has", told["mac"] or "no link-layer address"),
                ("needs", told["expected_mac"] or "-"),
                ("state", f"{judgement.neighbour.nud} {' '.join(_flags(judgement))}".rstrip()),
                ("ages", ", ".join(f"{key} {value:.1f} s" for key, value in told["age"].items())),
                ("action", judgement.action.value),
            ):
                console.print(Text(f"  {name:<8}{value}"))
        for name, subnet_id, live, idle in self._owners():
            for eni, state in [*((e, "live") for e in live), *((e, "not in use") for e in idle)]:
                who = eni["instance_id"] or eni["interface_type"]
                described = f", {eni['description']}" if eni["description"] else ""
                console.print(
                    plain(
                        f"  owner   {eni['eni_id']} ({who}{described}) in {subnet_id}, "
                        f"{eni['mac']}, {state}"
                    )
                )
            if not live and not idle:
                console.print(Text(f"  owner   no ENI of {subnet_id} ({name}) lists it"))


def _flags(judgement: Judgement) -> list[str]:
    return [flag.name.lower() for flag in Ntf(judgement.neighbour.flags) if flag.name]
