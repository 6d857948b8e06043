"""The rooms keep to themselves: imports, and the one place that writes."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "reconciler").rglob("*.py"))


def test_import_contracts() -> None:
    """boto3 stays under aws, pyroute2 under kernel, and the core imports neither, nor I/O."""
    done = subprocess.run(  # noqa: S603 - our own interpreter's linter.
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_one_module_sends_changes_to_the_kernel() -> None:
    """Only kernel/write.py names the messages that change a neighbour, besides their numbers."""
    named = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "RTM_DELNEIGH"
    }
    assert named == {"reconciler/kernel/write.py"}


def test_one_place_makes_a_transmitter() -> None:
    """The transmitter is made where the program is put together, for the writer alone."""
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "NetlinkTransmitter"
    }
    assert makers == {"reconciler/assembly.py"}
