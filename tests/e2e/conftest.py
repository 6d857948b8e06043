"""A lab for each test, and the command as a person runs it."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from reconciler.testing.example import HOST, example
from reconciler.testing.lab import Lab


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    document: dict[str, Any]
    stderr: str

    def finding(self, address: str) -> dict[str, Any]:
        """Return the one finding about an address."""
        (found,) = [f for f in self.document["findings"] if f["address"] == address]
        return dict(found)


Command = Callable[..., Answer]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build the example VPC with quick neighbour timers."""
    with Lab(example(), host=HOST) as built:
        built.quicken()
        yield built


@pytest.fixture
def command(lab: Lab) -> Command:
    """Run arp-reconciler in the broker's namespace and read its JSON."""

    def run(*words: str) -> Answer:
        argv = [sys.executable, "-m", "reconciler", *words, "--output", "json"]
        ended = lab.run(argv, timeout=60)
        assert "Traceback" not in ended.stderr
        return Answer(ended.returncode, json.loads(ended.stdout), ended.stderr)

    return run
