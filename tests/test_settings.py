"""The settings: where values come from, how they are written, and what is said of bad ones."""

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Limits, Policy, Prefix
from reconciler.errors import ConfigError
from reconciler.settings import (
    SETTINGS,
    Effective,
    Origin,
    Setting,
    Settings,
    format_duration,
    load,
    parse_duration,
)

DOCUMENT = Path(__file__).parent.parent / "docs" / "configuration.md"
KEYS = [setting.key for setting in SETTINGS]


@pytest.fixture(autouse=True)
def _no_standard_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.settings.sources.DEFAULT_FILE", tmp_path / "absent.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a place for a configuration file."""
    return tmp_path / "config.toml"


def loaded(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Effective:
    """Load with the sources that matter."""
    return load(config=config, environ=environ or {}, flags=flags or {})


def refused(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> list[str]:
    """Load what must not load, and give the lines of the error."""
    with pytest.raises(ConfigError) as caught:
        loaded(config, environ, flags)
    return str(caught.value).splitlines()


def origin_of(effective: Effective, key: str) -> str:
    """Say where a value comes from, as people read it."""
    return str(effective.origins[key])


# ------------------------------------------------------------------- sources


def test_defaults_are_the_contracts() -> None:
    """Without any source every setting has the default that is promised to users."""
    expected = {
        "mode": "enforce",
        "links.include": [],
        "links.exclude": [],
        "authority.scope": "subnet",
        "authority.interval": "60s",
        "authority.jitter": 0.1,
        "authority.max_age": "5m",
        "policy.on_mismatch": "delete",
        "policy.on_orphan": "delete",
        "policy.on_unknown": "report",
        "policy.protect": [],
        "policy.ignore_interface_types": [],
        "guard.max_changes": 100,
        "guard.max_changes_per_hour": 1000,
        "guard.max_change_ratio": 0.5,
        "guard.min_entries": 10,
        "guard.max_shrink": 0.5,
        "guard.hold_file": "/etc/arp-reconciler/hold",
        "log.level": "info",
        "log.format": "auto",
        "log.journal": "",
    }
    rows = list(loaded().rows())
    assert expected == {row.key: row.value for row in rows}
    assert {Origin("default")} == {row.origin for row in rows}
    assert Settings() == loaded().settings


def test_the_stronger_source_wins_and_each_value_knows_its_own(file: Path) -> None:
    """Flag goes over environment over file over default, value by value."""
    file.write_text('[authority]\ninterval = "20s"\nmax_age = "2m"\njitter = 0\n')
    effective = loaded(
        file,
        {"ARP_RECONCILER_AUTHORITY__INTERVAL": "30s", "ARP_RECONCILER_AUTHORITY__MAX_AGE": "3m"},
        {"authority.interval": "40s", "guard.max_changes": 50, "mode": None},
    )
    authority = effective.settings.authority
    assert (40.0, 180.0, 0.0) == (authority.interval, authority.max_age, authority.jitter)
    assert "flag --interval" == origin_of(effective, "authority.interval")
    assert "environment ARP_RECONCILER_AUTHORITY__MAX_AGE" == origin_of(
        effective, "authority.max_age"
    )
    assert f"file {file}" == origin_of(effective, "authority.jitter")
    assert "flag --max-changes" == origin_of(effective, "guard.max_changes")
    assert "default" == origin_of(effective, "mode")


def test_the_standard_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config the standard file counts, when it is there."""
    monkeypatch.setattr("reconciler.settings.sources.DEFAULT_FILE", file)
    file.write_text('mode = "observe"')
    effective = loaded()
    assert "observe" == effective.settings.mode
    assert f"file {file}" == origin_of(effective, "mode")


def test_environment_takes_text_numbers_and_lists() -> None:
    """A variable is bare text; numbers are read from it, lists are JSON."""
    settings = loaded(
        environ={
            "ARP_RECONCILER_MODE": "observe",
            "ARP_RECONCILER_GUARD__MAX_CHANGES": "7",
            "ARP_RECONCILER_GUARD__MAX_SHRINK": "0.25",
            "ARP_RECONCILER_LINKS__INCLUDE": '["ens5", "eth*"]',
            "ARP_RECONCILER_LOG__JOURNAL": "/var/log/j",
            "PATH": "/bin",
        }
    ).settings
    assert "observe" == settings.mode
    assert (7, 0.25) == (settings.guard.max_changes, settings.guard.max_shrink)
    assert ("ens5", "eth*") == settings.links.include
    assert Path("/var/log/j") == settings.log.journal


