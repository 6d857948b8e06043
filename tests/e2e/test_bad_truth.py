"""What EC2 cannot say whole, is not said: exit 1, one document, the table untouched."""

from collections.abc import Callable

import pytest
from e2e.conftest import Command
from e2e.test_one_pass import WRONG, fingerprint

from reconciler.testing.endpoint import Fault
from reconciler.testing.lab import Lab


def second_page_fails(lab: Lab) -> None:
    """Let every second page fail for good."""
    lab.endpoint.page_limit = 5
    lab.endpoint.faults.add(Fault("server_error", page=1, times=None))


def empty(lab: Lab) -> None:
    """Answer with no ENI at all."""
    lab.endpoint.faults.add(Fault("empty", times=None))


def denied(lab: Lab) -> None:
    """Deny the call."""
    lab.endpoint.denied.add("DescribeNetworkInterfaces")


def cut(lab: Lab) -> None:
    """Cut every connection in the middle of the answer."""
    lab.endpoint.faults.add(Fault("cut", times=None))


def lacks_this_host(lab: Lab) -> None:
    """Leave this host's own ENI out."""
    eni_id = lab.broker_eni(lab.wire.subnets[0].subnet_id).eni_id
    lab.endpoint.faults.add(Fault("lacking", times=None, ids=(eni_id,)))


@pytest.mark.parametrize("break_it", [second_page_fails, empty, denied, cut, lacks_this_host])
def test_nothing_is_done_on_bad_truth(
    lab: Lab, command: Command, break_it: Callable[[Lab], None]
) -> None:
    """Both commands exit 1 with the reason in one document, and the table stays as it was."""
    lab.set_neighbour("10.0.0.11", WRONG)
    before = fingerprint(lab)
    break_it(lab)
    for word in ("plan", "apply"):
        answer = command(word)
        assert (answer.code, answer.document["result"]) == (1, "error")
        assert answer.document["error"]["code"].startswith("authority")
        assert "othing was changed" in answer.document["error"]["message"]
        assert answer.document["findings"] == []
    assert fingerprint(lab) == before


def test_metadata_may_be_absent(lab: Lab, command: Command) -> None:
    """Where metadata does not answer, the API says which host this is."""
    lab.set_neighbour("10.0.0.11", WRONG)
    lab.metadata.status = 503
    assert command("apply").finding("10.0.0.11")["outcome"] == "healed"


def test_neither_metadata_nor_the_api_knows_this_host(lab: Lab, command: Command) -> None:
    """The message says what was tried."""
    lab.metadata.status = 404
    for eni in lab.endpoint.vpc.enis:
        lab.endpoint.vpc = lab.endpoint.vpc.without_eni(eni.eni_id)
    answer = command("plan")
    assert (answer.code, answer.document["error"]["code"]) == (1, "identity")
    assert "etadata" in answer.document["error"]["message"]
