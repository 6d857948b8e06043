"""Log lines: their shape on and off a terminal, and that writing one never fails."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.report.log import configure

LOG = logging.getLogger("reconciler.test")
AT = 1_790_000_000.0625


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.fixture(autouse=True)
def _put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("time.time", lambda: AT)
    monkeypatch.setattr("time.time_ns", lambda: int(AT * 1e9))
    root, own = logging.getLogger(), logging.getLogger("reconciler")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


@pytest.fixture
def stream() -> io.StringIO:
    """Give a stream that is no terminal."""
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read every line as the one JSON object it has to be."""
    return [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]


def explode() -> None:
    """Raise."""
    raise ValueError("first\nsecond")


def test_off_a_terminal_a_line_is_one_json_object(stream: io.StringIO) -> None:
    """Time, level and event come first, then the fields in the order they were given."""
    configure("info", "auto", stream)
    LOG.info("pass.done", extra={"changes": 3, "address": "10.0.0.9", "a": None})
    expected = (
        '{"at": "2026-09-21T14:13:20.062Z", "level": "info", "event": "pass.done", '
        '"changes": 3, "address": "10.0.0.9", "a": null}\n'
    )
    assert expected == stream.getvalue()


def test_on_a_terminal_a_line_is_readable() -> None:
    """A person reads time, level, event and key=value; odd values are quoted."""
    terminal = Terminal()
    configure("info", "auto", terminal)
    LOG.warning(
        "pass.done",
        extra={
            "changes": 3,
            "why": "two words",
            "no": "",
            "odd": "\x1b[31m",
            "eq": "a=b",
            "l": [1],
            "n": None,
        },
    )
    expected = (
        "2026-09-21T14:13:20.062Z warning pass.done "
        'changes=3 why="two words" no="" odd="\\u001b[31m" eq="a=b" l=[1] n=null\n'
    )
    assert expected == terminal.getvalue()


def test_the_format_can_be_chosen(stream: io.StringIO) -> None:
    """The setting goes over what the stream is."""
    configure("info", "text", stream)
    LOG.info("a")
    assert "2026-09-21T14:13:20.062Z info    a\n" == stream.getvalue()
    terminal = Terminal()
    configure("info", "json", terminal)
    LOG.info("a")
    assert ["a"] == [line["event"] for line in lines(terminal)]


def test_configuring_again_replaces(stream: io.StringIO) -> None:
    """After a reload a line is written once, by the new choice."""
    old = io.StringIO()
    configure("error", "json", old)
    configure("info", "json", stream)
    LOG.info("a")
    assert "" == old.getvalue()
    assert ["a"] == [line["event"] for line in lines(stream)]


def test_the_level_is_ours_alone(stream: io.StringIO) -> None:
    """Debug shows our debug lines; libraries stay at warning and are named."""
    configure("debug", "json", stream)
    LOG.debug("a")
    logging.getLogger("botocore.hooks").info("noise")
    logging.getLogger("urllib3").warning("Retrying %d", 5)
    assert [("a", None), ("Retrying 5", "urllib3")] == [
        (line["event"], line.get("logger")) for line in lines(stream)
    ]


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    """A quiet level is quiet."""
    configure("error", "json", stream)
    LOG.warning("a")
    LOG.error("b")
    assert ["b"] == [line["event"] for line in lines(stream)]


@pytest.mark.parametrize("level", ["info", "debug"])
def test_an_exception_is_one_line_with_its_traceback_only_at_debug(
    stream: io.StringIO, level: str
) -> None:
    """An exception is its class and message; the traceback is for those who debug."""
    configure(level, "json", stream)
    try:
        explode()
    except ValueError:
        LOG.exception("pass.failed")
    (line,) = lines(stream)
    assert "ValueError: first\nsecond" == line["exception"]
    assert (level == "debug") == ("in explode" in line.get("traceback", ""))


def test_an_exception_on_a_terminal(stream: io.StringIO) -> None:
    """One line at info; at debug the traceback follows below, as people read it."""
    for level in ("info", "debug"):
        configure(level, "text", stream)
        try:
            explode()
        except ValueError:
            LOG.exception("pass.failed")
    info, debug, *trace = stream.getvalue().splitlines()
    assert info == debug
    assert info.endswith('error   pass.failed exception="ValueError: first\\nsecond"')
    assert "Traceback (most recent call last):" == trace[0]


class Unprintable:
    """An object that fails when it is shown."""

    def __str__(self) -> str:
        raise RuntimeError


def test_whatever_a_field_holds_the_line_is_json(stream: io.StringIO) -> None:
    """Paths, sets, not-a-number, circles, strange keys and broken objects all become text."""
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    configure("info", "json", stream)
    fields = {
        "path": Path("/x"),
        "nan": float("nan"),
        "inner": {"path": Path("/y")},
        "keys": {b"k": 1},
        "circle": circle,
        "deep": deep,
        "broken": Unprintable(),
        "lone": "\udcff",
        "at": "never",
    }
    LOG.info("a", extra=fields)
    (line,) = lines(stream)
    assert ("/x", "nan", {"path": "/y"}) == (line["path"], line["nan"], line["inner"])
    assert ("{b'k': 1}", "[[...]]") == (line["keys"], line["circle"])
    assert ("<list>", "<Unprintable>", "\udcff") == (line["deep"], line["broken"], line["lone"])
    assert "2026-09-21T14:13:20.062Z" == line["at"]


def test_a_librarys_wrong_arguments_do_not_cost_the_line(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that does not fit its arguments is written as it stands."""
    # pytest's own handler raises where ours must not.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure("info", "json", stream)
    logging.getLogger("other").warning("%d things", "no")
    assert ["%d things"] == [line["event"] for line in lines(stream)]


def test_a_broken_pipe_and_a_full_disk_lose_the_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a line cannot be written it is lost, without an exception or a word."""
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (writer, os.open("/dev/full", os.O_WRONLY)):
        with os.fdopen(descriptor, "wb", buffering=0) as raw:
            configure("info", "json", io.TextIOWrapper(raw, write_through=True))
            LOG.info("a")
    closed = io.StringIO()
    closed.close()
    configure("info", "json", io.StringIO())
    logging.getLogger().handlers[-1].setStream(closed)  # type: ignore[attr-defined]
    LOG.info("a")
    monkeypatch.setattr("sys.stderr", None)
    configure("info", "auto", None)
    LOG.info("a")
    assert ("", "") == capfd.readouterr()