def test_an_empty_variable_takes_the_journal_back(file: Path) -> None:
    """The file's journal can be switched off again, which TOML's missing null cannot say."""
    file.write_text('log.journal = "/var/log/j"')
    assert loaded(file, {"ARP_RECONCILER_LOG__JOURNAL": ""}).settings.log.journal is None


def test_the_core_gets_its_values(file: Path) -> None:
    """Policy and limits reach the core as its own types, the hold file stays with the writer."""
    file.write_text(
        '[policy]\non_mismatch = "probe"\non_orphan = "report"\non_unknown = "probe"\n'
        'protect = ["10.0.0.0/28", "2001:db8::1"]\nignore_interface_types = ["odd"]\n'
        "[guard]\nmax_changes = 1\nmax_changes_per_hour = 2\nmax_change_ratio = 0.3\n"
        "min_entries = 4\nmax_shrink = 1\n"
    )
    settings = loaded(file).settings
    protect = (Prefix.parse("10.0.0.0/28"), Prefix.parse("2001:db8::1/128"))
    assert (
        Policy("probe", "report", "probe", protect, frozenset({"odd"})) == settings.policy.to_core()
    )
    assert Limits(1, 2, 0.3, 4, 1.0) == settings.guard.to_core()
    assert (Policy(), Limits()) == (Settings().policy.to_core(), Settings().guard.to_core())


# -------------------------------------------------------------------- errors


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    """One error names every mistake of every source, also the overridden ones."""
    file.write_text('mode = "observ"\n[guard]\nmax_changes = 0\n')
    lines = refused(
        file, {"ARP_RECONCILER_LOG__LEVEL": "loud", "ARP_RECONCILER_X": ""}, {"mode": "observe"}
    )
    assert 4 == len(lines)
    assert f"mode = 'observ' (file {file}): accepted is enforce or observe" == lines[0]
    assert lines[1].startswith("guard.max_changes = 0 ")
    assert lines[2].startswith("log.level = 'loud' (environment ARP_RECONCILER_LOG__LEVEL): ")
    assert lines[3].startswith("ARP_RECONCILER_X = '' ")


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        ('[authority]\nintervall = "5s"', "authority.intervall", "authority.interval (a duration"),
        ('interval = "5s"', "interval", "authority.interval"),
        ('[guard]\nmax_age = "5m"', "guard.max_age", "authority.max_age"),
        ('"authority.interval" = "5s"', '"authority.interval"', "authority.interval"),
        ("[polcy]\nprotect = []", "polcy", "did you mean [policy]?"),
        ("[zzzzzz]", "zzzzzz", "known are links, authority, policy, guard, log"),
        ("guard = 5", "guard", "accepted is [guard] with its keys below"),
        ("[[guard]]\nmax_changes = 5", "guard", "accepted is [guard] with its keys below"),
        ('"a\\nb" = 5', '"a\\nb"', "nearest"),
    ],
)
def test_an_unknown_key_of_the_file_names_the_nearest(
    file: Path, text: str, named: str, hint: str
) -> None:
    """A slip in a key is answered with the key that was meant."""
    file.write_text(text)
    (line,) = refused(file)
    assert line.startswith(f"{named} = ")
    assert str(file) in line
    assert hint in line


@pytest.mark.parametrize(
    "name",
    [
        "ARP_RECONCILER_AUTHORITY_INTERVAL",
        "ARP_RECONCILER_AUTHORITY__INTERVALL",
        "ARP_RECONCILER_INTERVAL",
        "ARP_RECONCILER_Authority__Interval",
    ],
)
def test_an_unknown_variable_names_the_nearest(name: str) -> None:
    """A slip in a variable's name is answered with the variable that was meant."""
    (line,) = refused(environ={name: "5s"})
    assert line.startswith(f"{name} = '5s' ")
    assert "ARP_RECONCILER_AUTHORITY__INTERVAL (" in line


