"""The judge: every entry gets exactly one verdict, by the first rule that applies.

The order is the contract's (docs/how-it-decides.md gives each rule's reason):
what is not ours to judge comes first, then what must never be touched, then
what cannot be known, and only then right and wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.model import (
    Action,
    Address,
    Eni,
    Host,
    HostEni,
    Judgement,
    ManagedLink,
    Neighbour,
    NextHops,
    Ntf,
    Nud,
    Policy,
    Prefix,
    Reading,
    Surroundings,
    Verdict,
    format_address,
    format_mac,
)
from reconciler.core.ownership import Claim, Ownership

LINK_LOCAL = (Prefix.parse("169.254.0.0/16"), Prefix.parse("fe80::/10"))
MULTICAST = (
    Prefix.parse("224.0.0.0/4"),
    Prefix.parse("255.255.255.255/32"),
    Prefix.parse("ff00::/8"),
)
# Instance metadata, DNS and time over IPv6: losing them can cut credentials.
EC2_SERVICES = Prefix.parse("fd00:ec2::/32")

_FLAG_RULES = (
    (Ntf.PROXY, "flag-proxy", "it is a proxy entry"),
    (Ntf.EXT_LEARNED, "flag-ext-learned", "another program taught it to the kernel (extern_learn)"),
    (Ntf.MANAGED, "flag-managed", "the kernel was told to keep it resolved (managed)"),
    (Ntf.VALIDATED, "flag-validated", "another program validated it (extern_valid)"),
)


@dataclass(frozen=True)
class View:
    """Both sides of one look, made ready for questions.

    ``unsettled`` are the (subnet, address) pairs whose owner changed twice
    within five minutes; ``passed_over`` says why a link is not managed.
    """

    links: Mapping[int, ManagedLink]
    passed_over: Mapping[int, str]
    ownership: Ownership
    reserved: Mapping[int, frozenset[Address]]
    own_addresses: frozenset[Address]
    own_prefixes: frozenset[Prefix]
    next_hops: NextHops
    policy: Policy
    sees_managed: bool
    unsettled: frozenset[tuple[str, Address]] = frozenset()

    def judge(self, neighbour: Neighbour) -> Judgement:
        """Give the entry its one verdict, with the rule and a sentence of reason."""
        return _judge(neighbour, self)


def view(
    around: Surroundings,
    host: Host,
    reading: Reading,
    links: Mapping[int, ManagedLink],
    passed_over: Mapping[int, str],
    policy: Policy,
    ownership: Ownership,
    *,
    unsettled: frozenset[tuple[str, Address]] = frozenset(),
) -> View:
    """Prepare the judge for one look at the host and one reading."""
    ours = [
        eni
        for eni in reading.enis
        if host.instance_id is not None and eni.instance_id == host.instance_id
    ]
    everyone: tuple[Eni | HostEni, ...] = (*host.enis, *ours)
    return View(
        links=links,
        passed_over=passed_over,
        ownership=ownership,
        reserved={index: reserved(link.subnet.cidrs) for index, link in links.items()},
        own_addresses=around.addresses.union(*(eni.addresses for eni in everyone)),
        own_prefixes=frozenset(prefix for eni in everyone for prefix in eni.prefixes),
        next_hops=around.next_hops,
        policy=policy,
        sees_managed=reading.sees_managed,
        unsettled=unsettled,
    )


def reserved(cidrs: Iterable[Prefix]) -> frozenset[Address]:
    """Return base +0 to +3 and the last address of each CIDR.

    AWS keeps them for itself: network, router, DNS, future use, broadcast
    (VPC user guide, "Subnet sizing"). The router's MAC is no ENI's.
    """
    found: set[Address] = set()
    for cidr in cidrs:
        size = len(cidr.address)
        base = int.from_bytes(cidr.address, "big")
        last = base + (1 << (size * 8 - cidr.length)) - 1
        # A block of fewer than four addresses, which no subnet has, may end the whole range.
        first = range(base, min(base + 4, last + 1))
        found.update(number.to_bytes(size, "big") for number in (*first, last))
    return frozenset(found)


def _judge(neighbour: Neighbour, view: View) -> Judgement:
    link = view.links.get(neighbour.ifindex)
    if link is None:
        why = view.passed_over.get(neighbour.ifindex, "it is not one that could be")
        return _verdict(neighbour, Verdict.UNMANAGED, "link", f"The link is not managed: {why}.")

    claim = view.ownership.claim(link.subnet.subnet_id, neighbour.address)
    guarded = _protection(neighbour, link, claim, view)
    if guarded is not None:
        rule, reason = guarded
        return _verdict(neighbour, Verdict.PROTECTED, rule, f"Never touched: {reason}.")
    if not any(cidr.covers(neighbour.address) for cidr in link.subnet.cidrs):
        return _verdict(
            neighbour,
            Verdict.UNMANAGED,
            "outside-subnet",
            f"The address is outside {link.subnet.subnet_id}.",
        )
    if neighbour.lladdr is None or neighbour.state in {Nud.INCOMPLETE, Nud.FAILED, Nud.NONE}:
        return _verdict(
            neighbour, Verdict.UNRESOLVED, "no-lladdr", "The kernel has no link-layer address."
        )
    doubt = _doubt(neighbour, link, claim, view)
    if doubt is not None:
        rule, reason = doubt
        return Judgement(
            neighbour,
            Verdict.UNKNOWN,
            rule,
            f"No opinion: {reason}.",
            owner=claim.owner,
            mac_owner=view.ownership.mac_owner(link.eni.vpc_id, neighbour.lladdr),
        )
    return _right_or_wrong(neighbour, neighbour.lladdr, link, claim.owner, view)


def _protection(
    neighbour: Neighbour, link: ManagedLink, claim: Claim, view: View
) -> tuple[str, str] | None:
    """Return the rule and reason that protect the entry, or None."""
    address = neighbour.address
    static = _static_protection(neighbour)
    if static is not None:
        return static
    if address in view.reserved[neighbour.ifindex]:
        return "reserved-address", "the subnet's router, DNS or another address AWS reserves"
    if address in view.own_addresses or any(p.covers(address) for p in view.own_prefixes):
        return "own-address", "an address or prefix of this instance"
    if address in view.next_hops.default:
        return "default-route", "the default route's next hop"
    if address in view.next_hops.all and claim.owner is None:
        return "next-hop", f"a next hop without exactly one live owner in {link.subnet.subnet_id}"
    if neighbour.flags & Ntf.ROUTER:
        return "flag-router", "it announced itself as a router"
    for prefix in view.policy.protect:
        if prefix.covers(address):
            return "configured", f"[policy] protect lists {prefix}"
    return None


def _static_protection(neighbour: Neighbour) -> tuple[str, str] | None:
    """Return what the entry alone says: state, flags, and the address' kind."""
    if neighbour.state & Nud.PERMANENT:
        return "state-permanent", "somebody made it PERMANENT"
    if neighbour.state & Nud.NOARP:
        return "state-noarp", "it needs no resolution (NOARP)"
    for flag, rule, reason in _FLAG_RULES:
        if neighbour.flags & flag:
            return rule, reason
    if neighbour.flags >> 8:
        return "flag-extended", f"it carries an extended flag (0x{neighbour.flags >> 8:x})"
    for prefix in LINK_LOCAL:
        if prefix.covers(neighbour.address):
            return "link-local", f"link-local ({prefix})"
    for prefix in MULTICAST:
        if prefix.covers(neighbour.address):
            return "multicast", f"multicast or broadcast ({prefix})"
    if EC2_SERVICES.covers(neighbour.address):
        return "ec2-services", f"EC2's own services ({EC2_SERVICES})"
    return None


