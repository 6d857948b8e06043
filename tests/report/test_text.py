"""The table for people, at the widths people have."""

import io
import re
from dataclasses import replace

import pytest
from core.strategies import MACS
from report.test_output import LONG, result
from rich.console import Console

from reconciler.core.model import Neighbour, Nud, Outcome, Repair, Verdict, pack_address
from reconciler.errors import (
    AuthorityError,
    CapabilityError,
    HoldRefused,
    Interrupted,
    NoMatchRefused,
)
from reconciler.report.result import Result
from reconciler.report.text import headline, print_result, render

LONGEST = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"


def crowded(link: str = "eth0") -> Result:
    """Make a result with an IPv6 address of full length, a long link name and long reasons."""
    given = result("apply", Outcome.HEALED)
    (judged, *_) = given.judgements
    entry = Neighbour(2, pack_address(LONGEST), MACS[5], Nud.REACHABLE, confirmed=90000.0)
    owner = replace(judged.owner, description="x" * 255) if judged.owner else None
    return replace(
        given,
        names={2: link},
        judgements=[*given.judgements, replace(judged, neighbour=entry, owner=owner)],
        refusal=HoldRefused("The hold file /etc/arp-reconciler/hold exists. " * 4),
        passed_over={2: "it is a bridge, and its MAC is only borrowed from a port " * 3},
    )


@pytest.mark.parametrize("link", ["eth0", "enp0s31f6np0abc"])
@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_nothing_is_wider_than_the_terminal(width: int, link: str) -> None:
    """No line is longer than the width, and none that a person copies from is folded."""
    text = render(crowded(link), width=width, everything=True)
    assert max(map(len, text.splitlines())) <= width
    for whole in (LONGEST, LONG, "10.0.0.20", link, "02:00:00:00:01:05"):
        assert re.search(rf"^(?:.*\s)?{re.escape(whole)}(?:\s|$)", text, re.MULTILINE), whole


def test_a_long_address_has_a_line_of_its_own() -> None:
    """At 80 columns the columns stay where they are, whatever the addresses."""
    lines = render(crowded(), width=80).splitlines()
    after = lines[lines.index(LONGEST) + 1]
    heading = next(line for line in lines if line.startswith("address"))
    short = next(line for line in lines if line.startswith("10.0.0.9 "))
    assert {line.index(" eth0") for line in (after, short)} == {heading.index(" link")}
    assert {line.index("02:") for line in (after, short)} == {heading.index("has")}


def test_reasons_stand_beside_where_there_is_room() -> None:
    """A wide terminal has one table; a narrow one has the reasons below."""
    assert " why" in render(result(), width=160)
    narrow = render(result(), width=80)
    assert " why" not in narrow
    assert "\n10.0.0.20 No ENI owns 10.0.0.20" in narrow


def quiet(*verdicts: Verdict) -> Result:
    """Make a plan of entries with these verdicts."""
    given = result()
    (judged, *_) = given.judgements
    return replace(given, judgements=[replace(judged, verdict=verdict) for verdict in verdicts])


PART = result("apply", Outcome.HEALED)
(DONE, *_) = PART.repairs.values()
FOUND = "3 of 4 neighbours wrong (2 mismatch, 1 orphan)"


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (quiet(*[Verdict.MATCH] * 12), "All is well: none of 12 neighbours is wrong."),
        (
            quiet(Verdict.MATCH, Verdict.UNLISTED, Verdict.UNKNOWN),
            "All is well: none of 3 neighbours is wrong (1 unknown, 1 unlisted).",
        ),
        (quiet(), "All is well: there are no neighbours."),
        (result(), f"{FOUND}; nothing was changed."),
        (
            result("apply", Outcome.GONE),
            "Repaired: 3 of 4 neighbours were wrong (2 mismatch, 1 orphan).",
        ),
        (result("apply", Outcome.SKIPPED), f"{FOUND}; nothing was changed."),
        (result("apply", Outcome.CHANGED), f"{FOUND}; nothing was changed."),
        (replace(PART, repairs={DONE.judgement.neighbour.key: DONE}), f"{FOUND}; 2 left."),
        (
            result(refusal=HoldRefused("x")),
            f"{FOUND}; refused by a guard, nothing was changed.",
        ),
        (
            replace(quiet(Verdict.UNLISTED), refusal=NoMatchRefused("x")),
            "None of 1 neighbours is wrong (1 unlisted); refused by a guard, nothing was changed.",
        ),
        (result(error=AuthorityError("EC2 is silent.")), "Could not tell: EC2 is silent."),
        (result(error=CapabilityError("May not.")), "Could not act: May not."),
        (result(error=Interrupted("Interrupted. Nothing.")), "Interrupted. Nothing."),
    ],
)
def test_the_first_line_says_it(given: Result, first: str) -> None:
    """What a person wants to know stands in the first line, whatever the result."""
    assert headline(given) == first
    assert render(given, width=160).splitlines()[0] == first


def test_a_refused_repair_says_why() -> None:
    """What the kernel said stands below the table, with the address."""
    (judged, *_) = result().judgements
    repair = Repair(judged, Outcome.FAILED, error="the kernel refused: Operation not permitted")
    given = replace(result("apply"), repairs={judged.neighbour.key: repair})
    assert "failed" in render(given, width=80)
    assert f"{LONG}: the kernel refused: Operation not permitted\n" in render(given, width=80)


def test_the_refusal_stands_last() -> None:
    """A refusal ends the text with the guard's name and its message."""
    last = render(result(refusal=HoldRefused("Remove the file.")), width=80).splitlines()[-1]
    assert last == "Refused by guard `hold`: Remove the file."


def test_descriptions_cannot_steer_the_terminal() -> None:
    """Control characters in what others wrote are shown as question marks."""
    (judged, *_) = result().judgements
    assert judged.owner is not None
    hostile = replace(judged.owner, description="a\x1b[2Jb\x9b31mc\nd\u202ee[bold]f")
    given = replace(result(), judgements=[replace(judged, owner=hostile)])
    assert "a?[2Jb?31mc?d?e[bold]f" in render(given, width=200).replace("\n", "")


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, no_color: str | None) -> str:
    """Print on a terminal, or not on one."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    print_result(result(), Console(file=stream, width=80))
    return stream.getvalue()


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colour, a pipe not one escape code."""
    assert "\x1b[1;31mmismatch" in printed(monkeypatch, terminal=True, no_color=None)
    assert "\x1b" not in printed(monkeypatch, terminal=False, no_color=None)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set a terminal gets weight at most, and no colour."""
    text = printed(monkeypatch, terminal=True, no_color="1")
    assert "mismatch" in text
    assert re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-7]|10[0-7])[;m]", text) is None
