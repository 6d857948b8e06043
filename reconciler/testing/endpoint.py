"""An EC2 endpoint for one machine: the real query protocol, answered from a ``Vpc``.

It exists because the emulators ignore paging, delegated prefixes, the IPv6
filter and interface types, and because an honest server cannot be made to lie.
It speaks form POST in and XML out (API version 2016-11-15), so that the real SDK
with its real parser stands on the other side::

    with Ec2Endpoint(vpc) as ec2:
        client = boto3.client("ec2", endpoint_url=ec2.url, ...)
        ec2.faults.add(Fault("throttle", times=3))

An API that lags the wire, or runs ahead of it, is ``ec2.vpc = another``; replicas
that disagree are ``ec2.replicas = (old, new)``.
"""

import base64
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

from reconciler.core.model import Eni, Subnet, format_address, format_mac
from reconciler.testing.http import HttpServer, Reply, Request
from reconciler.testing.vpc import Vpc

REGION = "eu-central-1"
VERSION = "2016-11-15"
NAMESPACE = f"http://ec2.amazonaws.com/doc/{VERSION}/"

# ------------------------------------------------------------------- faults

FaultKind = Literal[
    "throttle",  # 503 RequestLimitExceeded
    "server_error",  # 500 InternalError
    "bad_gateway",  # 502 with a bare HTML page
    "expired",  # 400 RequestExpired
    "expired_token",  # 400 ExpiredToken
    "hang",  # taken in and never answered
    "cut",  # the socket closes in the middle of the body
    "truncated",  # half the XML, with a Content-Length that agrees
    "garbage",  # 200 with bytes that are no XML
    "wrong_token",  # the page names a next token that EC2 will not know
    "missing_page",  # the next token skips a page
    "duplicate",  # the next page begins with this page's last row
    "empty",  # no rows and no next page
    "lacking",  # the rows named in ``ids`` are left out
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to answer wrongly, and when.

    Attributes:
        kind: what goes wrong.
        action: the only action it strikes; None strikes every one.
        page: the only page of a reading it strikes, counted from 1; None strikes any.
        after: how many calls that it could have struck pass first.
        times: how often it strikes; None until it is cleared.
        ids: for ``lacking``, the ids of the ENIs or subnets to leave out.

    Paging faults strike only a page that has a next one, and ``lacking`` only a
    page that holds one of its ids: a fault that is used up was really suffered.
    """

    kind: FaultKind
    action: str | None = None
    page: int | None = None
    after: int = 0
    times: int | None = 1
    ids: tuple[str, ...] = ()

    def strikes(self, action: str, page: "_Page | None") -> bool:
        """Say whether this call can suffer the fault; ``page`` None: it was refused anyway."""
        if self.action not in (None, action):
            return False
        if page is None:
            return self.page is None and self.kind in _WITHOUT_ANSWER
        if self.page not in (None, page.number):
            return False
        if self.kind in ("wrong_token", "missing_page", "duplicate"):
            return page.following is not None
        return self.kind != "lacking" or any(page.kind.name(row) in self.ids for row in page.rows)


class Faults:
    """The faults still to come, in order; safe to change while calls are answered.

    Its length tells how many are left: 0 after a test means all were suffered.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(tuple(self._faults))

    def add(self, *faults: Fault) -> None:
        """Put faults behind those still to come."""
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        """Become honest again."""
        with self._lock:
            self._faults.clear()

    def take(self, strikes: Callable[[Fault], bool]) -> Fault | None:
        """Use up the first fault that strikes, or let those with ``after`` left wait on."""
        with self._lock:
            for position, fault in enumerate(self._faults):
                if not strikes(fault):
                    continue
                if fault.after:
                    self._faults[position] = replace(fault, after=fault.after - 1)
                    continue
                if fault.times == 1:
                    del self._faults[position]
                elif fault.times is not None:
                    self._faults[position] = replace(fault, times=fault.times - 1)
                return fault
        return None


# ------------------------------------------------------------------ requests


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came in and as it was answered.

    Attributes:
        params: the query's parameters as sent (``Filter.1.Name`` …), without Action.
        status: the HTTP status; 0 where nothing was answered.
        code: EC2's error code, or None.
        fault: the fault it suffered, or None.
    """

    action: str
    params: Mapping[str, str]
    status: int
    code: str | None = None
    fault: FaultKind | None = None

    @property
    def filters(self) -> dict[str, tuple[str, ...]]:
        """The filters by name, values in the order sent."""
        return dict(_filters(self.params))


class _Refusal(Exception):  # noqa: N818 - an answer of EC2's, not a fault of ours.
    """EC2 answers with an error."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


_REFUSALS: Mapping[str, _Refusal] = {
    "throttle": _Refusal("RequestLimitExceeded", "Request limit exceeded.", 503),
    "server_error": _Refusal("InternalError", "An internal error has occurred", 500),
    "expired": _Refusal("RequestExpired", "Request has expired."),
    "expired_token": _Refusal(
        "ExpiredToken", "The security token included in the request is expired"
    ),
}
_WITHOUT_ANSWER = frozenset({*_REFUSALS, "bad_gateway", "hang"})


def _filters(params: Mapping[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """Collect ``Filter.N.Name`` and ``Filter.N.Value.M``."""
    names: dict[str, str] = {}
    values: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in params.items():
        match key.split("."):
            case ["Filter", number, "Name"]:
                names[number] = value
            case ["Filter", number, "Value", _]:
                values[number].append(value)
    return [(name, tuple(values[number])) for number, name in names.items()]


class _Cursor(NamedTuple):
    """Where a paginated reading goes on; a NextToken is one of these in base64."""

    action: str
    start: int
    page: int
    replica: int

    @property
    def token(self) -> str:
        """Write it as text that tells a client nothing."""
        return base64.b64encode(":".join(map(str, self)).encode()).decode()

    @classmethod
    def parse(cls, token: str, action: str) -> "_Cursor":
        """Read a token given out earlier for the same action."""
        try:
            named, *numbers = base64.b64decode(token, validate=True).decode().split(":")
            start, page, replica = map(int, numbers)
        except ValueError:
            named, start, page, replica = "", 0, 0, 0
        if named != action:
            raise _Refusal("InvalidNextToken", "The specified token is not valid")
        return cls(action, start, page, replica)


# ------------------------------------------------------------------- answers

Node = str | int | Mapping[str, "Node"] | Sequence["Node"] | None
Row = TypeVar("Row")


@dataclass(frozen=True)
class _Kind(Generic[Row]):
    """What one describe action lists, and how it is asked for and written."""

    element: str
    id_parameter: str
    not_found: str
    rows: Callable[[Vpc], Sequence[Row]]
    name: Callable[[Row], str]
    filters: Mapping[str, Callable[[Row], Iterable[str | None]]]
    describe: Callable[[Sequence[Row], Vpc], Sequence[Node]]

    def select(
        self, vpc: Vpc, params: Mapping[str, str], hidden: frozenset[str]
    ) -> tuple[Row, ...]:
        """List what the ids and filters ask for, in the order of the description."""
        rows = [row for row in self.rows(vpc) if self.name(row) not in hidden]
        prefix = f"{self.id_parameter}."
        ids = {value for key, value in params.items() if key.startswith(prefix)}
        if unknown := ids - {self.name(row) for row in rows}:
            raise _Refusal(self.not_found, f"The ID '{min(unknown)}' does not exist")
        if ids:
            if "MaxResults" in params:
                raise _Refusal(
                    "InvalidParameterCombination",
                    f"The parameter {self.id_parameter} cannot be used with maxResults",
                )
            rows = [row for row in rows if self.name(row) in ids]
        asked = _filters(params)
        # EC2's own words are "on a single call": a client that keeps all filters
        # together within the limit is right under the gentler reading too.
        if len(asked) > 50 or sum(len(values) for _, values in asked) > 200:
            raise _Refusal(
                "FilterLimitExceeded",
                "The maximum number of filter values specified on a single call is 200",
            )
        for name, values in asked:
            if name not in self.filters:
                raise _Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
            value_of, wanted = self.filters[name], frozenset(values)
            rows = [row for row in rows if not wanted.isdisjoint(value_of(row))]
        return tuple(rows)


@dataclass(frozen=True)
class _Page:
    """One page of an answer, before anything goes wrong with it."""

    kind: _Kind[Any]
    vpc: Vpc
    rows: tuple[Any, ...]
    number: int
    total: int
    following: _Cursor | None

    def suffer(self, fault: Fault | None) -> "_Page":
        """Return the page as a fault among the paging and the missing rows leaves it."""
        if fault is None:
            return self
        if fault.kind == "empty":
            return replace(self, rows=(), following=None)
        if fault.kind == "lacking":
            rows = tuple(row for row in self.rows if self.kind.name(row) not in fault.ids)
            return replace(self, rows=rows)
        if self.following is None or fault.kind not in ("missing_page", "duplicate"):
            return self
        skipped = -1 if fault.kind == "duplicate" else len(self.rows)
        cursor = self.following._replace(start=self.following.start + skipped)
        return replace(self, following=cursor if cursor.start < self.total else None)


def _ipv4(eni: Eni) -> list[str]:
    return [format_address(address) for address in eni.addresses if len(address) == 4]


def _ipv6(eni: Eni) -> list[str]:
    return [format_address(address) for address in eni.addresses if len(address) == 16]


def _describe_enis(enis: Sequence[Eni], vpc: Vpc) -> list[Node]:
    seen: Counter[str | None] = Counter()
    device_indexes = {}
    for eni in vpc.enis:
        device_indexes[eni.eni_id] = seen[eni.instance_id]
        seen[eni.instance_id] += 1
    return [_describe_eni(eni, device_indexes[eni.eni_id]) for eni in enis]


def _describe_eni(eni: Eni, device_index: int) -> Node:
    number = eni.eni_id.removeprefix("eni-")
    ipv4 = _ipv4(eni)
    attachment: Node = None
    # A service's ENI (load balancer, NAT gateway …) is attached to no instance of ours.
    if eni.instance_id or eni.instance_owner_id:
        attachment = {
            "attachmentId": f"eni-attach-{number}",
            "instanceId": eni.instance_id,
            "instanceOwnerId": eni.instance_owner_id,
            "deviceIndex": device_index if eni.instance_id else 1,
            "networkCardIndex": 0,
            "status": "attached" if eni.live else eni.status,
            "attachTime": "2026-01-01T00:00:00.000Z",
            "deleteOnTermination": True,
        }
    # interfaceType is an open set; these are what an account makes for itself.
    own = eni.interface_type in ("interface", "efa", "efa-only", "trunk", "branch")
    return {
        "networkInterfaceId": eni.eni_id,
        "subnetId": eni.subnet_id,
        "vpcId": eni.vpc_id,
        "availabilityZone": f"{REGION}a",
        "description": eni.description,
        "ownerId": eni.owner_id,
        "requesterManaged": not own or (attachment is not None and eni.instance_id is None),
        "status": eni.status,
        "macAddress": format_mac(eni.mac),
        "privateIpAddress": ipv4[0] if ipv4 else None,
        "sourceDestCheck": True,
        "groupSet": [{"groupId": f"sg-{1:017x}", "groupName": "default"}],
        "attachment": attachment,
        "tagSet": [],
        "privateIpAddressesSet": [
            {"privateIpAddress": address, "primary": address == ipv4[0]} for address in ipv4
        ],
        "ipv6AddressesSet": [
            {"ipv6Address": address, "isPrimaryIpv6": False} for address in _ipv6(eni)
        ],
        "ipv4PrefixSet": [{"ipv4Prefix": str(p)} for p in eni.prefixes if len(p.address) == 4],
        "ipv6PrefixSet": [{"ipv6Prefix": str(p)} for p in eni.prefixes if len(p.address) == 16],
        "interfaceType": eni.interface_type,
    }


def _describe_subnets(subnets: Sequence[Subnet], _: Vpc) -> list[Node]:
    return [_describe_subnet(subnet) for subnet in subnets]


def _describe_subnet(subnet: Subnet) -> Node:
    ipv4 = [str(cidr) for cidr in subnet.cidrs if len(cidr.address) == 4]
    ipv6 = [str(cidr) for cidr in subnet.cidrs if len(cidr.address) == 16]
    arn = f"arn:aws:outposts:{REGION}:{subnet.owner_id}:outpost/op-{1:017x}"
    return {
        "subnetId": subnet.subnet_id,
        "vpcId": subnet.vpc_id,
        "ownerId": subnet.owner_id,
        "state": "available",
        # EC2 gives a subnet one IPv4 block, and any number of IPv6 ones.
        "cidrBlock": ipv4[0] if ipv4 else None,
        "ipv6CidrBlockAssociationSet": [
            {
                "associationId": f"subnet-cidr-assoc-{number:017x}",
                "ipv6CidrBlock": cidr,
                "ipv6CidrBlockState": {"state": "associated"},
            }
            for number, cidr in enumerate(ipv6)
        ],
        "ipv6Native": not ipv4,
        "outpostArn": arn if subnet.outpost else None,
        "enableLniAtDeviceIndex": 1 if subnet.local_network_interfaces else None,
        "availabilityZone": f"{REGION}a",
        "mapPublicIpOnLaunch": False,
        "defaultForAz": False,
        "tagSet": [],
    }


_KINDS: Mapping[str, _Kind[Any]] = {
    "DescribeNetworkInterfaces": _Kind[Eni](
        element="networkInterfaceSet",
        id_parameter="NetworkInterfaceId",
        not_found="InvalidNetworkInterfaceID.NotFound",
        rows=lambda vpc: vpc.enis,
        name=lambda eni: eni.eni_id,
        # Source: the API reference of DescribeNetworkInterfaces. None of them
        # looks into a delegated prefix.
        filters={
            "network-interface-id": lambda eni: (eni.eni_id,),
            "private-ip-address": lambda eni: _ipv4(eni)[:1],
            "addresses.private-ip-address": _ipv4,
            "ipv6-addresses.ipv6-address": _ipv6,
            "mac-address": lambda eni: (format_mac(eni.mac),),
            "subnet-id": lambda eni: (eni.subnet_id,),
            "vpc-id": lambda eni: (eni.vpc_id,),
            "attachment.instance-id": lambda eni: (eni.instance_id,),
            "status": lambda eni: (eni.status,),
            "owner-id": lambda eni: (eni.owner_id,),
        },
        describe=_describe_enis,
    ),
    "DescribeSubnets": _Kind[Subnet](
        element="subnetSet",
        id_parameter="SubnetId",
        not_found="InvalidSubnetID.NotFound",
        rows=lambda vpc: vpc.subnets,
        name=lambda subnet: subnet.subnet_id,
        filters={
            "subnet-id": lambda subnet: (subnet.subnet_id,),
            "vpc-id": lambda subnet: (subnet.vpc_id,),
            "owner-id": lambda subnet: (subnet.owner_id,),
        },
        describe=_describe_subnets,
    ),
}


def _xml(name: str, value: Node) -> str:
    """Write a value the way EC2 does: members by name, lists as ``item``, None not at all."""
    if value is None:
        return ""
    if isinstance(value, bool):
        inner = str(value).lower()
    elif isinstance(value, str | int):
        inner = escape(str(value), quote=False)
    elif isinstance(value, Mapping):
        inner = "".join(_xml(key, member) for key, member in value.items())
    else:
        inner = "".join(_xml("item", member) for member in value)
    return f"<{name}>{inner}</{name}>"


def _error_body(refusal: _Refusal, request_id: str) -> bytes:
    error: Node = {"Error": {"Code": refusal.code, "Message": str(refusal)}}
    body = _xml("Response", {"Errors": error, "RequestID": request_id})
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def _answer_body(action: str, page: _Page, request_id: str, fault: FaultKind | None) -> bytes:
    token = page.following.token if page.following else None
    if token and fault == "wrong_token":
        token = token[::-1]
    members: dict[str, Node] = {
        "requestId": request_id,
        page.kind.element: page.kind.describe(page.rows, page.vpc),
        "nextToken": token,
    }
    inner = "".join(_xml(name, value) for name, value in members.items())
    root = f'{action}Response xmlns="{NAMESPACE}"'
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{action}Response>'.encode()
    if fault == "garbage":
        return bytes(range(256))
    return body[: len(body) // 2] if fault == "truncated" else body


class Ec2Endpoint(HttpServer):
    """An EC2 endpoint that answers DescribeNetworkInterfaces and DescribeSubnets.

    Attributes:
        vpc: what EC2 believes; may be replaced at any time, and the next call
            (also the next page of a reading under way) is answered from the new one.
        replicas: where given, each paginated reading is answered whole from the
            next of them in turn, for each action apart; ``vpc`` is then not asked.
        managed: ids of ENIs that are listed only with ``IncludeManagedResources``.
        denied: actions answered with UnauthorizedOperation.
        page_limit: rows a page at most, whatever MaxResults allows (EC2 may give
            fewer than asked for); makes many pages out of a small VPC.
        faults: the wrong answers still to come.
        calls: every call so far, in the order it came in.
        latency: seconds added to every answer.
    """

    def __init__(self, vpc: Vpc, *, listener: socket.socket | None = None) -> None:
        super().__init__(listener=listener)
        self.vpc = vpc
        self.replicas: tuple[Vpc, ...] | None = None
        self.managed: frozenset[str] = frozenset()
        self.denied: set[str] = set()
        self.page_limit = 1000
        self.faults = Faults()
        self.calls: list[Call] = []
        self._turns: Counter[str] = Counter()
        self._lock = threading.Lock()

    def respond(self, request: Request) -> Reply | None:
        """Answer one API call."""
        params = dict(parse_qsl(request.body.decode(errors="replace"), keep_blank_values=True))
        action = params.pop("Action", "")
        with self._lock:
            call, reply = self._decide(action, params)
            self.calls.append(call)
        return reply

    def _decide(self, action: str, params: dict[str, str]) -> tuple[Call, Reply | None]:
        outcome: _Page | _Refusal
        try:
            outcome = self._read(action, params)
        except _Refusal as error:
            outcome = error
        page = outcome if isinstance(outcome, _Page) else None
        fault = self.faults.take(lambda fault: fault.strikes(action, page))
        kind = fault.kind if fault else None
        call = Call(action, params, 200, fault=kind)
        if kind == "hang":
            return replace(call, status=0), None
        if kind == "bad_gateway":
            html = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
            return replace(call, status=502), Reply(502, html, "text/html")
        outcome = _REFUSALS.get(kind or "", outcome)
        request_id = str(uuid4())
        if isinstance(outcome, _Refusal):
            call = replace(call, status=outcome.status, code=outcome.code)
            return call, Reply(outcome.status, _error_body(outcome, request_id), "text/xml")
        if outcome.number == 1:
            self._turns[action] += 1
        body = _answer_body(action, outcome.suffer(fault), request_id, kind)
        return call, Reply(200, body, "text/xml", cut=kind == "cut")

    def _read(self, action: str, params: Mapping[str, str]) -> _Page:
        """Take one page out of the description, as an honest EC2 would."""
        if params.get("Version") != VERSION:
            raise _Refusal("NoSuchVersion", f"The version must be {VERSION}")
        kind = _KINDS.get(action)
        if kind is None:
            raise _Refusal(
                "InvalidAction", f"The action {action} is not valid for this web service."
            )
        if action in self.denied:
            message = f"You are not authorized to perform this operation: ec2:{action}"
            raise _Refusal("UnauthorizedOperation", message, 403)
        if params.get("DryRun") == "true":
            message = "Request would have succeeded, but DryRun flag is set."
            raise _Refusal("DryRunOperation", message, 412)
        cursor = _Cursor(action, 0, 1, self._turns[action])
        if "NextToken" in params:
            cursor = _Cursor.parse(params["NextToken"], action)
        vpc = self.replicas[cursor.replica % len(self.replicas)] if self.replicas else self.vpc
        hidden = frozenset() if params.get("IncludeManagedResources") == "true" else self.managed
        rows = kind.select(vpc, params, hidden)
        end = len(rows)
        if "MaxResults" in params:
            size = params["MaxResults"]
            if not size.isdecimal() or not 5 <= int(size) <= 1000:
                message = f"Value ( {size} ) for parameter maxResults is invalid: 5 to 1000."
                raise _Refusal("InvalidParameterValue", message)
            end = cursor.start + min(int(size), self.page_limit)
        following = cursor._replace(start=end, page=cursor.page + 1) if end < len(rows) else None
        return _Page(kind, vpc, rows[cursor.start : end], cursor.page, len(rows), following)


__all__ = ["REGION", "Call", "Ec2Endpoint", "Fault", "FaultKind", "Faults"]
