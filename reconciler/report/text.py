"""The same result for a person: what is wrong first, then a table, then what to do."""

import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reconciler.core.model import (
    Action,
    Judgement,
    Mac,
    Outcome,
    Verdict,
    count_verdicts,
    format_address,
    format_mac,
)
from reconciler.errors import CapabilityError, Interrupted
from reconciler.report.document import in_order
from reconciler.report.result import REPORTED, Result

_COLOURS = {
    Verdict.MISMATCH: "bold red",
    Verdict.ORPHAN: "yellow",
    Verdict.PENDING: "yellow",
    Verdict.UNLISTED: "cyan",
    Verdict.UNKNOWN: "cyan",
    Verdict.MATCH: "green",
}
_OUTCOME_COLOURS = {
    Outcome.HEALED: "green",
    Outcome.GONE: "green",
    Outcome.SKIPPED: "dim",
}
ROOM = 40  # columns that the reasons need to stand beside the table instead of below it


def print_result(result: Result, console: Console, *, everything: bool = False) -> None:
    """Print a result; ``everything`` lists the unremarkable entries too."""
    console.print(plain(headline(result), style="bold"))
    listed = _listed(result, everything=everything)
    if listed:
        console.print()
        listed.sort(key=lambda judgement: in_order(result, judgement))
        _print_findings(result, listed, console)
    if result.reading is not None:
        console.print()
        _print_sources(result, console)
    failures = [repair for repair in result.repairs.values() if repair.error]
    for repair in failures:
        address = format_address(repair.judgement.neighbour.address)
        console.print(plain(f"{address}: {repair.error}", style="red"))
    if result.refusal is not None:
        console.print()
        console.print(plain(f"Refused by guard `{result.refusal.guard}`: {result.refusal}"))


def plain(text: str, style: str = "") -> Text:
    """Make text of what others wrote: an ENI's description may not steer the terminal."""
    return Text("".join(c if c.isprintable() else "?" for c in text), style=style)


def headline(result: Result) -> str:
    """Say in one line what a person wants to know."""
    if isinstance(result.error, Interrupted):
        return str(result.error)
    if result.error is not None:
        verb = "act" if isinstance(result.error, CapabilityError) else "tell"
        return f"Could not {verb}: {result.error}"
    total = len(result.judgements)
    counts = count_verdicts(result.wrong or _listed(result))
    kinds = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    kinds = kinds and f" ({kinds})"
    if result.result == "repaired":
        return f"Repaired: {len(result.wrong)} of {total} neighbours were wrong{kinds}."
    if result.wrong:
        found = f"{len(result.wrong)} of {total} neighbours wrong{kinds}"
    else:
        found = (
            f"none of {total} neighbours is wrong{kinds}" if total else "there are no neighbours"
        )
    if result.result == "in_sync":
        return f"All is well: {found}."
    return f"{found[0].upper()}{found[1:]}; {_what_was_done(result)}."


def _what_was_done(result: Result) -> str:
    if result.result == "refused":
        return "refused by a guard, nothing was changed"
    if not result.touched:
        return "nothing was changed"
    return f"{len(result.left)} left"


def _listed(result: Result, *, everything: bool = False) -> list[Judgement]:
    return [j for j in result.judgements if everything or j.verdict in REPORTED]


def _print_findings(result: Result, listed: Sequence[Judgement], console: Console) -> None:
    headings = ("address", "link", "verdict", "has", "needs", "action")
    rows = [_row(result, judgement) for judgement in listed]
    widths = [
        max(cell_len(heading), *(row[column].cell_len for row in rows))
        for column, heading in enumerate(headings)
    ]
    if console.width - sum(widths) - 2 * len(widths) >= ROOM:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for heading, width in zip((*headings, "why"), (*widths, None), strict=True):
            table.add_column(heading, min_width=width)
        for judgement, row in zip(listed, rows, strict=True):
            table.add_row(*row, plain(_why(result, judgement)))
        console.print(table)
        return
    # An IPv6 address that is too long for its column gets a line of its own: it
    # is there to be copied, so it is never folded.
    widths[0] = min(widths[0], max(console.width - sum(widths[1:]) - 2 * len(widths[1:]), 7))
    _print_row([Text(heading, style="dim") for heading in headings], widths, console)
    for row in rows:
        _print_row(row, widths, console)
    for judgement in listed:
        console.print()
        console.print(
            Text(format_address(judgement.neighbour.address), style="bold"),
            plain(_why(result, judgement), style="dim"),
        )


def _print_row(row: Sequence[Text], widths: Sequence[int], console: Console) -> None:
    line = Text()
    for cell, width in zip(row, widths, strict=True):
        line.append_text(cell)
        if cell.cell_len > width:
            line.append("\n" + " " * width)
        else:
            line.append(" " * (width - cell.cell_len))
        line.append("  ")
    line.rstrip()
    console.print(line)


def _row(result: Result, judgement: Judgement) -> list[Text]:
    neighbour = judgement.neighbour
    return [
        Text(format_address(neighbour.address)),
        plain(result.names.get(neighbour.ifindex, str(neighbour.ifindex))),
        Text(judgement.verdict.value, style=_COLOURS.get(judgement.verdict, "dim")),
        Text(_mac(neighbour.lladdr)),
        Text(_mac(judgement.expected_mac)),
        _done(result, judgement),
    ]


def _print_sources(result: Result, console: Console) -> None:
    reading = result.reading
    if reading is None:
        return
    console.print(
        plain(
            f"EC2 listed {len(reading.enis)} ENIs with {reading.addresses} addresses "
            f"({reading.api_calls} API calls)."
        )
    )
    for _, link in sorted(result.links.items()):
        shared = {True: ", shared from another account", False: "", None: ", owner not known"}
        console.print(
            plain(
                f"{link.link.name} is {link.eni.eni_id} in {link.subnet.subnet_id} "
                f"({', '.join(map(str, link.subnet.cidrs))}){shared[link.shared]}"
            )
        )
    skipped = {
        result.names[index]: why
        for index, why in result.passed_over.items()
        if index in result.names
    }
    for name, why in sorted(skipped.items()):
        console.print(plain(f"{name} is not managed: {why}", style="dim"))


def _why(result: Result, judgement: Judgement) -> str:
    neighbour = judgement.neighbour
    owner = judgement.owner
    who = ""
    if owner is not None:
        named = [owner.instance_id or owner.interface_type, owner.description]
        who = f" Owner: {', '.join(part for part in named if part)}."
    repair = result.repairs.get(neighbour.key)
    took = f" Took {_short(repair.seconds)}." if repair is not None and repair.seconds else ""
    return (
        f"{judgement.reason}{who}{took} {neighbour.nud}, "
        f"confirmed {_age(neighbour.confirmed)} ago, "
        f"updated {_age(neighbour.updated)} ago [{judgement.rule}]"
    )


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _done(result: Result, judgement: Judgement) -> Text:
    repair = result.repairs.get(judgement.neighbour.key)
    if repair is not None:
        return Text(repair.outcome.value, style=_OUTCOME_COLOURS.get(repair.outcome, "red"))
    action = judgement.action
    return Text("-" if action is Action.NONE else action.value)


def _mac(mac: Mac | None) -> str:
    return "-" if mac is None else format_mac(mac)


def render(result: Result, *, width: int, everything: bool = False) -> str:
    """Return the text without colour, at a given width."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, highlight=False)
    print_result(result, console, everything=everything)
    return buffer.getvalue()
