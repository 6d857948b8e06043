"""The command line: a thin face. Every command imports what it needs when it runs."""

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from reconciler import __version__
from reconciler.errors import ConfigError, Interrupted, ReconcilerError

if TYPE_CHECKING:
    from rich.console import Console

    from reconciler.report.result import Result
    from reconciler.settings import Effective

USAGE = 64  # EX_USAGE; click's own 2 would read as "wrong entries".
click.exceptions.UsageError.exit_code = USAGE

EXITS = """
\b
Exit codes of plan and apply:
  0    nothing wrong, or everything wrong was repaired and verified
  1    could not tell or could not act; nothing was changed
  2    wrong entries were found (plan) or left (apply)
  3    refused by a guard before the first change
  64   usage or configuration error
  130  interrupted
"""


def _options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command some of the flags that several commands share."""
    known = {
        "config": click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Settings file [/etc/arp-reconciler/config.toml].",
        ),
        "mode": click.option("--mode", metavar="enforce|observe", help="Repair, or only report."),
        "dry_run": click.option("--dry-run", is_flag=True, help="Change nothing."),
        "force": click.option(
            "--force", is_flag=True, help="Pass the guards ratio, no_match and shrunk."
        ),
        "max_changes": click.option("--max-changes", metavar="N", help="Most changes in one pass."),
        "interval": click.option("--interval", metavar="60s", help="Time between two passes."),
        "output": click.option(
            "--output",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="A table for people, or one JSON document.",
        ),
        "everything": click.option(
            "--all", "everything", is_flag=True, help="List the entries that are right, too."
        ),
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arp-reconciler")
def cli() -> None:
    """Keep an EC2 host's ARP and NDP tables true to the VPC.

    Compares every neighbour with what EC2 says about its address, and removes
    the entries whose MAC is not the live owner's. Start with `plan`.
    """


@cli.command(epilog=EXITS)
@_options("config", "mode", "max_changes", "output", "everything")
def plan(*, output: str, everything: bool, **given: Any) -> None:
    """Show what differs and what would be done; change nothing."""
    settings = _settings(given)
    from reconciler import commands

    _show(commands.plan(settings.settings), output, everything=everything)


@cli.command(epilog=EXITS)
@_options("config", "mode", "dry_run", "force", "max_changes", "output", "everything")
def apply(*, dry_run: bool, force: bool, output: str, everything: bool, **given: Any) -> None:
    """Repair what is wrong, and verify it."""
    settings = _settings(given)
    from reconciler import commands

    with commands.Interrupts() as interrupts:
        result = commands.apply(
            settings.settings, dry_run=dry_run, force=force, interrupts=interrupts
        )
        _show(result, output, everything=everything)


@cli.command()
@_options("config", "mode", "dry_run", "max_changes", "interval")
def run(*, dry_run: bool, config: Path | None, **given: Any) -> None:
    """Run as a daemon: a pass every interval, until SIGTERM."""
    load = functools.partial(_load, config, given)
    load()
    from reconciler import daemon

    sys.exit(daemon.run(lambda: load().settings, dry_run=dry_run))


@cli.command()
@click.argument("address")
@_options("config", "output")
def explain(*, address: str, output: str, **given: Any) -> None:
    """Tell everything known about one neighbour, and the rule that decided."""
    settings = _settings(given)
    from reconciler.core.model import pack_address

    try:
        packed = pack_address(address)
    except ValueError as error:
        raise click.BadParameter(
            f"{address!r} is no IPv4 or IPv6 address.", param_hint="ADDRESS"
        ) from error
    from reconciler import commands

    explanation = commands.explain(settings.settings, packed)
    if output == "json":
        _print_json(explanation.document())
    else:
        explanation.print(_console())


@cli.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@_options("config", "output")
def config_show(*, output: str, **given: Any) -> None:
    """Show the effective settings and where each comes from."""
    effective = _settings(given)
    rows = list(effective.rows())
    if output == "json":
        _print_json(
            [{"key": row.key, "value": row.value, "origin": str(row.origin)} for row in rows]
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("setting", "value", "from"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.key, row.text, str(row.origin))
    _console().print(table, markup=False)


@config.command("validate")
@_options("config")
def config_validate(**given: Any) -> None:
    """Check the settings; exit 0, or 64 with everything that is wrong."""
    _settings(given)
    click.echo("The settings are valid.", err=True)


@cli.command()
def demo() -> None:
    """Show the whole story on this machine: a wrong neighbour, seen and cured.

    Needs no AWS account, and no root where user namespaces are allowed. Nothing
    outside the network namespaces that it makes is touched.
    """
    from reconciler.testing import demo as story

    sys.exit(story.tell())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code instead of leaving."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except BrokenPipeError:
        # The reader of our output left (plan | head): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(given: list[str]) -> int:
    try:
        code = cli.main(args=given, prog_name="arp-reconciler", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        _tell_json(given, ConfigError(error.format_message()))
        return error.exit_code
    except ReconcilerError as error:
        click.echo(f"arp-reconciler: {error}", err=True)
        _tell_json(given, error)
        return USAGE if isinstance(error, ConfigError) else 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. Nothing was changed.", err=True)
        _tell_json(given, Interrupted("Interrupted. Nothing was changed."))
        return 130
    return int(code or 0)


def _load(config: Path | None, given: dict[str, Any]) -> "Effective":
    from reconciler.settings import load

    keys = {
        "mode": "mode",
        "max_changes": "guard.max_changes",
        "interval": "authority.interval",
    }
    flags = {keys[name]: value for name, value in given.items()}
    return load(config=config, environ=os.environ, flags=flags)


def _settings(given: dict[str, Any]) -> "Effective":
    """Load the settings and set up logging for a command that runs once."""
    from reconciler.report import log

    effective = _load(given.pop("config"), given)
    # A person at a terminal gets the result itself; the daemon's log lines
    # would only say it twice, unless they were asked for.
    asked = effective.origins["log.level"].source != "default"
    log.configure(
        effective.settings.log.level if asked else "warning",
        effective.settings.log.format,
        sys.stderr,
    )
    return effective


def _show(result: "Result", output: str, *, everything: bool) -> NoReturn:
    """Print the data to stdout, a failure to stderr, and leave with the exit code.

    Whoever reads it may be gone, or the disk full: the exit code stays true.
    """
    try:
        _print(result, output, everything=everything)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            click.echo(f"arp-reconciler: the output was lost: {error.strerror}", err=True)
    sys.exit(result.exit_code)


def _print(result: "Result", output: str, *, everything: bool) -> None:
    if output == "json":
        from reconciler.report.document import document

        _print_json(document(result, everything=everything))
    if result.error is not None:
        click.echo(f"arp-reconciler: {result.error}", err=True)
    if output == "text" and (result.error is None or result.judgements):
        from reconciler.report.text import print_result

        print_result(result, _console(), everything=everything)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _tell_json(given: Sequence[str], error: ReconcilerError) -> None:
    """Keep the promise of one whole document, whatever went wrong before there was a result."""
    if not _wants_json(given):
        return
    command = next((word for word in given if word in {"plan", "apply", "explain"}), None)
    if command in {"plan", "apply"}:
        from reconciler.report.document import document
        from reconciler.report.result import Result

        mode = "observe" if "observe" in given else "enforce"
        at = datetime.now(UTC)
        _print_json(document(Result(command=command, mode=mode, at=at, error=error)))
    else:
        _print_json({"schema_version": 1, "error": {"code": error.code, "message": str(error)}})


def _wants_json(given: Sequence[str]) -> bool:
    pairs = zip(given, [*given[1:], ""], strict=True)
    return any(pair == ("--output", "json") or pair[0] == "--output=json" for pair in pairs)
