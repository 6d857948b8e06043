"""How people write a value, and how it stands in the settings.

A form turns what a file, a variable or a flag gave into the value that msgspec
then checks for type and bounds, and turns the value back into what a person
would write in the file.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.core.model import Prefix

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS_MS))


def parse_duration(given: object) -> float:
    """Read ``90s``, ``5m``, ``1h30m`` or ``250ms`` as seconds.

    Raises:
        ValueError: it is a bare number, or no duration.
    """
    if (isinstance(given, int | float) and not isinstance(given, bool)) or (
        isinstance(given, str) and re.fullmatch(r"[0-9]+(\.[0-9]*)?", given)
    ):
        raise ValueError("a bare number has no unit")
    match = _DURATION.fullmatch(given) if isinstance(given, str) and given else None
    if match is None:
        raise ValueError("this is no duration")
    counts = (int(count or 0) for count in match.groups())
    return sum(n * ms for n, ms in zip(counts, _UNITS_MS.values(), strict=True)) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds the way people do: ``90s``, ``5m``, ``1h30m``; exact to the millisecond.

    Below two minutes whole seconds stay seconds, since people say "90s".
    """
    left = round(seconds * 1000)
    if 0 < left < 120_000 and left % 1000 == 0:
        return f"{left // 1000}s"
    text = ""
    for unit, ms in _UNITS_MS.items():
        count, left = divmod(left, ms)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _parse_prefix(text: object) -> Prefix:
    # ipaddress would take the number 5 for 0.0.0.5, and drop a zone silently.
    if not isinstance(text, str) or "%" in text:
        raise ValueError(f"{text!r} is no CIDR")
    try:
        return Prefix.parse(text)
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no CIDR") from None
    alone = f"{text.partition('/')[0]}/{network.max_prefixlen}"
    raise ValueError(
        f"{text!r} has host bits set: the network is {network}, the one address {alone}"
    )


def _parse_prefixes(given: object) -> object:
    return tuple(map(_parse_prefix, given)) if isinstance(given, list | tuple) else given


def _parse_path(given: object) -> object:
    if not isinstance(given, str):
        return given
    if not given.startswith("/") or "\0" in given:
        raise ValueError("this is no absolute path")
    return Path(given)


def _as_given(value: object) -> object:
    return value


class Form(NamedTuple):
    """One way of writing: what is accepted in words, and the two directions."""

    words: str
    read: Callable[[object], object] = _as_given
    write: Callable[[Any], object] = _as_given


CHOICE = Form("one of")
COUNT = Form("a whole number")
SHARE = Form("a number")
TEXTS = Form("a list of texts", write=list)
GLOBS = Form('a list of globs such as `["ens*"]`', write=list)
DURATION = Form(
    "a duration such as `90s`, `5m`, `1h30m` or `250ms`", parse_duration, format_duration
)
CIDRS = Form(
    'a list of CIDRs such as `["10.0.0.0/28"]`',
    _parse_prefixes,
    lambda prefixes: [str(prefix) for prefix in prefixes],
)
FILE = Form("an absolute path", _parse_path, str)
OPTIONAL_FILE = Form(
    "an absolute path, or empty for none",
    lambda given: None if given == "" else _parse_path(given),
    lambda path: str(path or ""),
)
