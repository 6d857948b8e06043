"""Which links are managed: those that are, beyond doubt, an ENI of this instance.

Two steps, since the subnets to read are known only from the first: a link is a
candidate by what the kernel and the host's identity say, and managed when the
reading itself shows its ENI live.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from reconciler.core.model import Eni, Host, HostEni, Link, ManagedLink, Reading, format_mac
from reconciler.errors import IdentityError, UnbelievableError

# A physical device announces no kind. A veth may carry an ENI's MAC when a host
# hands its ENI to a namespace. Everything else (vlan, macvlan, ipvlan, bond,
# team, bridge, openvswitch, vxlan, tunnels and what is yet to come) shares or
# borrows MACs and is never ours.
PLAIN_KINDS = frozenset({None, "veth"})

FOREIGN = "its MAC is no ENI of this instance"


@dataclass(frozen=True)
class Candidates:
    """Links that may be managed, and why each other one with a MAC may not (by link index)."""

    links: tuple[tuple[Link, HostEni], ...]
    passed_over: Mapping[int, str]

    @property
    def subnet_ids(self) -> frozenset[str]:
        """The subnets a reading has to cover."""
        return frozenset(eni.subnet_id for _, eni in self.links)

    @property
    def vpc_ids(self) -> frozenset[str]:
        """The VPCs a reading has to cover."""
        return frozenset(eni.vpc_id for _, eni in self.links)


def candidates(
    links: Iterable[Link], host: Host, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Candidates:
    """Choose the links that carry an ENI of this instance and are nothing but a plain device.

    Raises:
        IdentityError: not one link qualifies; the message says why for each.
    """
    links = tuple(links)
    kinds = {link.index: link.kind for link in links}
    enis = {eni.mac: eni for eni in host.enis}
    twins: dict[bytes, list[Link]] = {}
    for link in links:
        twins.setdefault(link.mac, []).append(link)

    chosen = []
    passed_over = {}
    for link in links:
        if not any(link.mac):
            continue  # Loopback and tunnels without a MAC: nobody expects them here.
        eni = enis.get(link.mac)
        why = (
            FOREIGN
            if eni is None
            else _objection(link, eni, host, kinds, twins[link.mac], include, exclude)
        )
        if eni is None or why is not None:
            passed_over[link.index] = why or ""
        else:
            chosen.append((link, eni))
    if not chosen:
        reasons = "; ".join(
            f"{link.name}: {passed_over[link.index]}" for link in links if any(link.mac)
        )
        raise IdentityError(
            f"no link of this host can be managed ({reasons or 'there are none'}). "
            f"According to {host.source} this is {host.instance_id or 'an unnamed instance'} "
            f"with {len(host.enis)} ENI(s). Nothing was changed. Check [links] include and "
            "exclude, and that this runs in the network namespace that holds the ENIs."
        )
    return Candidates(tuple(chosen), passed_over)


def _objection(
    link: Link,
    eni: HostEni,
    host: Host,
    kinds: Mapping[int, str | None],
    twins: Sequence[Link],
    include: Sequence[str],
    exclude: Sequence[str],
) -> str | None:
    if link.kind not in PLAIN_KINDS:
        return f"it is a {link.kind}, not a plain device"
    if link.master is not None and kinds.get(link.master) != "vrf":
        return f"it is a port of a {kinds.get(link.master) or 'device'}"
    if None not in {eni.owner_id, host.account_id} and eni.owner_id != host.account_id:
        return f"its ENI belongs to another account ({eni.owner_id})"
    named = [twin for twin in twins if _matches(twin.name, include)]
    if len(twins) > 1 and named != [link]:
        names = ", ".join(sorted(twin.name for twin in twins))
        return f"several links have its ENI's MAC {format_mac(link.mac)} ({names})"
    if include and link not in named:
        return "[links] include does not name it"
    if _matches(link.name, exclude):
        return "[links] exclude names it"
    return None


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def managed(
    chosen: Candidates, host: Host, reading: Reading
) -> tuple[dict[int, ManagedLink], dict[int, str]]:
    """Keep the candidates whose ENI stands live in the reading, with this MAC.

    Returns the managed links and, for every other link, why not (by link index).

    Raises:
        UnbelievableError: not one candidate's ENI stands in the reading, so it
            is not a reading of the place where this host lives.
    """
    seen = {eni.eni_id: eni for eni in reading.enis}
    links: dict[int, ManagedLink] = {}
    passed_over = dict(chosen.passed_over)
    for link, host_eni in chosen.links:
        eni = seen.get(host_eni.eni_id)
        why = _disbelief(link, host_eni, eni, host, reading)
        if eni is None or why is not None:
            passed_over[link.index] = why or ""
        else:
            links[link.index] = ManagedLink(link, eni, reading.subnets[eni.subnet_id])
    if not links:
        reasons = "; ".join(f"{link.name}: {passed_over[link.index]}" for link, _ in chosen.links)
        raise UnbelievableError(
            f"the reading of {len(reading.enis)} ENIs does not know this host ({reasons}). "
            "It is not believed and nothing was changed. Check the region, the account of the "
            "credentials and AWS_ENDPOINT_URL; the next reading is judged by itself."
        )
    return links, passed_over


def _disbelief(
    link: Link, host_eni: HostEni, eni: Eni | None, host: Host, reading: Reading
) -> str | None:
    if eni is None:
        return f"{host_eni.eni_id} is not in the reading"
    if not eni.live:
        return f"{eni.eni_id} is {eni.status}, not in-use"
    if eni.mac != link.mac:
        return f"{eni.eni_id} has {format_mac(eni.mac)} in the reading"
    if (eni.subnet_id, eni.vpc_id) != (host_eni.subnet_id, host_eni.vpc_id):
        return f"{eni.eni_id} is in {eni.subnet_id} in the reading"
    if None not in {eni.instance_id, host.instance_id} and eni.instance_id != host.instance_id:
        return f"{eni.eni_id} is attached to {eni.instance_id} in the reading"
    if None not in {eni.owner_id, eni.instance_owner_id} and eni.owner_id != eni.instance_owner_id:
        return f"{eni.eni_id} belongs to another account ({eni.owner_id})"
    subnet = reading.subnets.get(eni.subnet_id)
    if subnet is None or not subnet.cidrs:
        return f"the CIDRs of {eni.subnet_id} are not known"
    return None