@pytest.mark.parametrize(
    ("text", "reason", "accepted"),
    [
        ("authority.interval = 90", "a bare number has no unit", "such as 90s, 5m"),
        ('authority.interval = "90"', "a bare number has no unit", "such as 90s, 5m"),
        ('authority.interval = "4s"', "", "from 5s to 1d"),
        ('authority.interval = "5 m"', "this is no duration", "such as 90s, 5m"),
        ('authority.interval = ""', "this is no duration", "such as 90s, 5m"),
        ("authority.interval = true", "this is no duration", "such as 90s, 5m"),
        ("authority.jitter = 0.51", "", "a number, from 0 to 0.5"),
        ("guard.max_change_ratio = nan", "", "a number, from 0 to 1"),
        ("guard.max_change_ratio = true", "", "a number, from 0 to 1"),
        ('guard.max_changes = "5"', "", "a whole number, from 1 to 1000000"),
        ("guard.max_changes = 5.0", "", "a whole number, from 1 to 1000000"),
        ("guard.min_entries = 0", "", "a whole number, from 1 to 1000000"),
        ('guard.hold_file = ""', "this is no absolute path", "an absolute path"),
        ('guard.hold_file = "hold"', "this is no absolute path", "an absolute path"),
        ('log.journal = "/a\\u0000b"', "this is no absolute path", "or empty for none"),
        ('links.include = "ens5"', "", 'a list of globs such as ["ens*"]'),
        ('links.include = [""]', "", 'a list of globs such as ["ens*"]'),
        (
            'policy.protect = ["10.0.0.5/24"]',
            "the network is 10.0.0.0/24, the one address 10.0.0.5/32",
            "a list of CIDRs",
        ),
        ("policy.protect = [5]", "5 is no CIDR", "a list of CIDRs"),
        ('policy.protect = ["fe80::%eth0/64"]', "is no CIDR", "a list of CIDRs"),
        ('policy.protect = "10.0.0.0/24"', "", "a list of CIDRs"),
        ('policy.on_orphan = "replace"', "", "delete, probe or report"),
    ],
)
def test_a_bad_value_names_what_is_accepted(
    file: Path, text: str, reason: str, accepted: str
) -> None:
    """A value that will not do is answered with the reason and with what would do."""
    file.write_text(text)
    (line,) = refused(file)
    assert line.startswith(text.partition(" ")[0])
    assert reason in line
    assert accepted in line.partition("accepted is ")[2]


def test_lists_in_the_environment_say_that_they_are_json() -> None:
    """A bare word where a list is due is answered with the way to write lists there."""
    (line,) = refused(environ={"ARP_RECONCILER_LINKS__INCLUDE": "ens5"})
    assert line.endswith('accepted is a list of globs such as ["ens*"], as JSON')
    (line,) = refused(environ={"ARP_RECONCILER_LINKS__INCLUDE": "[" * 100_000})
    assert "nested too deeply" in line


def test_bytes_that_are_no_text_are_refused() -> None:
    """A variable that is not UTF-8 (Python hands it over as lone surrogates) is refused."""
    (line,) = refused(environ={"ARP_RECONCILER_LOG__JOURNAL": "/var/\udcff"})
    assert line.startswith(r"log.journal = '/var/\udcff' ")


def test_max_age_below_interval_names_both_and_their_origins(file: Path) -> None:
    """Two values that contradict each other are both named, with their places."""
    file.write_text('authority.max_age = "1m"')
    (line,) = refused(file, flags={"authority.interval": "10m"})
    assert f"authority.max_age = 60s (file {file})" in line
    assert "authority.interval = 10m (flag --interval)" in line
    assert 60.0 == loaded(file, flags={"authority.interval": "1m"}).settings.authority.max_age


