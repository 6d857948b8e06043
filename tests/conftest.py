"""What every test may ask for."""

import pytest

from reconciler.testing.namespaces import enter_user_namespace


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Make network namespaces possible, as root or in a user namespace."""
    enter_user_namespace()
