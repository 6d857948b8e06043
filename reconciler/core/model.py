"""Value types that every room shares: what was read, and what was decided.

Addresses and link-layer addresses are packed bytes (4 or 16, usually 6), as the
kernel and a dictionary want them; text is made at the edges. Times are seconds
of CLOCK_BOOTTIME, which goes on through suspend; wall-clock times appear only
where a person reads them.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, IntFlag, StrEnum
from typing import NamedTuple, Self

Address = bytes
Mac = bytes


def pack_address(text: str) -> Address:
    """Pack an IPv4 or IPv6 address.

    Raises:
        ValueError: the text is no address.
    """
    return ipaddress.ip_address(text).packed


def format_address(address: Address) -> str:
    """Write a packed address the way ``ip neigh`` does."""
    return str(ipaddress.ip_address(address))


def pack_mac(text: str) -> Mac:
    """Pack a colon-separated link-layer address of any length.

    Raises:
        ValueError: a part is no hexadecimal byte.
    """
    return bytes(int(part, 16) for part in text.split(":"))


def format_mac(mac: Mac) -> str:
    """Write a link-layer address in lower case with colons."""
    return mac.hex(":")


class Prefix(NamedTuple):
    """A block of addresses: a subnet's CIDR, or a prefix delegated to an ENI."""

    address: Address
    length: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``10.0.0.0/24`` or ``2001:db8::/64``.

        Raises:
            ValueError: no network, or host bits are set.
        """
        network = ipaddress.ip_network(text)
        return cls(network.network_address.packed, network.prefixlen)

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.length}"

    def covers(self, address: Address) -> bool:
        """Say whether the address lies inside; another family never does."""
        size = len(self.address)
        if len(address) != size:
            return False
        shift = size * 8 - self.length
        return (
            int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift
        )

    def truncate(self, address: Address) -> Address:
        """Clear an address' bits beyond this prefix' length."""
        size = len(address)
        shift = size * 8 - self.length
        return (int.from_bytes(address, "big") >> shift << shift).to_bytes(size, "big")


# ---------------------------------------------------------------- the kernel


class Nud(IntEnum):
    """Neighbour unreachability detection states (linux/neighbour.h)."""

    NONE = 0x00
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80


class Ntf(IntFlag):
    """Neighbour flags (linux/neighbour.h); the extended ones are shifted by 8.

    The kernel keeps NTF_EXT_* in an attribute of their own (NDA_FLAGS_EXT);
    here both sets live in one word so that nothing is forgotten.
    """

    USE = 0x01
    SELF = 0x02
    MASTER = 0x04
    PROXY = 0x08
    EXT_LEARNED = 0x10
    OFFLOADED = 0x20
    STICKY = 0x40
    ROUTER = 0x80
    MANAGED = 0x0100
    LOCKED = 0x0200
    VALIDATED = 0x0400


class Key(NamedTuple):
    """What names a neighbour: never the address alone, since addresses repeat across links."""

    ifindex: int
    address: Address


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of the kernel's neighbour table, as read.

    ``flags`` holds NTF_* in the low byte and NTF_EXT_* shifted left by 8.
    ``state`` is the kernel's number, which may be one this code does not know.
    Ages are seconds since the kernel last confirmed, used and updated the entry
    (NDA_CACHEINFO, which counts in 1/100 s).
    """

    ifindex: int
    address: Address
    lladdr: Mac | None
    state: int
    flags: int = 0
    protocol: int = 0
    confirmed: float = 0.0
    used: float = 0.0
    updated: float = 0.0

    @property
    def key(self) -> Key:
        """The (link index, address) that names this entry."""
        return Key(self.ifindex, self.address)

    @property
    def nud(self) -> str:
        """The state's name as ``ip neigh`` prints it."""
        try:
            return Nud(self.state).name
        except ValueError:
            return f"0x{self.state:02x}"

    def same_entry(self, other: "Neighbour") -> bool:
        """Say whether the other reading is of the very entry that was judged.

        The state and the ages move all the time; the MAC, the flags and the
        protocol move only when somebody changed the entry.
        """
        return (self.key, self.lladdr, self.flags, self.protocol) == (
            other.key,
            other.lladdr,
            other.flags,
            other.protocol,
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A network link. ``kind`` is IFLA_INFO_KIND; None for a physical device."""

    index: int
    name: str
    mac: Mac
    kind: str | None = None
    master: int | None = None


@dataclass(frozen=True, slots=True)
class NextHops:
    """Every gateway of every route in every table, and those of default routes among them."""

    all: frozenset[Address] = frozenset()
    default: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around the neighbours: links, this host's own addresses, next hops."""

    links: tuple[Link, ...]
    addresses: frozenset[Address]
    next_hops: NextHops

    @property
    def names(self) -> dict[int, str]:
        """The links' names by index."""
        return {link.index: link.name for link in self.links}


@dataclass(frozen=True, slots=True)
class Table(Surroundings):
    """What the kernel said in one look. ``seen_at`` is when the look began."""

    neighbours: tuple[Neighbour, ...]
    seen_at: float


# ------------------------------------------------------------- the authority


@dataclass(frozen=True, slots=True)
class Eni:
    """An elastic network interface, reduced to what decides.

    ``status`` and ``interface_type`` are open sets: plain text on purpose.
    """

    eni_id: str
    subnet_id: str
    vpc_id: str
    mac: Mac
    status: str = "in-use"
    interface_type: str = "interface"
    owner_id: str | None = None
    instance_id: str | None = None
    instance_owner_id: str | None = None
    description: str = ""
    addresses: tuple[Address, ...] = ()
    prefixes: tuple[Prefix, ...] = ()

    @property
    def live(self) -> bool:
        """Only an ENI in use answers on the wire; the other states mean no opinion."""
        return self.status == "in-use"


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet. ``owner_id`` None: DescribeSubnets was denied and metadata gave the CIDRs."""

    subnet_id: str
    vpc_id: str
    cidrs: tuple[Prefix, ...]
    owner_id: str | None = None
    outpost: bool = False
    local_network_interfaces: bool = False


@dataclass(frozen=True, slots=True)
class HostEni:
    """An ENI of this instance, as metadata or the API describes it."""

    eni_id: str
    mac: Mac
    subnet_id: str
    vpc_id: str
    owner_id: str | None = None
    subnet_cidrs: tuple[Prefix, ...] = ()
    addresses: tuple[Address, ...] = ()
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """Who this instance is. ``account_id`` owns the instance (and should own its ENIs)."""

    instance_id: str | None
    account_id: str | None
    enis: tuple[HostEni, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One whole answer of the authority: all pages, or it does not exist.

    ``began`` and ``ended`` are CLOCK_BOOTTIME seconds around the first and the
    last call. ``targets`` is None for a reading of whole subnets; otherwise the
    (subnet, address) pairs that were asked for, and it speaks of nothing else.
    ``sees_managed`` says whether service-managed ENIs were included.
    """

    began: float
    ended: float
    fetched_at: datetime
    enis: tuple[Eni, ...]
    subnets: Mapping[str, Subnet]
    api_calls: int
    sees_managed: bool = True
    targets: frozenset[tuple[str, Address]] | None = None
    source: str = "ec2"

    @property
    def addresses(self) -> int:
        """How many addresses and delegated prefixes the ENIs hold."""
        return sum(len(eni.addresses) + len(eni.prefixes) for eni in self.enis)


@dataclass(frozen=True, slots=True)
class ManagedLink:
    """A link whose neighbours may be judged, with the ENI and the subnet it stands in."""

    link: Link
    eni: Eni
    subnet: Subnet

    @property
    def shared(self) -> bool | None:
        """Whether the subnet belongs to another account; None when nobody could say."""
        if self.subnet.owner_id is None or self.eni.owner_id is None:
            return None
        return self.subnet.owner_id != self.eni.owner_id


# ----------------------------------------------------------------- decisions


class Verdict(StrEnum):
    """What an entry is, in the words of the JSON output."""

    UNMANAGED = "unmanaged"
    PROTECTED = "protected"
    UNRESOLVED = "unresolved"
    UNKNOWN = "unknown"
    MATCH = "match"
    MISMATCH = "mismatch"
    UNLISTED = "unlisted"
    ORPHAN = "orphan"
    PENDING = "pending"


class Action(StrEnum):
    """What is done about an entry."""

    DELETE = "delete"
    PROBE = "probe"
    REPLACE = "replace"
    NONE = "none"


class Outcome(StrEnum):
    """How a repair ended."""

    HEALED = "healed"
    GONE = "gone"
    RELEARNED = "relearned"
    CHANGED = "changed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The one verdict on one entry, with the rule that decided and its evidence."""

    neighbour: Neighbour
    verdict: Verdict
    rule: str
    reason: str
    expected_mac: Mac | None = None
    owner: Eni | None = None
    mac_owner: Eni | None = None
    action: Action = Action.NONE


@dataclass(frozen=True, slots=True)
class Repair:
    """One change, or the reason why none was made.

    ``before`` is the entry as judged, ``after`` as it stood at the end (None:
    absent). ``seconds`` runs from the write to the verified end. ``written``
    says that a change was sent, or may have been.
    """

    judgement: Judgement
    outcome: Outcome
    after: Neighbour | None = None
    error: str | None = None
    seconds: float = 0.0
    written: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do about a wrong entry. Contract: ``[policy]``."""

    on_mismatch: str = "delete"
    on_orphan: str = "delete"
    on_unknown: str = "report"
    protect: tuple[Prefix, ...] = ()
    ignore_interface_types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds on how much may change. Contract: ``[guard]``."""

    max_changes: int = 100
    max_changes_per_hour: int = 1000
    max_change_ratio: float = 0.5
    min_entries: int = 10
    max_shrink: float = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a change may be made: when the entry was seen wrong, and the reading that says so.

    All three are CLOCK_BOOTTIME seconds.
    """

    seen_at: float
    reading_began: float
    reading_ended: float


def family_of(address: Address) -> str:
    """Name the family for people and metrics: ``ipv4`` or ``ipv6``."""
    return "ipv4" if len(address) == 4 else "ipv6"


def count_verdicts(judgements: Iterable[Judgement]) -> dict[str, int]:
    """Count every verdict, the absent ones as 0."""
    counts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    for judgement in judgements:
        counts[judgement.verdict] += 1
    return counts
