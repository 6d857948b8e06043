"""The rooms keep to themselves: imports, and the one place that writes."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {
    path.relative_to(ROOT / "reconciler").as_posix(): ast.parse(path.read_text())
    for path in sorted((ROOT / "reconciler").rglob("*.py"))
}


def where(matches: Callable[[ast.AST], bool]) -> set[str]:
    """Return the files that hold a node of which this is true."""
    return {name for name, tree in SOURCES.items() if any(map(matches, ast.walk(tree)))}


def names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node uses or imports; defining one is not using it."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name) | ast.alias(name=name):
            yield name


def test_import_contracts() -> None:
    """boto3 stays under aws, pyroute2 under kernel, and no room knows those above it."""
    done = subprocess.run(  # noqa: S603 - our own interpreter's linter.
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_one_module_sends_changes_to_the_kernel() -> None:
    """Only kernel/write.py uses the message that deletes; one that reads may expect the other."""
    deletes = where(lambda node: "RTM_DELNEIGH" in names(node))
    changes = where(lambda node: "RTM_NEWNEIGH" in names(node))
    assert deletes == {"kernel/write.py"}
    assert changes == {"kernel/read.py", "kernel/write.py"}


def test_the_reader_names_a_change_only_as_an_answer() -> None:
    """kernel/read.py asks with the messages that get, and with no other."""
    asked = {
        ast.unparse(call.args[0])
        for call in ast.walk(SOURCES["kernel/read.py"])
        if isinstance(call, ast.Call)
        and call.args
        and ast.unparse(call.args[0]).startswith("netlink.RTM_")
    }
    assert "netlink.RTM_GETNEIGH" in asked
    assert {kind for kind in asked if "RTM_GET" not in kind} == set()


def test_one_place_makes_a_transmitter() -> None:
    """The transmitter is made where the program is put together, which itself only closes it."""
    assert where(lambda node: "NetlinkTransmitter" in names(node)) == {"assembly.py"}
    uses = {
        node.attr
        for node in ast.walk(SOURCES["assembly.py"])
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self._transmitter"
    }
    assert uses == {"close"}


def test_one_class_holds_a_transmitter() -> None:
    """Nothing but the writer asks for a transmitter."""
    holders = {
        (name, made.name)
        for name, tree in SOURCES.items()
        for made in ast.walk(tree)
        if isinstance(made, ast.ClassDef)
        for node in ast.walk(made)
        if isinstance(node, ast.arg | ast.AnnAssign)
        and node.annotation is not None
        and "Transmitter" in ast.unparse(node.annotation)
    }
    assert holders == {("kernel/write.py", "Writer")}


def test_the_product_opens_netlink_in_one_module() -> None:
    """No module besides kernel/netlink.py makes a netlink socket of its own."""
    assert where(lambda node: "AF_NETLINK" in names(node)) == {"kernel/netlink.py"}
