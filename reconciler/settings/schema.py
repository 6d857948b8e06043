"""Every setting: type, bounds, default, what it does and why the default is what it is.

A new setting is one field here; file key, environment variable, ``config show``,
error messages and the reference follow from it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from reconciler.core.model import Limits, Policy, Prefix
from reconciler.settings.forms import (
    CHOICE,
    CIDRS,
    COUNT,
    DURATION,
    FILE,
    GLOBS,
    OPTIONAL_FILE,
    SHARE,
    TEXTS,
    Form,
)

VARIABLE_PREFIX = "ARP_RECONCILER_"

Texts = tuple[Annotated[str, Meta(min_length=1)], ...]


def _setting(
    form: Form, description: str, reason: str, *, ge: float | None = None, le: float | None = None
) -> Meta:
    return Meta(description=description, ge=ge, le=le, extra={"form": form, "reason": reason})


class LinkSettings(Struct, frozen=True, kw_only=True):
    """``[links]``: both lists only narrow; neither makes an unmanaged link managed."""

    include: Annotated[
        Texts,
        _setting(
            GLOBS,
            "Look only after links whose name matches one of these.",
            "Empty means every link that is an ENI of this instance.",
        ),
    ] = ()
    exclude: Annotated[
        Texts,
        _setting(
            GLOBS,
            "Leave links whose name matches one of these alone.",
            "Links that are no ENI of this instance are left alone anyway.",
        ),
    ] = ()


class AuthoritySettings(Struct, frozen=True, kw_only=True):
    """``[authority]``: how EC2 is read. Durations are seconds."""

    scope: Annotated[
        Literal["subnet", "vpc"],
        _setting(
            CHOICE,
            "Which ENIs are read: those of the managed links' subnets, or of their whole VPCs.",
            "A neighbour's owner stands in the link's own subnet; the rest of the VPC costs pages.",
        ),
    ] = "subnet"
    interval: Annotated[
        float,
        _setting(
            DURATION,
            "How often `run` reads both sides whole.",
            "About one API call a minute a host, from a budget that the whole account shares.",
            ge=5,
            le=86_400,
        ),
    ] = 60.0
    jitter: Annotated[
        float,
        _setting(
            SHARE,
            "Share of the interval by which each wait is varied.",
            "Hosts that boot together would otherwise ask EC2 together for ever.",
            ge=0,
            le=0.5,
        ),
    ] = 0.1
    max_age: Annotated[
        float,
        _setting(
            DURATION,
            "Without a reading younger than this nothing is changed; at least one interval.",
            "Five missed readings in a row are an outage of the authority, not bad luck.",
            ge=5,
            le=86_400,
        ),
    ] = 300.0


class PolicySettings(Struct, frozen=True, kw_only=True):
    """``[policy]``: what is done about each verdict."""

    on_mismatch: Annotated[
        Literal["delete", "probe", "replace", "report"],
        _setting(
            CHOICE,
            "What is done about an entry whose MAC is not its owner's.",
            "After a delete the wire itself answers, within a millisecond; the API, whose word "
            "`replace` writes down, can lag the wire.",
        ),
    ] = "delete"
    on_orphan: Annotated[
        Literal["delete", "probe", "report"],
        _setting(
            CHOICE,
            "What is done about an entry that no ENI owns.",
            "Most incidents begin as an orphan whose address later gets a new owner.",
        ),
    ] = "delete"
    on_unknown: Annotated[
        Literal["report", "probe"],
        _setting(
            CHOICE,
            "What is done about an entry that the authority cannot speak for.",
            "Absence proves nothing there; `probe` lets the kernel verify by itself.",
        ),
    ] = "report"
    protect: Annotated[
        tuple[Prefix, ...],
        _setting(
            CIDRS,
            "Never touch neighbours in these networks.",
            "Routers, reserved addresses, next hops and link-local are protected anyway.",
        ),
    ] = ()
    ignore_interface_types: Annotated[
        Texts,
        _setting(
            TEXTS,
            "Have no opinion on addresses of ENIs of these types (`InterfaceType` in EC2).",
            "Every type known today lists its addresses; this is for one that does not.",
        ),
    ] = ()

    def to_core(self) -> Policy:
        """Give the judge its policy."""
        return Policy(
            on_mismatch=self.on_mismatch,
            on_orphan=self.on_orphan,
            on_unknown=self.on_unknown,
            protect=self.protect,
            ignore_interface_types=frozenset(self.ignore_interface_types),
        )


class GuardSettings(Struct, frozen=True, kw_only=True):
    """``[guard]``: the bounds on how much may change."""

    max_changes: Annotated[
        int,
        _setting(
            COUNT,
            "Most changes in one pass; the rest waits for the next.",
            "A healthy host has a handful; more is worked off at a pace nobody notices.",
            ge=1,
            le=1_000_000,
        ),
    ] = 100
    max_changes_per_hour: Annotated[
        int,
        _setting(
            COUNT,
            "Most changes in an hour; the rest waits.",
            "Ten full passes: enough for a large scale-in, too few for a fight with the wire.",
            ge=1,
            le=1_000_000,
        ),
    ] = 1000
    max_change_ratio: Annotated[
        float,
        _setting(
            SHARE,
            "Refuse when a larger share of the judged entries would change.",
            "When half the table looks wrong, the authority is the likelier culprit.",
            ge=0,
            le=1,
        ),
    ] = 0.5
    min_entries: Annotated[
        int,
        _setting(
            COUNT,
            "From this many judged entries on, shares are believed.",
            "One of two is half, and means nothing.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10
    max_shrink: Annotated[
        float,
        _setting(
            SHARE,
            "Refuse when a subnet lost a larger share of its ENIs since the last good reading.",
            "Subnets seldom halve within a minute; partial answers do.",
            ge=0,
            le=1,
        ),
    ] = 0.5
    hold_file: Annotated[
        Path,
        _setting(
            FILE,
            "While this file exists nothing is changed.",
            "`touch` stops a fleet without a restart or a deployment; so it cannot be empty.",
        ),
    ] = Path("/etc/arp-reconciler/hold")

    def to_core(self) -> Limits:
        """Give the guards their limits; the hold file is asked where writes happen."""
        return Limits(
            max_changes=self.max_changes,
            max_changes_per_hour=self.max_changes_per_hour,
            max_change_ratio=self.max_change_ratio,
            min_entries=self.min_entries,
            max_shrink=self.max_shrink,
        )


class LogSettings(Struct, frozen=True, kw_only=True):
    """``[log]``: what is written about the work."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _setting(
            CHOICE,
            "Least severe log line that is written.",
            "`info` has a line for every change and is silent in a pass without one.",
        ),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        _setting(
            CHOICE,
            "How log lines look; `auto` is text on a terminal and JSON lines elsewhere.",
            "People read terminals, machines read everything else.",
        ),
    ] = "auto"
    journal: Annotated[
        Path | None,
        _setting(
            OPTIONAL_FILE,
            "File that gets one JSON line with the evidence for every change.",
            "None: where to keep it, and for how long, is yours to decide.",
        ),
    ] = None


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set, by table of the file."""

    mode: Annotated[
        Literal["enforce", "observe"],
        _setting(
            CHOICE,
            "Whether wrong entries are repaired or only reported.",
            "Only a repair ends an incident; begin a roll-out with `observe`.",
        ),
    ] = "enforce"
    links: LinkSettings = LinkSettings()
    authority: AuthoritySettings = AuthoritySettings()
    policy: PolicySettings = PolicySettings()
    guard: GuardSettings = GuardSettings()
    log: LogSettings = LogSettings()


class Setting(NamedTuple):
    """One leaf, as the reference and the error messages describe it.

    ``table`` is empty for a top-level key. ``default`` is the value itself.
    """

    table: str
    name: str
    type: Any
    form: Form
    default: object
    description: str
    reason: str
    accepts: str

    @property
    def key(self) -> str:
        """The dotted key: ``authority.interval``."""
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def variable(self) -> str:
        """The environment variable: ``ARP_RECONCILER_AUTHORITY__INTERVAL``."""
        return VARIABLE_PREFIX + self.key.replace(".", "__").upper()

    def convert(self, given: object, *, text: bool = False) -> object:
        """Turn what was given into the value; ``text`` when it comes as bare text.

        Raises:
            ValueError: it is not acceptable; msgspec's own errors are of this class.
        """
        if text and isinstance(given, str) and get_origin(self.type.__origin__) is tuple:
            try:
                given = msgspec.json.decode(given)
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
        value = msgspec.convert(self.form.read(given), self.type, strict=not text)
        self.text(value)  # What cannot be shown (lone surrogates) cannot be accepted.
        return value

    def written(self, value: object) -> object:
        """Give the value as the file's parser would: text, number or list of texts."""
        return self.form.write(value)

    def text(self, value: object) -> str:
        """Write the value as it would stand in the file (JSON's spelling is TOML's here)."""
        return msgspec.json.encode(self.written(value)).decode()


def _settings(struct: type[Struct], table: str = "") -> Iterator[Setting]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield from _settings(field.type, field.name)
            continue
        (meta,) = field.type.__metadata__
        form = meta.extra["form"]
        accepts = form.words
        if form is CHOICE:
            *others, last = (f"`{choice}`" for choice in get_args(field.type.__origin__))
            accepts = f"{', '.join(others)} or {last}"
        elif meta.ge is not None:
            accepts += f", from {form.write(meta.ge)} to {form.write(meta.le)}"
        yield Setting(
            table=table,
            name=field.name,
            type=field.type,
            form=form,
            default=field.default,
            description=meta.description,
            reason=meta.extra["reason"],
            accepts=accepts,
        )


SETTINGS: tuple[Setting, ...] = tuple(_settings(Settings))
