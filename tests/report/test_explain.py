"""Everything about one address: entries, owners, the rule that decided."""

import io
import json
from dataclasses import replace

import pytest
from core.strategies import HOST_ENIS, LINKS, MACS, SUBNETS
from report.test_output import LONG, OWNER, result
from rich.console import Console

from reconciler.core.model import (
    ManagedLink,
    Neighbour,
    Ntf,
    Nud,
    Verdict,
    pack_address,
)
from reconciler.core.ownership import Ownership
from reconciler.report.document import finding
from reconciler.report.explain import Explanation

IDLE = replace(OWNER, eni_id="eni-idle", status="available", instance_id=None, mac=MACS[1])
LINKED = {
    link.index: ManagedLink(link, eni, subnet)
    for link, eni, subnet in zip(LINKS, HOST_ENIS, SUBNETS, strict=True)
}


def explain(address: str, *extra: Neighbour) -> Explanation:
    """Explain an address on a host with two links whose subnets share a range."""
    given = result()
    (judged, *_) = given.judgements
    more = [replace(judged, neighbour=neighbour) for neighbour in extra]
    given = replace(
        given,
        links=LINKED,
        names={2: "eth0", 3: "eth1"},
        judgements=[*given.judgements, *more],
    )
    return Explanation(pack_address(address), given, Ownership((OWNER, IDLE)))


def printed(explanation: Explanation, width: int = 80) -> str:
    """Print for a person, off a terminal."""
    stream = io.StringIO()
    explanation.print(Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


def test_the_document_has_every_entry_and_owner() -> None:
    """The address' entries are findings with flags and protocol; owners are live or idle."""
    flagged = Neighbour(3, pack_address("10.0.0.9"), MACS[5], Nud.STALE, Ntf.ROUTER, 186)
    explanation = explain("10.0.0.9", flagged)
    told = explanation.document()
    assert list(told) == [
        *("schema_version", "command", "at", "address", "entries", "owners", "error")
    ]
    assert (told["command"], told["address"]) == ("explain", "10.0.0.9")
    assert [(e["link"], e["flags"], e["protocol"]) for e in told["entries"]] == [
        ("eth0", [], 0),
        ("eth1", ["router"], 186),
    ]
    assert finding(explanation.result, explanation.judgements[0]).items() <= (
        told["entries"][0].items()
    )
    owners = [
        (o["link"], o["subnet_id"], [e["mac"] for e in o["live"]], [e["eni_id"] for e in o["idle"]])
        for o in told["owners"]
    ]
    assert owners == [
        ("eth0", "subnet-a", ["02:00:00:00:01:00"], ["eni-idle"]),
        ("eth1", "subnet-b", [], []),
    ]
    json.dumps(told)


@pytest.mark.parametrize("verdict", Verdict)
def test_an_unremarkable_entry_is_explained_too(verdict: Verdict) -> None:
    """Explain tells every entry of the address, whatever its verdict."""
    explanation = explain("10.0.0.9")
    given = explanation.result
    judgements = [replace(judged, verdict=verdict) for judged in given.judgements]
    explanation = explanation._replace(result=replace(given, judgements=judgements))
    assert printed(explanation).startswith(f"10.0.0.9 on eth0: {verdict}\n")


def test_an_unknown_flag_breaks_nothing() -> None:
    """A flag of a newer kernel is passed over by name."""
    newer = Neighbour(3, pack_address("10.0.0.9"), MACS[5], 3, Ntf.PROXY | 0x8000)
    entry = explain("10.0.0.9", newer).document()["entries"][1]
    assert (entry["nud"], entry["flags"]) == ("0x03", ["proxy"])


def test_the_text_says_what_decided() -> None:
    """Verdict, reason, rule, both MACs, state, ages and owner each have their line."""
    lines = printed(explain("10.0.0.9")).splitlines()
    assert lines[0] == "10.0.0.9 on eth0: mismatch"
    for line in (
        "  rule    owner-has-other-mac",
        "  has     02:00:00:00:01:05",
        "  needs   02:00:00:00:01:00",
        "  state   REACHABLE",
        "  ages    confirmed 0.0 s, used 0.0 s, updated 0.0 s",
        "  action  delete",
        "  owner   no ENI of subnet-b (eth1) lists it",
    ):
        assert line in lines
    assert sum(line.startswith("  owner   eni-") for line in lines) == 2


def test_an_address_that_is_not_there() -> None:
    """Without an entry it says so, and still names the owner."""
    text = printed(explain("10.0.0.12"))
    assert text.splitlines()[0] == "10.0.0.12 is not in the neighbour table."
    assert text.count("no ENI of") == 2


def test_an_address_of_no_subnet() -> None:
    """An address outside every subnet has neither entry nor owner."""
    told = explain("192.0.2.1").document()
    assert (told["entries"], told["owners"]) == ([], [])


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits(width: int) -> None:
    """No line is wider than the terminal, and nothing is coloured off one."""
    text = printed(explain(LONG), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_descriptions_cannot_steer_the_terminal() -> None:
    """Control characters in an owner's description are shown as question marks."""
    hostile = Ownership((replace(OWNER, description="a\x1b[2J\x9bb"),))
    assert "a?[2J?b" in printed(explain("10.0.0.9")._replace(ownership=hostile), 160)
