"""A broker with one of everything, and the three commands on it, all in one process."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from reconciler import commands
from reconciler.assembly import Assembly
from reconciler.core.memory import Memory
from reconciler.loop import Loop
from reconciler.report.document import document
from reconciler.settings import AuthoritySettings, Settings
from reconciler.testing.example import GONE_ADDRESS, GONE_MAC, POD_ADDRESS
from reconciler.testing.lab import Lab

WRONG = bytes.fromhex("020000000099")
VICTIM, RIGHT, SERVICE = "10.0.0.11", "10.0.0.12", "10.0.0.40"
SETTINGS = Settings(authority=AuthoritySettings(interval=5.0, jitter=0.0))
# Short, so that a fault that is tried again is not tried for long.
ASSEMBLY = partial(Assembly, deadline=0.3, read_timeout=0.5)


@dataclass
class Place:
    """The lab, and the broker's table as it was planted: one of everything.

    Right entries of a client, of a pod inside a delegated prefix, and of a load
    balancer; one mismatch; one orphan.
    """

    lab: Lab

    def plant(self) -> None:
        """Fill the broker's table."""
        for address in (RIGHT, POD_ADDRESS, SERVICE):
            self.lab.set_neighbour(address, self.lab.owner(address).mac)
        self.lab.set_neighbour(VICTIM, WRONG)
        self.lab.set_neighbour(GONE_ADDRESS, GONE_MAC)

    def macs(self) -> dict[str, str]:
        """Return the MAC of every IPv4 entry on eth0."""
        return {
            entry["dst"]: entry.get("lladdr", "")
            for entry in self.lab.neighbours()
            if entry["dev"] == "eth0" and ":" not in entry["dst"]
        }

    def mac(self, address: str) -> str:
        """Return an address' MAC, empty if there is none."""
        return self.macs().get(address, "")

    def healed(self) -> bool:
        """Say whether the mismatch has its owner's MAC, and the orphan is gone."""
        right = self.lab.owner(VICTIM).mac.hex(":")
        return self.mac(VICTIM) == right and not self.mac(GONE_ADDRESS)

    @contextmanager
    def events(self) -> Iterator[list[str]]:
        """Collect what the kernel announced of its neighbours meanwhile."""
        lines: list[str] = []
        monitor = self.lab.popen(["ip", "monitor", "neigh"], stdout=-1)
        time.sleep(0.05)
        try:
            yield lines
        finally:
            time.sleep(0.05)
            monitor.terminate()
            lines += monitor.communicate()[0].splitlines()

    def plan(self) -> tuple[int, dict[str, Any]]:
        """Run ``plan``; return its exit code and its document."""
        with self.lab.broker.entered():
            result = commands.plan(SETTINGS)
        return result.exit_code, json.loads(json.dumps(document(result)))

    def apply(self) -> tuple[int, dict[str, Any]]:
        """Run ``apply``; return its exit code and its document."""
        with self.lab.broker.entered(), commands.Interrupts() as interrupts:
            result = commands.apply(SETTINGS, dry_run=False, force=False, interrupts=interrupts)
        return result.exit_code, json.loads(json.dumps(document(result)))

    @contextmanager
    def daemon(self) -> Iterator[Loop]:
        """Give the daemon's loop, to be turned by hand."""
        with self.lab.broker.entered(), ASSEMBLY() as assembly:
            memory = Memory()
            yield Loop(
                lambda: SETTINGS,
                lambda settings: assembly.make_pass(settings, dry_run=False, memory=memory),
                wait=lambda _: None,
            )


def adopt(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process see the lab's EC2, and try it impatiently."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(commands, "Assembly", ASSEMBLY)
