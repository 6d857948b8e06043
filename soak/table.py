"""The report as a person reads it."""

from collections.abc import Iterable
from typing import Any

_COUNTS = {
    "connections": "connections",
    "sent": "messages sent",
    "acknowledged": "acknowledged",
    "delivered": "delivered to the subscriber",
    "lost": "lost",
    "dropped": "connections dropped",
}
_TIMES = {
    "ack_p50": "acknowledged after, p50 (ms)",
    "ack_p99": "acknowledged after, p99 (ms)",
    "longest_stall": "longest stall (ms)",
    "client_late": "the client itself late, at most (ms)",
}
_GROUPS = {
    "steady": "entries right all the time, or deleted though right",
    "shaken": "entries addled",
    "successors": "addresses recycled or reborn",
}
_HEAL = ("p50", "p99", "max", "least_to_spare")


def table(document: dict[str, Any]) -> str:
    """Write a report's document as text."""
    phases = (document["without_repairs"], document["with_repairs"])
    lines = [
        _row("", ("without repairs", "with repairs")),
        _row("seconds", (f"{phase['seconds']:.1f}" for phase in phases)),
    ]
    for group, title in _GROUPS.items():
        lines += ["", title]
        for key, name in _COUNTS.items():
            lines.append(_row(f"  {name}", (str(phase[group][key]) for phase in phases)))
        for key, name in _TIMES.items():
            lines.append(_row(f"  {name}", (_number(phase[group][key], 1000) for phase in phases)))
    lines += ["", _row("from wrong to healed (s)", ("healed", "p50", "p99", "max", "to spare"), 9)]
    for kind, figures in document["incidents"].items():
        cells = [f"{figures['healed']}/{figures['incidents']}"]
        lines.append(_row(f"  {kind}", cells + [_number(figures[key], 1) for key in _HEAL], 9))
    deleted, ec2, daemon = document["right_entries_deleted"], document["ec2"], document["daemon"]
    faults = ", ".join(f"{name} {count}" for name, count in ec2["faults"].items())
    contested = f"{deleted['contested']} by the daemon while EC2 lagged (contested)"
    lines += [
        "",
        f"right entries deleted: {deleted['by_hand']} by hand, {contested}",
        f"right entries harmed: {len(document['right_entries_harmed'])}",
        f"EC2: {ec2['calls']} calls, {ec2['spoiled']} answers spoiled; spells of {faults}",
        f"daemon: alive {daemon['alive']}, exit code {daemon['exit_code']}; its log:",
        *(f"  {count:>6}  {event}" for event, count in daemon["events"].items()),
        "",
    ]
    failures = document["failures"]
    lines.append("NOT as expected:" if failures else "As expected.")
    return "\n".join([*lines, *(f"  {failure}" for failure in failures)])


def _row(name: str, cells: Iterable[str], width: int = 17) -> str:
    return f"{name:<40}" + "".join(f"{cell:>{width}}" for cell in cells)


def _number(seconds: float | None, factor: int) -> str:
    return "-" if seconds is None else f"{seconds * factor:.1f}"


__all__ = ["table"]
