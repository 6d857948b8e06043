"""What the daemon remembers from look to look, so that patience and pace have a measure.

Still pure: it is told the time and does no I/O. ``apply`` has no memory, since
there a person asks, once.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.core.model import (
    Address,
    Eni,
    Judgement,
    Key,
    Limits,
    Mac,
    ManagedLink,
    Neighbour,
    Reading,
    Verdict,
)
from reconciler.core.ownership import Ownership
from reconciler.errors import ShrunkRefused

# All in seconds of CLOCK_BOOTTIME.
ORPHAN_PATIENCE = 120.0
CONTEST_MEMORY = 3600.0
FIRST_BACKOFF, LONGEST_BACKOFF = 60.0, 3600.0
SETTLING = 300.0
HOUR = 3600.0

AGREEING_READINGS = 3
AGREEMENT = 0.1  # Two figures that differ by no more than a tenth say the same.


@dataclass
class _Suspect:
    lladdr: Mac | None
    seen_at: float
    first_reading: float | None = None


@dataclass
class _Change:
    at: float
    backoff: float = FIRST_BACKOFF
    until: float | None = None


@dataclass
class _Shrink:
    enis: int
    readings: int = 1


@dataclass
class _Owner:
    eni_id: str | None
    changed_at: deque[float] = field(default_factory=lambda: deque(maxlen=2))


class Memory:
    """Suspects, contests, changes made, ENI counts and owners, each forgotten in its time."""

    def __init__(self) -> None:
        self._suspects: dict[Key, _Suspect] = {}
        self._changes: dict[tuple[Key, Mac | None], _Change] = {}
        self._written: deque[float] = deque()
        self._wrong_at: dict[Key, float] = {}
        self._enis: dict[str, int] = {}
        self._shrinking: dict[str, _Shrink] = {}
        self._owners: dict[tuple[str, Address], _Owner] = {}
        self._links: dict[tuple[int, Mac], float] = {}
        self._started = False

    # ------------------------------------------------------------ the authority

    def believe(self, reading: Reading, limits: Limits) -> None:
        """Weigh a complete reading against the last believed one.

        Raises:
            ShrunkRefused: a subnet lost too many ENIs; the third complete
                reading in a row that shows the loss is believed.
        """
        now: dict[str, int] = dict.fromkeys(reading.subnets, 0)
        for eni in reading.enis:
            # With scope vpc there are others; their scale-in is not ours to weigh.
            if eni.live and eni.subnet_id in now:
                now[eni.subnet_id] += 1
        doubted: list[str] = []
        for subnet_id, has in now.items():
            had = self._enis.get(subnet_id, 0)
            if had < limits.min_entries or had - has <= limits.max_shrink * had:
                self._shrinking.pop(subnet_id, None)
                continue
            shrink = self._shrinking.get(subnet_id)
            if shrink is not None and abs(shrink.enis - has) <= max(1, AGREEMENT * shrink.enis):
                shrink.readings += 1
            else:
                shrink = self._shrinking[subnet_id] = _Shrink(has)
            if shrink.readings < AGREEING_READINGS:
                doubted.append(f"{subnet_id} fell from {had} to {has} ENIs")
        if doubted:
            raise ShrunkRefused(
                f"{' and '.join(doubted)} since the last reading that was believed, more than the "
                f"{limits.max_shrink:.0%} that guard.max_shrink allows. Nothing was changed; when "
                f"{AGREEING_READINGS} complete readings in a row agree they are believed. To go on "
                "at once: look at `arp-reconciler plan`, and if you are sure run `arp-reconciler "
                "apply`, or raise guard.max_shrink."
            )
        self._shrinking.clear()
        # A subnet that is missing from one reading keeps its figure.
        self._enis |= now

    def owners(
        self,
        pairs: Iterable[tuple[str, Address]],
        ownership: Ownership,
        now: float,
        *,
        whole: bool = True,
    ) -> frozenset[tuple[str, Address]]:
        """Note who owns these (subnet, address) pairs; return those that changed twice lately.

        Replicas of EC2 may answer old, new, and old again. While they do,
        nobody's word is taken. ``whole`` says that other pairs may be forgotten.
        """
        noted: dict[tuple[str, Address], _Owner] = {}
        for pair in pairs:
            owner = _id(ownership.claim(*pair).owner)
            known = self._owners.get(pair) or _Owner(owner)
            if known.eni_id != owner:
                known.eni_id = owner
                known.changed_at.append(now)
            noted[pair] = known
        self._owners = noted if whole else self._owners | noted
        return frozenset(
            pair
            for pair, owner in noted.items()
            if len(owner.changed_at) == 2 and now - owner.changed_at[0] < SETTLING
        )

    # --------------------------------------------------------------- the entries

    def waiting(
        self,
        judgements: Collection[Judgement],
        links: Mapping[int, ManagedLink],
        reading: Reading,
        *,
        seen_at: float,
        now: float,
        grace: float,
        whole: bool = True,
        unseen: Collection[Key] = (),
    ) -> dict[Key, tuple[str, str]]:
        """Note what is wrong; return rule and reason for each entry that has to wait.

        Args:
            judgements: of one whole table, or of some entries.
            links: the managed links; one that appeared while we ran is left
                alone for ``grace`` seconds.
            reading: the one they rest on, begun after ``seen_at``.
            seen_at: when the table was read.
            now: the time.
            grace: seconds.
            whole: whether the reading was whole and the judgements the whole table's.
                Only then is what is missing not wrong any more, and an agreement
                worth believing.
            unseen: entries that became what they are only after ``seen_at``.
        """
        young = self._young_links(links, now, grace)
        suspects: dict[Key, _Suspect] = {}
        waiting: dict[Key, tuple[str, str]] = {}
        for judgement in judgements:
            neighbour = judgement.neighbour
            key = neighbour.key
            if key in unseen:
                continue
            if judgement.verdict is Verdict.MATCH and whole:
                self._agreed(links[key.ifindex].subnet.subnet_id, neighbour, now)
                continue
            if judgement.verdict not in {Verdict.MISMATCH, Verdict.ORPHAN}:
                continue
            suspect = self._suspects.get(key)
            if suspect is None or suspect.lladdr != neighbour.lladdr:
                suspect = _Suspect(neighbour.lladdr, seen_at)
                self._calm(key, neighbour.lladdr)
            suspects[key] = suspect
            wait = self._contested(key, neighbour.lladdr, now)
            if judgement.verdict is not Verdict.ORPHAN:
                suspect.first_reading = None
            elif wait is None:
                wait = _patience(suspect, reading)
            if wait is None and key.ifindex in young:
                wait = ("unconfirmed", "Its link appeared a moment ago.")
            if wait is not None:
                waiting[key] = wait
        self._suspects = suspects if whole else self._suspects | suspects
        return waiting

    def forget_links(self) -> None:
        """Note that no link is there any more."""
        self._started = True
        self._links = {}

    def changed(self, key: Key, lladdr: Mac | None, now: float) -> None:
        """Note a change that was made, of the entry that had this MAC."""
        self._written.append(now)
        record = self._changes.get((key, lladdr))
        if record is None:
            self._changes[key, lladdr] = _Change(now)
        else:
            if record.until is not None:
                record.backoff = min(record.backoff * 2, LONGEST_BACKOFF)
            record.at, record.until = now, None
        for pair, change in list(self._changes.items()):
            if now - max(change.at, change.until or 0.0) > CONTEST_MEMORY:
                del self._changes[pair]

    @property
    def contested(self) -> int:
        """How many entries the wire and the authority disagree on."""
        return sum(change.until is not None for change in self._changes.values())

    # ------------------------------------------------------------------ the pace

    def budget(self, limits: Limits, now: float) -> int:
        """Return how many changes may be made now, by the pass and by the hour."""
        while self._written and now - self._written[0] >= HOUR:
            self._written.popleft()
        return max(0, min(limits.max_changes, limits.max_changes_per_hour - len(self._written)))

    def wrong_lately(self, wrong: Collection[Key], window: float, now: float) -> int:
        """Note what is wrong now; count what was wrong at any time within the window."""
        self._wrong_at.update(dict.fromkeys(wrong, now))
        self._wrong_at = {key: at for key, at in self._wrong_at.items() if now - at < window}
        return len(self._wrong_at)

    # ---------------------------------------------------------------------------

    def _young_links(
        self, links: Mapping[int, ManagedLink], now: float, grace: float
    ) -> frozenset[int]:
        born = now if self._started else now - grace
        self._started = True
        self._links = {
            (index, link.link.mac): self._links.get((index, link.link.mac), born)
            for index, link in links.items()
        }
        return frozenset(index for (index, _), at in self._links.items() if now - at < grace)

    def _contested(self, key: Key, lladdr: Mac | None, now: float) -> tuple[str, str] | None:
        change = self._changes.get((key, lladdr))
        if change is None:
            return None
        if change.until is None:
            if now - change.at > CONTEST_MEMORY:
                return None
            change.until = now + change.backoff
        if now >= change.until:
            return None
        return (
            "contested",
            (
                "It came back after we removed it, so the wire says otherwise than EC2: "
                f"left alone for {change.backoff:.0f} s."
            ),
        )

    def _calm(self, key: Key, lladdr: Mac | None) -> None:
        """Another MAC stands there now: what was contested before starts over.

        Not where that one was removed lately, too: two MACs that take turns are
        one quarrel with the wire.
        """
        if (key, lladdr) in self._changes:
            return
        for (other, mac), change in self._changes.items():
            if other == key and mac != lladdr:
                change.backoff = FIRST_BACKOFF

    def _agreed(self, subnet_id: str, neighbour: Neighbour, now: float) -> None:
        """Forget a contest once the authority says what the table says, and keeps saying so."""
        pair = (neighbour.key, neighbour.lladdr)
        if pair not in self._changes:
            return
        owner = self._owners.get((subnet_id, neighbour.address))
        if owner is None or not owner.changed_at or now - owner.changed_at[-1] >= SETTLING:
            del self._changes[pair]


def _patience(suspect: _Suspect, reading: Reading) -> tuple[str, str] | None:
    """Let an orphan wait for a second complete reading, two minutes after the first."""
    if reading.targets is None and reading.began > suspect.seen_at:
        if suspect.first_reading is None:
            suspect.first_reading = reading.began
        if reading.began - suspect.first_reading >= ORPHAN_PATIENCE:
            return None
    return "unconfirmed", "A second complete reading, two minutes after the first, has to agree."


def _id(eni: Eni | None) -> str | None:
    return None if eni is None else eni.eni_id
