"""Where values come from: flag over environment over file over default.

Every value is converted by itself, so that it knows its origin, a bad one is
named exactly, and all mistakes are told at once.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from reconciler.errors import ConfigError
from reconciler.settings.forms import format_duration
from reconciler.settings.schema import SETTINGS, VARIABLE_PREFIX, Setting, Settings

DEFAULT_FILE = Path("/etc/arp-reconciler/config.toml")

_BY_KEY = {setting.key: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}
_TABLES = tuple(dict.fromkeys(setting.table for setting in SETTINGS if setting.table))


class Origin(NamedTuple):
    """Where a value comes from; ``name`` is the path, the variable or the flag."""

    source: Literal["default", "file", "environment", "flag"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.source} {self.name}".rstrip()


class Row(NamedTuple):
    """One line of ``config show``.

    ``value`` is text, a number or a list of texts; ``text`` is how it would
    stand in the file.
    """

    key: str
    value: object
    text: str
    origin: Origin


class Effective(NamedTuple):
    """The settings in force, and the origin of each by its dotted key."""

    settings: Settings
    origins: dict[str, Origin]

    def rows(self) -> Iterator[Row]:
        """Go through all settings in the order of the reference."""
        for setting in SETTINGS:
            table = getattr(self.settings, setting.table) if setting.table else self.settings
            value = getattr(table, setting.name)
            yield Row(
                setting.key, setting.written(value), setting.text(value), self.origins[setting.key]
            )


class _Given(NamedTuple):
    key: str
    value: object
    origin: Origin


def load(
    *, config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Effective:
    """Read all sources and join them.

    Without ``config`` the file is ``/etc/arp-reconciler/config.toml``, which may
    be absent. ``flags`` has dotted keys; None means the flag was not given.

    Raises:
        ConfigError: something is not acceptable; the message names all of it.
    """
    problems: list[str] = []
    values = {setting.key: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, Origin("default"))
    refused = set()
    try:
        document = _read(config)
    except ConfigError as error:
        problems.append(str(error))
        document = {}
    file = Origin("file", str(config or DEFAULT_FILE))
    for given in chain(_from_file(document, file), _from_environment(environ), _from_flags(flags)):
        setting = _BY_KEY.get(given.key)
        if setting is None:
            problems.append(_unknown(given))
            continue
        try:
            text = given.origin.source != "file"
            values[given.key] = setting.convert(given.value, text=text)
            origins[given.key] = given.origin
        except ValueError as error:
            problems.append(_bad(setting, given, error))
            refused.add(given.key)
    settings = _build(values)
    if not refused & {"authority.interval", "authority.max_age"}:
        problems.extend(_crossed(settings, origins))
    if problems:
        raise ConfigError("\n".join(problems))
    return Effective(settings, origins)


def _read(config: Path | None) -> dict[str, object]:
    path = config or DEFAULT_FILE
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (FileNotFoundError, NotADirectoryError) as error:
        if config is None:
            return {}
        raise ConfigError(f"file {path}: {error.strerror}; name a file that exists") from error
    except OSError as error:
        raise ConfigError(f"file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {path} is not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"file {path} is not TOML: {error}") from error


def _from_file(document: Mapping[str, object], origin: Origin) -> Iterator[_Given]:
    for name, value in document.items():
        if name in _TABLES and isinstance(value, dict):
            for inner, leaf in value.items():
                yield _Given(f"{name}.{_quoted(inner)}", leaf, origin)
        else:
            yield _Given(_quoted(name), value, origin)


def _quoted(name: str) -> str:
    # A quoted key may hold dots: it must not pass for a dotted one.
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else msgspec.json.encode(name).decode()


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for name, value in sorted(environ.items()):
        if name.startswith(VARIABLE_PREFIX):
            setting = _BY_VARIABLE.get(name)
            yield _Given(setting.key if setting else name, value, Origin("environment", name))


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for key, value in flags.items():
        if value is not None:
            name = "--" + key.rpartition(".")[2].replace("_", "-")
            yield _Given(key, value, Origin("flag", name))


def _bad(setting: Setting, given: _Given, error: ValueError) -> str:
    why = "" if isinstance(error, msgspec.MsgspecError) else f"{error}; "
    accepts = setting.accepts.replace("`", "")
    as_json = ", as JSON" if accepts.startswith("a list") and given.origin.source != "file" else ""
    return (
        f"{given.key} = {_shown(given.value)} ({given.origin}): {why}accepted is {accepts}{as_json}"
    )


def _unknown(given: _Given) -> str:
    shown = f"{given.key} = {_shown(given.value)} ({given.origin})"
    if given.key in _TABLES:
        return f"{shown}: this is a table; accepted is [{given.key}] with its keys below"
    plain = given.key.removeprefix(VARIABLE_PREFIX).lower().replace("__", ".").replace('"', "")
    if isinstance(given.value, dict) and "." not in plain:
        near = difflib.get_close_matches(plain, _TABLES, n=1)
        meant = f"did you mean [{near[0]}]?" if near else f"known are {', '.join(_TABLES)}"
        return f"{shown}: unknown table; {meant}"
    setting = _nearest(plain)
    spelled = setting.variable if given.origin.source == "environment" else setting.key
    accepts = setting.accepts.replace("`", "")
    return f"{shown}: unknown key; the nearest known one is {spelled} ({accepts})"


def _nearest(plain: str) -> Setting:
    # The right name under the wrong table is nearer than any look-alike under this one.
    by_name: dict[str, Setting] = {setting.name: setting for setting in reversed(SETTINGS)}
    name = plain.rpartition(".")[2]
    if name in by_name:
        return by_name[name]
    return _BY_KEY[difflib.get_close_matches(plain, _BY_KEY, n=1, cutoff=0)[0]]


def _crossed(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[str]:
    authority = settings.authority
    if authority.max_age < authority.interval:
        yield (
            f"authority.max_age = {format_duration(authority.max_age)} "
            f"({origins['authority.max_age']}) is shorter than "
            f"authority.interval = {format_duration(authority.interval)} "
            f"({origins['authority.interval']}): every reading would be stale before the next; "
            "accepted is a max_age of at least one interval"
        )


def _build(values: Mapping[str, object]) -> Settings:
    # Every value was checked by itself; this conversion only puts them in their places.
    top = {s.name: values[s.key] for s in SETTINGS if not s.table}
    tables = {t: {s.name: values[s.key] for s in SETTINGS if s.table == t} for t in _TABLES}
    return msgspec.convert({**top, **tables}, Settings)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
