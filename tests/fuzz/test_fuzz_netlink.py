"""Whatever the kernel's answer looks like: a table that the bytes bear out, or an error."""

import struct
from collections.abc import Callable
from random import Random

import pytest
from fuzz.cases import case, run_cases
from fuzz.netlink_mutations import mutate, take_apart
from fuzz.netlink_truth import Attributes, attributes, decoded, gateways, payloads
from fuzz.recorded import Datagram, PlayedSocket, Question, addressed, reader, recording
from fuzz.world import HOST, VPC, WRONG, planned

from reconciler.core.model import Judgement, Key, Neighbour, Ntf, Surroundings, Table
from reconciler.errors import KernelError, ReconcilerError
from reconciler.kernel import netlink

# What each request is answered with.
_ANSWER = {
    netlink.RTM_GETLINK: netlink.RTM_NEWLINK,
    netlink.RTM_GETADDR: netlink.RTM_NEWADDR,
    netlink.RTM_GETROUTE: netlink.RTM_NEWROUTE,
    netlink.RTM_GETNEIGH: netlink.RTM_NEWNEIGH,
    netlink.RTM_GETNEXTHOP: netlink.RTM_NEWNEXTHOP,
    netlink.RTM_GETNEIGHTBL: netlink.RTM_NEWNEIGHTBL,
}
_FORBIDDING = Ntf.PROXY | Ntf.EXT_LEARNED | Ntf.ROUTER


class Kernel:
    """Plays the recording back, with mutated answers to some of the questions."""

    def __init__(self, rng: Random, *, bent: set[Question]) -> None:
        self._rng = rng
        self._bent = bent
        self.honest = True
        self.socket = PlayedSocket(self._answer)

    def _answer(self, question: Question, sequence: int) -> list[Datagram]:
        answer = [addressed(datagram, sequence) for datagram in recording()[question]]
        # An interrupted dump is asked for again; then it may be in order, or not.
        if question in self._bent and self._rng.random() < 0.9:
            self.honest = False
            return mutate(self._rng, answer)
        self.honest = True
        return [Datagram(datagram) for datagram in answer]

    def said(self, ask: int) -> list[bytes]:
        """Return what the last dumps of a kind said; each of them was whole."""
        found = []
        for (kind, _), answer in self.socket.said.items():
            if kind == ask:
                payload = payloads(answer, _ANSWER[ask])
                assert payload is not None, f"a part of an answer to request {ask} was believed"
                found += payload
        return found


def of_neighbours(payload: bytes) -> bool:
    """Say whether a neighbour's payload is of a family that is read."""
    return payload[0] in (2, 10)


def last(found: Attributes, kind: int) -> bytes:
    """Return the last value of an attribute, as the kernel's own parser would."""
    return found[kind][-1] if found[kind] else b""


# ---------------------------------------------------------------- one message


def as_decoded(entry: Neighbour) -> dict[str, object]:
    """Say of an entry what the oracle says of it."""
    names = ("ifindex", "address", "lladdr", "state", "flags")
    return {name: getattr(entry, name) for name in names}


def test_an_entry_is_what_the_general_decoder_reads() -> None:
    """A mutated neighbour has the decoder's address, MAC, state and flags, or is refused."""
    messages = [
        message
        for (ask, _), answer in recording().items()
        for datagram in answer
        for message in take_apart(datagram)
        if ask == netlink.RTM_GETNEIGH and message.kind == netlink.RTM_NEWNEIGH
    ]

    def attempt(rng: Random) -> str:
        bent = mutate(rng, [rng.choice(messages).pack()])
        if not bent or len(bent[0].data) < 16:
            return "nothing left"
        payload = bent[0].data[16:]
        try:
            entry = netlink.parse_neighbour(payload)
        except KernelError:
            return "refused"
        if entry is None:
            assert not of_neighbours(payload)
            return "another family"
        expected = decoded(payload)
        if expected is None:
            return "not decoded"
        assert expected == as_decoded(entry), payload.hex()
        return "agreed"

    ended = run_cases(0.15, attempt)
    assert {"refused", "agreed"} <= ended.keys()
    assert ended["not decoded"] < ended["agreed"] / 20