def _doubt(
    neighbour: Neighbour, link: ManagedLink, claim: Claim, view: View
) -> tuple[str, str] | None:
    """Return why the authority cannot speak for the entry, or None."""
    lladdr = neighbour.lladdr or b""
    if len(lladdr) != 6:
        return "lladdr-length", f"the link-layer address has {len(lladdr)} bytes, not 6"
    if len(claim.live) > 1:
        names = " and ".join(eni.eni_id for eni in claim.live)
        return "two-owners", f"{names} both own the address"
    if claim.owner is None and claim.idle:
        eni = claim.idle[0]
        return "owner-not-in-use", f"its owner {eni.eni_id} is {eni.status or 'in no state'}"
    if (link.subnet.subnet_id, neighbour.address) in view.unsettled:
        return "owner-unsettled", "its owner changed twice within five minutes"
    if claim.owner is not None:
        if claim.owner.interface_type in view.policy.ignore_interface_types:
            return (
                "ignored-type",
                f"its owner's interface type {claim.owner.interface_type} is ignored",
            )
        return None
    return _absence_proves_nothing(link, view)


def _absence_proves_nothing(link: ManagedLink, view: View) -> tuple[str, str] | None:
    subnet = link.subnet
    if link.shared is None:
        return (
            "subnet-owner-unknown",
            f"no ENI lists it, and who owns {subnet.subnet_id} is not known",
        )
    if link.shared:
        return (
            "shared-subnet",
            (
                f"no ENI lists it, but {subnet.subnet_id} belongs to account {subnet.owner_id}, "
                "whose ENIs are hidden from us"
            ),
        )
    if subnet.outpost or subnet.local_network_interfaces:
        kind = "is on an Outpost" if subnet.outpost else "has local network interfaces"
        return (
            "local-interfaces",
            f"no ENI lists it, but {subnet.subnet_id} {kind}, which EC2 does not list",
        )
    if not view.sees_managed:
        return (
            "managed-hidden",
            "no ENI lists it, but this AWS SDK cannot ask for service-managed ENIs",
        )
    return None


def _right_or_wrong(
    neighbour: Neighbour, lladdr: bytes, link: ManagedLink, owner: Eni | None, view: View
) -> Judgement:
    if owner is not None and owner.mac == lladdr:
        return Judgement(
            neighbour,
            Verdict.MATCH,
            "owner-has-mac",
            f"{owner.eni_id} owns the address and has this MAC.",
            expected_mac=owner.mac,
            owner=owner,
            mac_owner=owner,
        )
    mac_owner = view.ownership.mac_owner(link.eni.vpc_id, lladdr)
    holder = f"{mac_owner.eni_id}'s" if mac_owner else "no live ENI's"
    if owner is not None:
        return Judgement(
            neighbour,
            Verdict.MISMATCH,
            "owner-has-other-mac",
            f"{owner.eni_id} owns the address and has {format_mac(owner.mac)}; "
            f"{format_mac(lladdr)} is {holder}.",
            expected_mac=owner.mac,
            owner=owner,
            mac_owner=mac_owner,
        )
    if mac_owner is not None:
        return Judgement(
            neighbour,
            Verdict.UNLISTED,
            "mac-is-live",
            f"No ENI owns {format_address(neighbour.address)}, but {mac_owner.eni_id} is alive "
            "and has this MAC.",
            mac_owner=mac_owner,
        )
    return Judgement(
        neighbour,
        Verdict.ORPHAN,
        "nobody",
        f"No ENI owns {format_address(neighbour.address)} and {format_mac(lladdr)} is {holder}.",
    )


def _verdict(neighbour: Neighbour, verdict: Verdict, rule: str, reason: str) -> Judgement:
    return Judgement(neighbour, verdict, rule, reason, action=Action.NONE)
