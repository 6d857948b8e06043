"""The real SDK with bent answers on its wire, and a pass that believes them or not."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection
from email.message import Message
from random import Random
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from botocore.awsrequest import AWSResponse
from fuzz.world import ETH0, ETH1, HOST, VPC
from fuzz.xml_mutations import mutate, refusal

from reconciler.assembly import Ec2Source
from reconciler.aws.authority import Authority
from reconciler.aws.client import Ec2
from reconciler.aws.metadata import Metadata
from reconciler.core.memory import Memory
from reconciler.core.model import Host, Link, Mac, Neighbour, NextHops, Nud, pack_address
from reconciler.kernel.write import Writer
from reconciler.passes import Pass
from reconciler.repair import Repairer
from reconciler.settings import Settings
from reconciler.testing.clock import ManualClock
from reconciler.testing.endpoint import Ec2Endpoint
from reconciler.testing.http import Request
from reconciler.testing.kernel import FakeKernel


def mac(number: int) -> Mac:
    """Return an ENI's MAC."""
    return VPC.eni(f"eni-{number:017x}").mac


NOBODY = b"\x02\0\0\0\x0f\x01"


def entry(ifindex: int, address: str, lladdr: Mac) -> Neighbour:
    """Describe an ordinary entry."""
    return Neighbour(ifindex, pack_address(address), lladdr, Nud.STALE, confirmed=100.0)


RIGHT = (
    entry(ETH0, "10.0.0.30", mac(5)),
    entry(ETH0, "10.0.0.41", mac(7)),
    entry(ETH0, "10.0.0.70", mac(7)),
    entry(ETH0, "10.0.0.85", mac(7)),
    entry(ETH0, "2001:db8::30", mac(5)),
    entry(ETH1, "10.0.0.30", mac(9)),
    entry(ETH1, "10.0.0.32", mac(10)),
)
WRONG = (
    entry(ETH0, "10.0.0.31", NOBODY),
    entry(ETH0, "10.0.0.32", NOBODY),
    entry(ETH0, "10.0.0.86", mac(5)),
    entry(ETH0, "2001:db8::31", mac(5)),
    entry(ETH1, "10.0.0.31", NOBODY),
)
LEFT_ALONE = (
    entry(ETH0, "10.0.0.1", NOBODY),
    entry(ETH0, "10.0.0.10", NOBODY),
    entry(ETH0, "10.0.0.60", NOBODY),
    entry(ETH0, "10.0.0.99", mac(6)),
    entry(ETH0, "10.0.0.77", NOBODY),
    entry(ETH0, "10.1.0.7", NOBODY),
    entry(9, "10.0.0.31", NOBODY),
)


# Says by a call's number and action whether it is bent.
Bends = Callable[[int, str], bool]


def never(number: int, action: str) -> bool:
    """Bend nothing."""
    del number, action
    return False


class Answer(NamedTuple):
    """What was answered to one call, and whether nothing was done to it."""

    body: bytes
    honest: bool