# ------------------------------------------------------------------ one table


def assert_borne_out(change: Judgement, kernel: Kernel) -> None:
    """Check one planned change against what the mutated bytes say of entry, link and routes."""
    entry = change.neighbour
    said = [p for p in kernel.said(netlink.RTM_GETNEIGH) if (entry.lladdr or b"") in p]
    assert any(allows(entry, payload) for payload in said), [p.hex() for p in said]

    ours = [e for e in HOST.enis if e.subnet_id]
    links = [(p, attributes(p[16:])) for p in kernel.said(netlink.RTM_GETLINK)]
    of_entry = [
        (found, eni)
        for payload, found in links
        for eni in ours
        if struct.unpack_from("=i", payload, 4)[0] == entry.ifindex and last(found, 1) == eni.mac
    ]
    plain = [eni for found, eni in of_entry if is_plain(found)]
    assert plain, f"no plain link with an ENI's MAC has index {entry.ifindex}"
    assert any(1 == sum(last(found, 1) == eni.mac for _, found in links) for eni in plain)

    subnets = {eni.subnet_id for eni in plain}
    owners = {VPC.owner(subnet_id, entry.address) for subnet_id in subnets}
    assert any(owner is None or owner.mac != entry.lladdr for owner in owners)
    assert any(c.covers(entry.address) for i in subnets for c in VPC.subnet(i).cidrs)
    assert int.from_bytes(entry.address[8 if len(entry.address) == 16 else 3 :], "big") > 3

    own = {last(attributes(p[8:]), k) for p in kernel.said(netlink.RTM_GETADDR) for k in (1, 2)}
    peers = {
        last(found, 1) for p in kernel.said(netlink.RTM_GETADDR) if (found := attributes(p[8:]))[2]
    }
    assert entry.address not in own - peers
    assert entry.address not in {address for eni in HOST.enis for address in eni.addresses}

    routes = kernel.said(netlink.RTM_GETROUTE)
    assert not any(p[1] == 0 and entry.address in gateways(p) for p in routes)
    if None in owners:
        assert entry.address not in {hop for p in routes for hop in gateways(p)}
        objects = map(attributes, (p[8:] for p in kernel.said(netlink.RTM_GETNEXTHOP)))
        assert entry.address not in {last(found, 6) for found in objects}


def allows(entry: Neighbour, payload: bytes) -> bool:
    """Say whether these bytes are this entry, and let it be touched."""
    if not of_neighbours(payload):
        return False
    ifindex, state, flags = struct.unpack_from("=iHB", payload, 4)
    found = attributes(payload[12:])
    return (
        entry.key == Key(ifindex, last(found, 1))
        and entry.lladdr == last(found, 2)
        and len(last(found, 2)) == 6
        and state not in (0, 1, 0x20)
        and not state & 0xC0
        and not flags & _FORBIDDING
        and not any(any(value[:4]) for value in found[15])
    )


def is_plain(found: Attributes) -> bool:
    """Say whether a link is a device of its own: of no kind or veth, and nobody's port."""
    kinds = {attributes(info)[1][-1].split(b"\0")[0] for info in found[18] if attributes(info)[1]}
    return not found[10] and kinds <= {b"veth"}


def changed(table: Table) -> set[Key]:
    """Name what would be changed in a table."""
    return {judgement.neighbour.key for judgement in planned(table)}


def test_the_recording_is_judged_as_meant() -> None:
    """Unbent, the recording leads to exactly the changes that its world calls for."""
    kernel = Kernel(case(0), bent=set())
    assert WRONG == changed(reader(kernel.socket).table())


