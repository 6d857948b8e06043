"""What the fuzz tests share."""

import logging
from collections.abc import Iterator

import pytest
from fuzz.sdk import Sdk
from fuzz.world import VPC

from reconciler.testing.endpoint import REGION, Ec2Endpoint


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the complaints of a hundred thousand cases, ours and pyroute2's, out of memory."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def sdk() -> Iterator[Sdk]:
    """Give the real SDK, with nothing of this machine's AWS settings."""
    with pytest.MonkeyPatch.context() as patch, Ec2Endpoint(VPC) as endpoint:
        for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", REGION)
        patch.setenv("AWS_ENDPOINT_URL_EC2", endpoint.url)
        endpoint.page_limit = 4
        sdk = Sdk(endpoint)
        yield sdk
        sdk.close()