class Wire:
    """Stands between the SDK and the endpoint, without a connection, and bends what passes.

    ``bends`` chooses the calls. Of each question the last answer is kept, all its pages.
    """

    def __init__(self, endpoint: Ec2Endpoint, rng: Random, bends: Bends) -> None:
        self._endpoint = endpoint
        self._rng = rng
        self.bends = bends
        self._calls = 0
        self._denied = False
        self._said: defaultdict[tuple[tuple[str, str], ...], list[Answer]] = defaultdict(list)

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        """Answer a request that the SDK was about to send."""
        params = dict(parse_qsl(request.body))
        sent = Request("POST", "/", Message(), request.body.encode())
        reply = self._endpoint.respond(sent)
        assert reply is not None
        # A random request id would make another case of the same number.
        body = re.sub(rb"(?<=<requestId>)[^<]*", b"r", reply.body)
        status, honest = reply.status, not self.bends(self._calls, params["Action"])
        self._calls += 1
        if not honest:
            body, status = self._bend(body, status)
            self._denied |= b"UnauthorizedOperation" in body
        question = tuple(sorted(pair for pair in params.items() if pair[0] != "NextToken"))
        if "NextToken" not in params:
            del self._said[question][:]
        self._said[question].append(Answer(body, honest))
        return AWSResponse(request.url, status, {}, Raw(body))

    def _bend(self, body: bytes, status: int) -> tuple[bytes, int]:
        chance = self._rng.random()
        if chance < 0.05:
            return refusal(self._rng), self._rng.choice((400, 403, 503))
        if chance < 0.1:
            status = self._rng.choice((204, 302, 400, 403, 404, 429, 500, 503))
        return mutate(self._rng, body), status

    def said(self, action: str, *names: str) -> list[Answer]:
        """Return the pages of the last answers to questions with just these filters."""
        return [
            answer
            for question, answers in self._said.items()
            for answer in answers
            if ("Action", action) in question
            and names in ((), tuple(sorted(v for k, v in question if k.endswith(".Name"))))
        ]

    @property
    def honest(self) -> bool:
        """Whether nothing was done to any of the last answers.

        A permission that was denied once is missed for a while, whatever comes after.
        """
        last = all(answer.honest for answers in self._said.values() for answer in answers)
        return last and not self._denied


class Raw:
    """A body as botocore reads it from a connection."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> list[bytes]:
        """Return the body in one piece."""
        return [self._body]


class Source(Ec2Source):
    """EC2 as the source; who this host is may be known beforehand, as from metadata."""

    known: Host | None = None

    def identify(self, macs: Collection[Mac]) -> Host:
        """Say which instance this is."""
        return self.known or super().identify(macs)


class Case(NamedTuple):
    """One case: a pass, and the wire that it reads over."""

    one: Pass
    wire: Wire


class Sdk:
    """One client for all cases (a new one takes a third of a second), and the endpoint."""

    def __init__(self, endpoint: Ec2Endpoint) -> None:
        self.endpoint = endpoint
        self._metadata = Metadata({"AWS_EC2_METADATA_DISABLED": "true"})
        self._ec2 = Ec2(self._metadata)
        self._wire = Wire(endpoint, Random(), never)  # noqa: S311 - nothing is bent.
        self._ec2._client.meta.events.register("before-send.ec2", self._send)

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        return self._wire(request)

    def close(self) -> None:
        """Close the client."""
        self._ec2.close()

    def case(
        self,
        rng: Random,
        bends: Bends = never,
        *,
        known: Host | None = HOST,
        memory: Memory | None = None,
    ) -> Case:
        """Make a pass over fakes on one side and the bent wire on the other."""
        # The waits between attempts are drawn from the module's own generator.
        random.seed(rng.random())
        self._wire = Wire(self.endpoint, rng, bends)
        clock = ManualClock()
        settings = Settings()
        authority = Authority(self._ec2, clock=clock, sleep=clock.sleep)
        source = Source(self._metadata, self._ec2, authority, settings)
        source.known = known
        kernel = FakeKernel(
            (*RIGHT, *WRONG, *LEFT_ALONE),
            links=(Link(ETH0, "eth0", mac(1)), Link(ETH1, "eth1", mac(2)), Link(9, "pod", NOBODY)),
            addresses=(pack_address("10.0.0.10"), pack_address("10.0.0.12")),
            clock=clock,
        )
        kernel.next_hops = NextHops(frozenset({pack_address("10.0.0.77")}))
        writer = Writer(kernel, kernel, observe=True, hold_file=None, clock=clock)
        repairer = Repairer(kernel, writer, clock=clock, sleep=clock.sleep)
        one = Pass(kernel, writer, source, settings, repairer, clock=clock, memory=memory)
        return Case(one, self._wire)


__all__ = ["LEFT_ALONE", "RIGHT", "WRONG", "Bends", "Case", "Sdk", "Wire"]