def test_no_mutated_table_leads_to_a_wrong_change() -> None:
    """A mutated dump is refused, or every planned change is one that its bytes allow."""
    neighbours = (netlink.RTM_GETNEIGH, bytes(12))
    questions = [q for q in recording() if q[0] != netlink.RTM_GETNEIGHTBL]

    def attempt(rng: Random) -> str:
        bent = {neighbours} if rng.random() < 0.4 else {rng.choice(questions)}
        kernel = Kernel(rng, bent=bent)
        try:
            table = reader(kernel.socket).table()
        except KernelError:
            return "refused"
        said = list(filter(of_neighbours, kernel.said(netlink.RTM_GETNEIGH)))
        assert len(said) == len(table.neighbours)
        assert_covered(table, kernel)
        try:
            changes = planned(table)
        except ReconcilerError:
            return "no link"
        for change in changes:
            assert_borne_out(change, kernel)
        if {change.neighbour.key for change in changes} == WRONG:
            return "as if unbent"
        return "other changes"

    ended = run_cases(0.25, attempt)
    assert {"refused", "as if unbent", "other changes"} <= ended.keys()


def assert_covered(around: Surroundings, kernel: Kernel) -> None:
    """Check that no gateway in the bytes was lost, and that own addresses are addresses."""
    assert all(len(address) in (4, 16) for address in around.addresses)
    routes = kernel.said(netlink.RTM_GETROUTE)
    hops = around.next_hops
    assert hops.default >= {hop for p in routes if p[1] == 0 for hop in gateways(p)}
    assert hops.all >= {hop for p in routes for hop in gateways(p)}
    objects = map(attributes, (p[8:] for p in kernel.said(netlink.RTM_GETNEXTHOP)))
    assert hops.all >= {last(found, 6) for found in objects if found[6]}


def test_no_mutated_route_loses_its_gateway() -> None:
    """Whatever stands in mutated routes, next hops and own addresses is kept, or all is refused."""
    questions = [
        q
        for q in recording()
        if q[0] in (netlink.RTM_GETADDR, netlink.RTM_GETROUTE, netlink.RTM_GETNEXTHOP)
    ]

    def attempt(rng: Random) -> str:
        kernel = Kernel(rng, bent={rng.choice(questions)})
        try:
            assert_covered(reader(kernel.socket).surroundings(), kernel)
        except KernelError:
            return "refused"
        return "kept"

    ended = run_cases(0.2, attempt)
    assert {"refused", "kept"} <= ended.keys()


# ----------------------------------------------------------------- one object


def one_entry(kernel: Kernel, question: Question) -> str:
    """Read one entry anew; what comes out is in the bytes."""
    request = attributes(question[1][12:])
    key = Key(struct.unpack_from("=i", question[1], 4)[0], request[1][0])
    entry = reader(kernel.socket).neighbour(key)
    if entry is None:
        return "absent"
    ((sequence, said),) = kernel.socket.said.values()
    payload = payloads((sequence, said), netlink.RTM_NEWNEIGH)
    assert payload, "a part of an answer was believed"
    expected = decoded(payload[0])
    assert expected in (None, as_decoded(entry))
    return "read"


def fewest_probes(kernel: Kernel, question: Question) -> str:
    """Read how many probes a link sends; that number is in the bytes."""
    del question
    count = reader(kernel.socket).ucast_solicit(2)
    said = kernel.said(netlink.RTM_GETNEIGHTBL)
    counts = {
        struct.unpack_from("=I", value)[0]
        for found in map(attributes, (payload[4:] for payload in said))
        for parms in found[6]
        for value in attributes(parms)[10]
    }
    assert count in counts
    return "read"


@pytest.mark.parametrize("read", [one_entry, fewest_probes])
def test_what_is_read_alone_is_in_the_bytes(read: Callable[[Kernel, Question], str]) -> None:
    """A mutated answer about one entry or one link is refused, or says what was read."""
    ask = netlink.RTM_GETNEIGH if read is one_entry else netlink.RTM_GETNEIGHTBL
    question = next(q for q in recording() if q[0] == ask and q[1] != bytes(12))

    def attempt(rng: Random) -> str:
        kernel = Kernel(rng, bent={question})
        try:
            return read(kernel, question)
        except KernelError:
            return "refused"

    ended = run_cases(0.025, attempt)
    assert {"refused", "read"} <= ended.keys()
