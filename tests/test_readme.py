"""What the documents say is what the code does, as far as a test can tell."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler import cli, errors
from reconciler.core.model import (
    Judgement,
    Link,
    ManagedLink,
    Neighbour,
    Nud,
    Outcome,
    Prefix,
    Reading,
    Repair,
    Subnet,
    Verdict,
    pack_address,
)
from reconciler.report import journal
from reconciler.report.document import document
from reconciler.report.result import Result
from reconciler.settings import SETTINGS
from reconciler.testing.vpc import eni

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text()
HOW_IT_DECIDES = (ROOT / "docs/how-it-decides.md").read_text()
OUTPUT = (ROOT / "docs/output.md").read_text()

_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "log"}


def nodes(folder: str) -> Iterator[ast.AST]:
    """Go through all source of a folder, or of one file."""
    path = ROOT / folder
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        yield from ast.walk(ast.parse(file.read_text()))


def text(node: ast.AST) -> str | None:
    """Return the text that a node is, if it is one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def rules_of(node: ast.AST) -> Iterator[str | None]:
    """Find rule ids: as arguments, or beside a reason in a pair."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        where = {"_verdict": 2, "Judgement": 2, "_pending": 1}.get(node.func.id)
        if where is not None:
            yield from map(text, node.args[where : where + 1])
    elif isinstance(node, ast.Tuple) and len(node.elts) in {2, 3}:
        # (rule, reason), and (flag, rule, reason) in the table of flags.
        *_, rule, reason = node.elts
        if isinstance(reason, ast.Constant | ast.JoinedStr):
            yield text(rule)


def rules() -> set[str]:
    """Collect every rule id that an entry can be given."""
    files = ("core/judge.py", "core/plan.py", "core/memory.py", "passes.py")
    found = {rule for file in files for n in nodes(f"reconciler/{file}") for rule in rules_of(n)}
    return {rule for rule in found if rule}


def events() -> set[str]:
    """Collect every event that is logged."""
    found = set()
    for node in nodes("reconciler"):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and (node.func.value.id, node.func.attr in _LOG_METHODS) == ("log", True)
        ):
            found |= {word for argument in node.args[:2] if (word := text(argument))}
    return found


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    below = page[page.index(f"\n## {heading}\n") :]
    _, table, *_ = re.split(r"\n\| --- .*\n", below, maxsplit=1)
    lines = table.split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(cell: str) -> list[str]:
    """Return the words between back-ticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_rule_is_explained() -> None:
    """The table of rules has each rule that the code can give, and no other."""
    told = [word for row in rows(HOW_IT_DECIDES, "The rules, in order") for word in quoted(row[1])]
    assert len(told) == len(set(told))
    assert rules() == set(told)


def test_every_verdict_and_outcome_is_explained() -> None:
    """The README has each verdict, and both documents each outcome."""
    told = {word for row in rows(README, "Reading the output") for word in quoted(row[0])}
    assert set(Verdict) == told
    assert {o for o in Outcome if f"\n| `{o}` |" not in HOW_IT_DECIDES} == set()
    assert {o for o in Outcome if f"\n| `{o}` |" not in OUTPUT} == set()


@pytest.mark.parametrize("page", [README, OUTPUT], ids=["README", "output"])
def test_every_exit_code_is_told(page: str) -> None:
    """README and output.md have each exit code that the help has, and no other."""
    codes = re.findall(r"^ +(\d+) ", cli.EXITS, re.MULTILINE)
    assert len(codes) == 6
    assert codes == re.findall(r"^\| (\d+) \|", page, re.MULTILINE)


def test_every_guard_has_its_section() -> None:
    """Each guard stands in the README and has a section with its setting."""
    guards = [kind for kind in vars(errors).values() if hasattr(kind, "guard")]
    sections = (ROOT / "docs/when-it-refuses.md").read_text()
    told = [word for row in rows(README, "When it refuses") for word in quoted(row[0])]
    assert sorted(kind.guard for kind in guards) == sorted(told)
    for kind in guards:
        assert f"\n## {kind.guard}\n" in sections
        assert f"`{kind.setting}`" in sections


