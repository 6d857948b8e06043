"""The face: what it imports, what it accepts, how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import __version__
from reconciler.cli import main


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    return subprocess.run(  # noqa: S603 - our own interpreter and our own words.
        [sys.executable, "-m", "reconciler", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("words", ["--help", "plan --help", "--version", "config show"])
def test_light_commands_import_nothing_heavy(words: str) -> None:
    """Help, version and settings answer without boto3, botocore or pyroute2."""
    code = (
        "import sys, reconciler.cli as c\n"
        f"code = c.main({words.split()!r})\n"
        "heavy = {'boto3', 'botocore', 'pyroute2'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and our own words.
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version names the distribution and its version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"arp-reconciler, version {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan --bogus", "--bogus"),
        ("frobnicate", "frobnicate"),
        ("explain not-an-address", "not-an-address"),
        ("plan --mode sometimes", "accepted is enforce or observe"),
        ("plan --max-changes many", "guard.max_changes"),
        ("run --interval 60", "a bare number"),
        ("plan --config /nonexistent/config.toml", "/nonexistent/config.toml"),
    ],
)
def test_usage_errors_exit_64(words: str, said: str) -> None:
    """Wrong words exit 64 and say what was wrong, without a traceback."""
    ended = run(*words.split())
    assert ended.returncode == 64
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", ["plan --bogus", "apply --mode sometimes"])
def test_usage_errors_are_whole_documents_too(words: str) -> None:
    """With --output json even a usage error is one JSON document on stdout."""
    ended = run(*words.split(), "--output", "json")
    document = json.loads(ended.stdout)
    assert ended.returncode == 64
    assert (document["result"], document["error"]["code"]) == ("error", "config")


def test_an_unknown_variable_is_an_error() -> None:
    """A misspelt ARP_RECONCILER_ variable is named together with the nearest known one."""
    ended = run("config", "validate", ARP_RECONCILER_GUARD__MAX_CHANGE="3")
    assert ended.returncode == 64
    assert "ARP_RECONCILER_GUARD__MAX_CHANGES" in ended.stderr


def test_config_show_tells_origins(tmp_path: Path) -> None:
    """Config show names where each value comes from."""
    file = tmp_path / "config.toml"
    file.write_text('mode = "observe"\n')
    ended = run("config", "show", "--config", str(file), "--output", "json")
    rows = {row["key"]: row for row in json.loads(ended.stdout)}
    assert rows["mode"] == {"key": "mode", "value": "observe", "origin": f"file {file}"}
    assert rows["authority.interval"]["value"] == "60s"


def test_no_ec2_at_all() -> None:
    """Off EC2 plan exits 1 with one document that says what was tried."""
    ended = run(
        "plan",
        "--output",
        "json",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_REGION="eu-central-1",
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",  # noqa: S106 - it is none.
    )
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["error"]["code"] == "identity"
    assert "Traceback" not in ended.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    """`plan | head` ends quietly."""
    ended = subprocess.run(  # noqa: S602 - the pipe is what is tested.
        f"{sys.executable} -m reconciler config show | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stderr == ""
