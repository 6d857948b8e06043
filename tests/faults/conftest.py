"""A place for each test."""

from collections.abc import Iterator
from functools import cache

import pytest
from botocore.loaders import create_loader
from faults.place import Place, adopt

from reconciler.testing.example import HOST, example
from reconciler.testing.lab import Lab

# Reading EC2's service model takes 0.3 s, and every command makes a client of its own.
shared_loader = cache(create_loader)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Build the example VPC, its endpoint answering in small pages, and plant the table."""
    monkeypatch.setattr("botocore.session.create_loader", shared_loader)
    with Lab(example(), host=HOST) as lab:
        lab.quicken()
        lab.endpoint.page_limit = 5
        adopt(lab, monkeypatch)
        built = Place(lab)
        built.plant()
        yield built
