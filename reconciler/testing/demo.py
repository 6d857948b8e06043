"""The whole story on one machine: a recycled address, a broker that answers nobody, the cure.

Everything in it is real: the kernel's neighbour table, TCP, the EC2 protocol
over HTTP, and the very commands a person would type. Only the VPC is made of
network namespaces, which end with this process.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from reconciler.core.model import format_mac
from reconciler.errors import LabError
from reconciler.testing.addle import relayed
from reconciler.testing.example import HOST, example
from reconciler.testing.lab import Lab
from reconciler.testing.namespaces import enter_user_namespace

ADDRESS, BROKER, PORT = "10.0.0.11", "10.0.0.10", 1883
PATIENCE = 3.0  # seconds that the client waits for a connection


class _StoryError(LabError):
    """The story did not go as it should have."""


def tell() -> int:
    """Tell the story; return 0 when it went as it should, else 1.

    Raises:
        LabError: the lab cannot be built on this machine, or something in the
            story did not happen.
    """
    enter_user_namespace()
    vpc = example()
    old, new = vpc.owner(vpc.subnets[0].subnet_id, b"\x0a\0\0\x0b"), vpc.enis[2]
    assert old is not None  # noqa: S101 - the example's own address.
    with _step("A broker, its clients and an EC2 endpoint, each in a network namespace") as done:
        lab = Lab(vpc, host=HOST)
        lab.__enter__()
    try:
        lab.quicken()
        with lab.tcp_service(PORT):
            with _step(f"{old.instance_id} at {ADDRESS} connects to the broker") as done:
                done.append(f"connected in {lab.connect(old.eni_id, BROKER, PORT) * 1000:.1f} ms")
            with _step(f"That instance is terminated; EC2 gives {ADDRESS} to {new.instance_id}"):
                lab.recycle(ADDRESS, new.eni_id)
                lab.wire = lab.wire.without_eni(old.eni_id)
                lab.endpoint.vpc = lab.metadata.vpc = lab.wire
            with relayed(lab, ADDRESS):
                _incident(lab, new.eni_id, format_mac(old.mac))
                _cure(lab, new.eni_id, format_mac(new.mac))
    finally:
        lab.__exit__(None, None, None)
    click.secho("\nAll of it happened in namespaces of this process, which are gone now.", dim=True)
    return 0


def _incident(lab: Lab, client: str, wrong: str) -> None:
    with _step("One old flow still works (a load balancer), so Linux keeps confirming") as done:
        _until(lab, lambda entry: entry == (wrong, "REACHABLE"), "the entry to be confirmed")
        done.append(f"the broker's table: {ADDRESS} lladdr {wrong} REACHABLE, which nobody has")
    asked = lab.requests(ADDRESS)
    with _step(f"The new owner of {ADDRESS} connects to the broker") as done:
        try:
            lab.connect(client, BROKER, PORT, timeout=PATIENCE, source=ADDRESS)
        except TimeoutError:
            done.append(f"timed out after {PATIENCE:.0f} s")
        else:
            raise _StoryError("the connection should have timed out, but it was made")
        # The kernel drops the request of a client that gave up only after a minute.
        if ADDRESS not in lab.broker.run(["ss", "-Hnt", "state", "syn-recv"]).stdout:
            raise _StoryError("the client's SYN should have reached the broker, but ss shows none")
        done.append("although its SYN arrived: the broker holds it in SYN-RECV")
        done.append(f"ARP requests for {ADDRESS} meanwhile: {lab.requests(ADDRESS) - asked}")


def _cure(lab: Lab, client: str, right: str) -> None:
    _command(lab, "plan", expected=2)
    _command(lab, "apply", expected=0)
    with _step("The new owner connects again") as done:
        seconds = lab.connect(client, BROKER, PORT, timeout=PATIENCE, source=ADDRESS)
        _until(lab, lambda entry: entry[0] == right, "the right MAC")
        done.append(f"connected in {seconds * 1000:.1f} ms; the table has {right}")


def _command(lab: Lab, command: str, *, expected: int) -> None:
    with _step(f"$ arp-reconciler {command}") as done:
        width = min(shutil.get_terminal_size().columns, 160) - 4
        ended = lab.run(
            ["env", f"COLUMNS={width}", sys.executable, "-m", "reconciler", command], timeout=30
        )
        done.extend(ended.stdout.rstrip().splitlines())
        if ended.returncode != expected:
            raise _StoryError(
                f"{command} exited {ended.returncode}, not {expected}: {ended.stderr.strip()}"
            )


def _until(lab: Lab, right: Callable[[tuple[str, str]], bool], what: str) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        entry = lab.neighbour(ADDRESS) or {}
        if right((entry.get("lladdr", ""), " ".join(entry.get("state", [])))):
            return
        time.sleep(0.05)
    raise _StoryError(f"waited 10 s for {what} of {ADDRESS}, in vain")


@contextmanager
def _step(title: str) -> Iterator[list[str]]:
    """Time a step; it may add lines to what is told."""
    lines: list[str] = []
    began = time.monotonic()
    try:
        yield lines
    except (OSError, subprocess.SubprocessError) as error:
        raise _StoryError(f"{title}: {error}") from error
    finally:
        seconds = time.monotonic() - began
        click.echo(
            f"\n{click.style(f'{seconds:7.3f} s', dim=True)}  {click.style(title, bold=True)}"
        )
        for line in lines:
            click.echo(f"    {line}")