def test_every_log_event_is_told() -> None:
    """The table of events has each event that the code logs, and no other."""
    told = [word for row in rows(OUTPUT, "The log of `run`") for word in quoted(row[0])]
    assert len(told) == len(set(told))
    assert events() == set(told)


def test_every_error_code_is_told() -> None:
    """Each code that ``error`` can have is explained, but for the bases of the exceptions."""
    codes = {kind.code for kind in vars(errors).values() if hasattr(kind, "code")}
    assert {code for code in codes - {"error", "refused"} if f"`{code}`" not in OUTPUT} == set()


def keys_of(value: Any) -> set[str]:
    """Return the keys of a JSON value, at every depth; verdicts stand elsewhere."""
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    if isinstance(value, dict):
        return value.keys() | {key for item in value.values() for key in keys_of(item)}
    return set()


def test_every_json_field_is_told() -> None:
    """Each field of the document of plan and apply, and of the journal, is explained."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    subnet = Subnet("subnet-1", "vpc-1", (Prefix.parse("10.0.0.0/24"),))
    owner = eni(1, ["10.0.0.9"], subnet=subnet)
    entry = Neighbour(2, pack_address("10.0.0.9"), owner.mac, Nud.STALE)
    judgement = Judgement(entry, Verdict.MISMATCH, "rule", "Reason.", owner=owner, mac_owner=owner)
    repair = Repair(judgement, Outcome.HEALED, after=entry)
    reading = Reading(1, 2, at, (owner,), {}, 1)
    links = {2: ManagedLink(Link(2, "eth0", owner.mac), owner, subnet)}
    told = Result(
        command="plan",
        mode="enforce",
        at=at,
        reading=reading,
        links=links,
        judgements=[judgement],
        refusal=errors.HoldRefused("held"),
        error=errors.KernelError("broken"),
    )
    fields = keys_of(document(told)) - set(Verdict)
    fields |= keys_of(journal.entry(repair, reading, "eth0", at))
    assert len(fields) > 50
    assert {field for field in fields if f"`{field}`" not in OUTPUT} == set()


def test_the_permissions_are_those_that_are_used() -> None:
    """README and SECURITY.md name exactly the API actions that the client calls."""
    called = {
        text(node.args[0])
        for node in nodes("reconciler/aws/client.py")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_pages"
    }
    assert "DescribeSubnets" in called
    for page in (README, (ROOT / "SECURITY.md").read_text()):
        assert called == set(re.findall(r"\bec2:(\w+)", page))


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.name))
def test_what_a_document_names_exists(page: Path) -> None:
    """Commands, flags, settings and make targets that a document names are there."""
    words = page.read_text()
    commands = set(re.findall(r"\barp-reconciler ([a-z]+)(?=[ `\n])", words))
    assert commands <= {*cli.cli.commands}
    options = {o for c in commands for p in cli.cli.commands[c].params for o in p.opts}
    for line in re.findall(r"\barp-reconciler [a-z]+( --[a-z].*?)(?:`|\n)", words):
        assert set(re.findall(r"--[a-z-]+", line)) <= options
    tables = "|".join({setting.table for setting in SETTINGS if setting.table})
    named = set(re.findall(rf"`((?:{tables})\.(?!py)[a-z_]+)[` ]", words))
    assert named - events() <= {setting.key for setting in SETTINGS}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", words, re.MULTILINE)) <= targets


def test_the_readme_names_what_a_stranger_needs() -> None:
    """The two commands, and the three that matter at night, are in the README."""
    for line in ("make demo ", "make test ", "arp-reconciler plan\n", "arp-reconciler apply\n"):
        assert f"\n{line}" in README
    assert "\narp-reconciler explain " in README


def anchors(page: Path) -> set[str]:
    """Return what a link into a document may point at: its headings, as a forge writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.name))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that are there, and headings that are in them."""
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / name if name else page
        assert target.exists()
        assert not anchor or anchor in anchors(target)
