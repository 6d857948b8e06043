"""What the documents say is what the code does, as far as a test can tell."""

import re
from pathlib import Path

import pytest

from reconciler import errors

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def test_every_rule_is_explained() -> None:
    """Each rule id that the judge can give stands in how-it-decides.md."""
    source = (ROOT / "reconciler/core/judge.py").read_text()
    rules = set(re.findall(r'"((?:[a-z]+-)+[a-z]+|link|multicast|configured|nobody)"', source))
    told = (ROOT / "docs/how-it-decides.md").read_text()
    assert {rule for rule in rules if f"`{rule}`" not in told} == set()


def test_every_guard_has_its_section() -> None:
    """Each guard stands in the README and has a section with its setting."""
    guards = [kind for kind in vars(errors).values() if hasattr(kind, "guard")]
    readme = (ROOT / "README.md").read_text()
    sections = (ROOT / "docs/when-it-refuses.md").read_text()
    assert len(guards) == 5
    for kind in guards:
        assert f"`{kind.guard}`" in readme
        assert f"\n## {kind.guard}\n" in sections
        assert f"`{kind.setting}`" in sections


def test_make_targets_exist() -> None:
    """Every make target that a document names is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    named = {t for d in DOCUMENTS for t in re.findall(r"make ([a-z][a-z-]+) ", d.read_text())}
    assert "demo" in named
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert named & {"demo", "test", "lint", "bench", "soak", "fuzz"} <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.name))
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links in the documents name files that exist."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
