"""The page on safety names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs/safety.md").read_text())


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{f}::{t}" for f, t in NAMED])
def test_the_test_exists(file: str, test: str) -> None:
    """Each invariant's proof is a test of that name in that file."""
    (path,) = (ROOT / "tests").rglob(file)
    assert f"def {test}(" in path.read_text() if test else path.exists()