def test_a_bad_interval_is_not_compared(file: Path) -> None:
    """A value that was refused is not blamed a second time through its default."""
    file.write_text('[authority]\ninterval = "1"\nmax_age = "10s"')
    assert 1 == len(refused(file))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"mode = ", "is not TOML"),
        (b'mode = "\xff"', "is not UTF-8 text"),
        (b"x = " + b"[" * 100_000, "is not TOML"),
        (b"x = " + b"9" * 10_000, "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_decoded_is_an_error(file: Path, content: bytes, said: str) -> None:
    """Whatever is wrong with the file's text, the error names the file."""
    file.write_bytes(content)
    (line,) = refused(file)
    assert line.startswith(f"file {file} {said}")


def test_a_named_file_must_exist(file: Path) -> None:
    """--config with a file that is not there is an error, unlike the standard file."""
    (line,) = refused(file)
    assert f"file {file}: No such file or directory; name a file that exists" == line


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A folder in the file's place is named, and the environment's mistakes beside it."""
    lines = refused(tmp_path, {"ARP_RECONCILER_MODE": "x"})
    assert f"file {tmp_path} cannot be read: Is a directory" == lines[0]
    assert lines[1].startswith("mode = 'x' ")


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0), ("250ms", 0.25), ("1d", 86400.0)],
)
def test_durations_are_read_and_written_as_people_do(text: str, seconds: float) -> None:
    """The forms that people use come back the way they were written."""
    assert seconds == parse_duration(text)
    assert text == format_duration(seconds)


@given(st.integers(min_value=0, max_value=10**12))
def test_durations_survive_writing_and_reading(milliseconds: int) -> None:
    """Every duration, exact to the millisecond, is read back as the same number."""
    seconds = milliseconds / 1000
    assert seconds == parse_duration(format_duration(seconds))


def _given_anything(setting: Setting, text: str) -> Effective | None:
    try:
        return loaded(environ={setting.variable: text}, flags={setting.key: text})
    except ConfigError:
        return None


@given(
    st.sampled_from(SETTINGS),
    st.text() | st.characters(codec=None).map(str) | st.from_regex(r'\A\["[^"]*"\]\Z'),
)
def test_any_text_loads_or_is_a_config_error(setting: Setting, text: str) -> None:
    """No text as a value of any setting does anything but load, or be refused by name."""
    effective = _given_anything(setting, text)
    if effective is not None:
        assert 21 == len(list(effective.rows()))


_JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(st.sampled_from(KEYS) | st.text(), _JSONISH)
def test_any_value_under_any_key_loads_or_is_a_config_error(key: str, value: object) -> None:
    """No value of any type under any key does anything but load, or be refused by name."""
    try:
        effective = loaded(flags={key: value})
    except ConfigError:
        return
    assert key in effective.origins or value is None


@given(
    st.binary()
    | st.tuples(st.sampled_from(KEYS), st.text()).map(lambda p: f"{p[0]} = {p[1]}".encode())
    | st.tuples(st.sampled_from(KEYS), _JSONISH).map(lambda p: f"{p[0]} = {p[1]!r}".encode())
)
def test_any_file_loads_or_is_a_config_error(content: bytes) -> None:
    """No file does anything but load, or be refused by name."""
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(content)
        stream.flush()
        with contextlib.suppress(ConfigError):
            loaded(Path(stream.name))


@given(st.text(max_size=80))
def test_any_variable_name_is_known_or_a_config_error(name: str) -> None:
    """No variable of our prefix passes unnoticed."""
    variable = f"ARP_RECONCILER_{name}"
    if variable not in {setting.variable for setting in SETTINGS}:
        assert refused(environ={variable: ""})


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {
            "mode": "observe",
            "links.include": ["ens*", 'q"\\\t\u007f'],
            "authority.interval": "1m1s1ms",
            "authority.max_age": "1h",
            "policy.protect": ["10.0.0.0/255.255.255.240", "::/0"],
            "guard.max_shrink": 0,
            "log.journal": "/var/log/j o",
        },
    ],
)
def test_what_config_show_prints_can_be_the_file(file: Path, flags: dict[str, object]) -> None:
    """The rows, written into a file, load as the very same settings."""
    effective = loaded(flags=flags)
    rows = [f"{row.key} = {row.text}" for row in effective.rows()]
    file.write_text("\n".join(rows).replace("\u007f", "\\u007F"))
    assert effective.settings == loaded(file).settings


# -------------------------------------------------------------- introspection


def test_every_setting_is_described() -> None:
    """Every setting says what it does and why its default is what it is; its default loads."""
    for setting in SETTINGS:
        assert setting.description.endswith(".")
        assert setting.reason.endswith(".")
        assert setting.default == setting.convert(setting.written(setting.default))
        assert setting.default == getattr(
            getattr(Settings(), setting.table) if setting.table else Settings(), setting.name
        )


def test_settings_cannot_be_changed() -> None:
    """Settings are values: a part of the program cannot change them under another."""
    with pytest.raises(AttributeError):
        Settings().guard.max_changes = 5  # type: ignore[misc]
    assert 5 == msgspec.structs.replace(Settings().guard, max_changes=5).max_changes


def test_the_document_is_true_of_the_code() -> None:
    """Each setting stands in the document with its default, what is accepted and its reason."""
    lines = DOCUMENT.read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| `", line)]
    expected = [
        f"| `{s.key}` | `{s.text(s.default)}` | {s.accepts} | {s.description} {s.reason} |"
        for s in SETTINGS
    ]
    assert expected == rows


def test_the_documents_examples_load(file: Path) -> None:
    """Each example can be copied as it stands."""
    examples = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        file.write_text(example)
        assert Settings() != loaded(file).settings


def test_importing_settings_is_cheap() -> None:
    """The settings come without the SDK, netlink, the table printer and the command line."""
    script = (
        "import sys, reconciler.settings;"
        "print({'boto3', 'botocore', 'pyroute2', 'rich', 'click'} & set(sys.modules))"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter.
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "set()\n" == done.stdout
