"""Log lines: a stable event name and its fields, one line each.

JSON off a terminal, readable text on one. Code logs with the standard library:
``log.info("pass.done", extra={"changes": 3})``. Writing a line never raises: a
broken pipe or a full disk loses lines, never a pass.
"""

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

_OWN = "reconciler"
# What the standard library itself sets, and refuses as an extra.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def configure(
    level: str,
    format: Literal["auto", "json", "text"],  # noqa: A002 - the setting's own name.
    stream: TextIO | None,
) -> None:
    """Send all log lines to the stream; calling it again replaces the earlier choice.

    ``level`` is for this program's own loggers; everybody else's (botocore,
    urllib3) stay at warning, where they are of use and hold no secrets. A stream
    of None (``sys.stderr`` of a process started with it closed) loses every line.
    """
    as_json = format == "json" or (format == "auto" and (stream is None or not stream.isatty()))
    handler = _Handler(stream)
    handler.setFormatter((_JsonFormatter if as_json else _TextFormatter)())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OWN).setLevel(level.upper())


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name.
        """Lose the line."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if trace := _trace(record):
            fields["traceback"] = trace
        inner = (f"{json.dumps(str(name))}: {_json(value)}" for name, value in fields.items())
        return "{" + ", ".join(inner) + "}"


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        head = [fields.pop("at"), f"{fields.pop('level'):<7}", fields.pop("event")]
        line = " ".join([*head, *(f"{name}={_bare(value)}" for name, value in fields.items())])
        return f"{line}\n{trace}" if (trace := _trace(record)) else line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    head: dict[str, Any] = {
        "at": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": _event(record),
    }
    if record.name.partition(".")[0] != _OWN:
        # A library's message is prose, not one of our event names.
        head["logger"] = record.name
    if record.exc_info and (error := record.exc_info[1]):
        head["exception"] = f"{type(error).__name__}: {_text(error)}"
    extras = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**head, **extras, **head}


def _event(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a library's wrong arguments must not cost the line.
        return _text(record.msg)


def _trace(record: logging.LogRecord) -> str:
    if record.exc_info and logging.getLogger(_OWN).isEnabledFor(logging.DEBUG):
        return "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return ""


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any object may stand in a log line.
        return f"<{type(value).__name__}>"


def _json(value: object) -> str:
    try:
        return json.dumps(value, default=_text, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        # Strange keys, not-a-number, a circle: the line still has to be JSON.
        return json.dumps(_text(value))


def _bare(value: object) -> str:
    text = value if isinstance(value, str) else _json(value)
    plain = text.isprintable() and not set(text) & set(' "=')
    return text if plain and text else _json(value)
