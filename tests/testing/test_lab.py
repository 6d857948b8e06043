"""The lab behaves as a VPC does, keeps a wrong entry wrong, and leaves nothing behind."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.model import format_mac, pack_address
from reconciler.errors import LabError
from reconciler.testing import addle
from reconciler.testing.example import GONE_ADDRESS, GONE_MAC, HOST, POD_ADDRESS, example
from reconciler.testing.lab import Lab
from reconciler.testing.namespaces import Namespace
from reconciler.testing.vpc import Vpc, eni, subnet
from reconciler.testing.wire import ROUTER_MAC

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

BROKER = {4: "10.0.0.10", 6: "2001:db8:0:1::10"}
CLIENT = {4: "10.0.0.11", 6: "2001:db8:0:1::11"}
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
def lab(namespaces: None) -> Iterator[Lab]:
    """Run the example's lab."""
    del namespaces
    with Lab(example(), host=HOST) as running:
        yield running


@pytest.fixture
def port(lab: Lab) -> Iterator[int]:
    """Run a TCP service on the broker."""
    with lab.tcp_service() as number:
        yield number


def connect(lab: Lab, port: int, address: str, timeout: float = 2.0) -> float:
    """Connect from the address, wherever it lives now, to the broker."""
    broker = BROKER[6 if ":" in address else 4]
    return lab.connect(lab.owner(address).eni_id, broker, port, timeout, source=address)


def lladdr(lab: Lab, address: str, link: str = "eth0") -> str | None:
    """Return the MAC that the broker holds for the address."""
    entry = lab.neighbour(address, link)
    return None if entry is None else entry.get("lladdr")


def ask(namespace: Namespace, address: str) -> None:
    """Send one datagram, so that the kernel must resolve the address or its next hop."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"?", (address, 9))


def eventually(condition: Callable[[], bool], *, within: float = 5.0) -> bool:
    """Say whether the condition comes true within so many seconds."""
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


# ------------------------------------------------------------------- the wire


@FAMILIES
def test_a_client_connects_and_the_broker_learns_its_mac(lab: Lab, port: int, family: int) -> None:
    """With nothing wrong a connection works, after one question to the wire."""
    connect(lab, port, CLIENT[family])
    owner = lab.owner(CLIENT[family])
    assert (format_mac(owner.mac), 1) == (
        lladdr(lab, CLIENT[family]),
        lab.requests(CLIENT[family]),
    )


def test_the_service_echoes(lab: Lab, port: int) -> None:
    """The service returns what it was sent."""
    client = lab.client(lab.owner(CLIENT[4]).eni_id)
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect((BROKER[4], port))
        sock.sendall(b"hello")
        assert b"hello" == sock.recv(100)


@FAMILIES
def test_a_wrong_entry_cuts_off_new_connections(lab: Lab, port: int, family: int) -> None:
    """The client's SYN arrives, the answer goes to the wrong MAC, the connect times out."""
    lab.set_neighbour(CLIENT[family], GONE_MAC, nud="reachable")
    with pytest.raises(TimeoutError):
        connect(lab, port, CLIENT[family], 0.3)
    sockets = lab.broker.run(["ss", "-Htn", "state", "syn-recv"]).stdout
    assert CLIENT[family] in sockets
    lab.delete_neighbour(CLIENT[family])
    connect(lab, port, CLIENT[family])


@FAMILIES
def test_a_wrong_entry_heals_by_the_kernel_alone_when_nothing_confirms_it(
    lab: Lab, family: int
) -> None:
    """Unconfirmed, the entry reaches PROBE, and the wire's answer puts it right."""
    lab.quicken()
    lab.set_neighbour(CLIENT[family], GONE_MAC)
    ask(lab.broker, CLIENT[family])
    right = format_mac(lab.owner(CLIENT[family]).mac)
    assert eventually(lambda: lladdr(lab, CLIENT[family]) == right), lab.neighbours()
    assert lab.requests(CLIENT[family]) >= 1


@FAMILIES
def test_a_client_that_asks_heals_nothing(lab: Lab, family: int) -> None:
    """The responder answers the client's own request, and the broker never hears it."""
    client = lab.client(lab.owner(CLIENT[family]).eni_id)
    lab.set_neighbour(CLIENT[family], GONE_MAC)
    client.batch("ip", [f"neigh del {BROKER[family]} dev eth0"])
    ask(client, BROKER[family])
    assert eventually(lambda: lab.requests(BROKER[family]) == 1)
    right = format_mac(lab.broker_eni(home(lab)).mac)
    shown = ["ip", "neigh", "show", BROKER[family]]
    assert eventually(lambda: right in client.run(shown).stdout)
    assert format_mac(GONE_MAC) == lladdr(lab, CLIENT[family])


def home(lab: Lab) -> str:
    """Return the id of the example's subnet."""
    return lab.wire.subnets[0].subnet_id


@pytest.mark.parametrize("router", ["10.0.0.1", "2001:db8:0:1::1"])
def test_the_router_answers_with_a_mac_that_is_no_enis(lab: Lab, router: str) -> None:
    """The address base + 1 resolves to the router's own MAC; IPv6's says what it is."""
    ask(lab.broker, router)
    assert eventually(lambda: format_mac(ROUTER_MAC) == lladdr(lab, router))
    entry = lab.neighbour(router) or {}
    assert (["REACHABLE"], ":" in router) == (entry["state"], "router" in entry)
    assert ROUTER_MAC not in {eni.mac for eni in lab.wire.enis}


def test_packets_for_elsewhere_go_to_the_router(lab: Lab) -> None:
    """The broker's default route leads to base + 1."""
    ask(lab.broker, "198.51.100.1")
    assert eventually(lambda: format_mac(ROUTER_MAC) == lladdr(lab, "10.0.0.1"))


@pytest.mark.parametrize("address", [GONE_ADDRESS, "2001:db8:0:1::50"])
def test_nobody_answers_for_an_address_without_owner(lab: Lab, address: str) -> None:
    """A terminated address is asked for, and stays unresolved."""
    lab.quicken()
    ask(lab.broker, address)
    assert eventually(lambda: (lab.neighbour(address) or {}).get("state") == ["FAILED"])
    assert (None, 3) == (lladdr(lab, address), lab.requests(address))


def test_an_address_of_a_delegated_prefix_is_its_enis(lab: Lab, port: int) -> None:
    """A pod's address, in no list of addresses, resolves to its node's MAC."""
    node = lab.owner(POD_ADDRESS)
    lab.add_address(node.eni_id, POD_ADDRESS)
    connect(lab, port, POD_ADDRESS)
    assert format_mac(node.mac) == lladdr(lab, POD_ADDRESS)


@FAMILIES
def test_a_recycled_address_moves_and_the_broker_is_told_nothing(
    lab: Lab, port: int, family: int
) -> None:
    """The old entry stays, the new owner cannot connect, until the entry goes."""
    address = CLIENT[family]
    connect(lab, port, address)
    old = lab.owner(address)
    new = next(eni for eni in lab.wire.enis if eni.description == "client 3")
    lab.recycle(address, new.eni_id)
    assert (new.eni_id, new.eni_id) == (
        lab.owner(address).eni_id,
        owner_in(lab.endpoint.vpc, address),
    )
    assert format_mac(old.mac) == lladdr(lab, address)
    with pytest.raises(TimeoutError):
        connect(lab, port, address, 0.3)
    lab.delete_neighbour(address)
    connect(lab, port, address)
    assert format_mac(new.mac) == lladdr(lab, address)


def test_the_api_may_lag_the_wire(lab: Lab) -> None:
    """An unannounced move changes the wire and leaves the endpoint with the old owner."""
    old = lab.owner(CLIENT[4])
    lab.recycle(CLIENT[4], lab.owner("10.0.0.12").eni_id, announced=False)
    assert old.eni_id == owner_in(lab.endpoint.vpc, CLIENT[4])
    assert old.eni_id != lab.owner(CLIENT[4]).eni_id


def owner_in(vpc: Vpc, address: str) -> str | None:
    """Return the id of the ENI that owns the address in the example's subnet."""
    owner = vpc.owner(vpc.subnets[0].subnet_id, pack_address(address))
    return None if owner is None else owner.eni_id


def test_two_vpcs_with_the_same_range_share_a_host() -> None:
    """The same address is another client on either link, with its own MAC."""
    left = subnet(1, ("10.0.0.0/24",), vpc=1)
    right = subnet(2, ("10.0.0.0/24",), vpc=2)
    vpc = Vpc(
        (left, right),
        (
            eni(1, ("10.0.0.10",), subnet=left, instance=HOST),
            eni(2, ("10.0.0.20",), subnet=right, instance=HOST),
            eni(3, ("10.0.0.11",), subnet=left),
            eni(4, ("10.0.0.11",), subnet=right),
        ),
    )
    with Lab(vpc, host=HOST) as lab, lab.tcp_service() as port:
        lab.connect(vpc.enis[2].eni_id, "10.0.0.10", port)
        lab.connect(vpc.enis[3].eni_id, "10.0.0.20", port)
        assert ("02:00:00:00:00:03", "02:00:00:00:00:04") == (
            lladdr(lab, "10.0.0.11", "eth0"),
            lladdr(lab, "10.0.0.11", "eth1"),
        )


@pytest.mark.parametrize(
    ("nud", "options", "expected"),
    [
        ("permanent", "", {"state": ["PERMANENT"]}),
        ("noarp", "", {"state": ["NOARP"]}),
        ("reachable", "extern_learn", {"extern_learn": None}),
        ("stale", "router", {"router": None}),
        ("stale", "protocol zebra", {"protocol": "zebra"}),
    ],
)
def test_any_kind_of_entry_can_be_planted(
    lab: Lab, nud: str, options: str, expected: dict[str, Any]
) -> None:
    """State, flags and protocol arrive in the kernel as asked for."""
    lab.set_neighbour("10.0.0.99", GONE_MAC, nud=nud, options=options)
    entry = lab.neighbour("10.0.0.99") or {}
    assert expected == {name: entry.get(name, "absent") for name in expected}


# ---------------------------------------------------------------------- addling


def confirmed(lab: Lab, address: str) -> AbstractContextManager[object]:
    """Addle by MSG_CONFIRM."""
    return addle.confirmed(lab, address, every=0.1)


def relayed(lab: Lab, address: str) -> AbstractContextManager[object]:
    """Addle by a relayed flow."""
    return addle.relayed(lab, address, every=0.1)


@FAMILIES
@pytest.mark.parametrize("way", [confirmed, relayed])
def test_an_addled_entry_never_reaches_probe(
    lab: Lab, port: int, family: int, way: Callable[[Lab, str], AbstractContextManager[object]]
) -> None:
    """For several lifetimes it counts as reachable, nobody asks the wire, new connects die."""
    address = CLIENT[family]
    # Unconfirmed, it would leave REACHABLE after 0.45 s at most and be in PROBE 0.4 s later.
    lab.quicken(base_reachable=300, delay_probe=400)
    lab.set_neighbour(address, GONE_MAC)
    seen: list[tuple[str | None, str]] = []

    def look() -> str:
        entry = lab.neighbour(address) or {"state": ["ABSENT"]}
        state: str = entry["state"][0]
        seen.append((entry.get("lladdr"), state))
        return state

    with way(lab, address):
        assert eventually(lambda: look() == "REACHABLE"), seen
        assert not eventually(lambda: look() in {"PROBE", "FAILED", "ABSENT"}, within=2.0), seen
        with pytest.raises(TimeoutError):
            connect(lab, port, address, 0.3)
        assert {format_mac(GONE_MAC)} == {mac for mac, _ in seen}
        assert {state for _, state in seen} <= {"REACHABLE", "STALE", "DELAY"}
        assert 0 == lab.requests(address)


def test_the_relayed_flow_goes_on_through_the_cure(lab: Lab, port: int) -> None:
    """The one flow works while the entry is wrong, and when it is right again."""
    lab.set_neighbour(CLIENT[4], GONE_MAC, nud="reachable")
    with addle.relayed(lab, CLIENT[4], every=0.05) as flow:
        assert eventually(lambda: flow.echoed >= 5)
        lab.delete_neighbour(CLIENT[4])
        connect(lab, port, CLIENT[4])
        before = flow.echoed
        assert eventually(lambda: flow.echoed >= before + 5)


# -------------------------------------------------------------- programs inside

ASK_EC2 = """
import json, os, boto3, urllib.request
ec2 = boto3.client("ec2", region_name=os.environ["AWS_REGION"])
enis = ec2.describe_network_interfaces(MaxResults=100)["NetworkInterfaces"]
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"].rstrip("/") + "/latest/"
def get(path, method, **headers):
    request = urllib.request.Request(base + path, method=method, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
        return reply.read().decode()
token = get("api/token", "PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
who = get("meta-data/instance-id", "GET", **{"X-aws-ec2-metadata-token": token})
print(json.dumps([len(enis), who]))
"""


def test_a_program_in_the_brokers_namespace_sees_the_labs_ec2(lab: Lab) -> None:
    """Under the lab's environment the real SDK and metadata speak of the description."""
    done = lab.run([sys.executable, "-c", ASK_EC2])
    assert ("", [6, HOST]) == (done.stderr, json.loads(done.stdout))


# ----------------------------------------------------------- nothing left behind


def descriptors() -> int:
    """Count this process' open descriptors."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would not be shorter.


def tether(namespace: Namespace, to: Namespace, name: str) -> None:
    """Plug a link into a watcher's namespace: it vanishes when the namespace does."""
    line = f"link add {name} type veth peer name {name} netns {to.path}"
    namespace.batch("ip", [line], pass_fds=(to.fd,))


def tethers(watcher: Namespace) -> int:
    """Count what is still plugged in."""
    return len(watcher.run(["ip", "-o", "link", "show", "type", "veth"]).stdout.splitlines())


def test_a_stopped_lab_leaves_nothing() -> None:
    """No thread, descriptor, child or namespace survives the ``with`` block."""
    with Namespace() as watcher:
        before = (descriptors(), threading.active_count())
        with Lab(example(), host=HOST) as lab, lab.tcp_service() as port:
            inside = all_namespaces(lab)
            for number, namespace in enumerate(inside):
                tether(namespace, watcher, f"t{number}")
            lab.set_neighbour("10.0.0.12", GONE_MAC)
            child = lab.popen(["sleep", "60"])
            with ExitStack() as stack:
                stack.enter_context(addle.confirmed(lab, "10.0.0.12"))
                stack.enter_context(addle.relayed(lab, "10.0.0.12"))
                connect(lab, port, CLIENT[4])
                assert len(inside) == tethers(watcher)
        assert before == (descriptors(), threading.active_count())
        assert child.returncode is not None
        assert eventually(lambda: tethers(watcher) == 0, within=2.0)


def all_namespaces(lab: Lab) -> list[Namespace]:
    """Return the broker's, the wire's and the clients' namespaces."""
    clients = [e.eni_id for e in lab.wire.enis if e.instance_id != HOST]
    return [lab.broker, lab.switch.namespace, *(lab.client(eni_id) for eni_id in clients)]


TETHERED_LAB = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_lab import *
watcher = Namespace.__new__(Namespace)
watcher.fd = int(sys.argv[1])
with Lab(example(), host=HOST) as lab, lab.tcp_service() as port:
    for number, namespace in enumerate(all_namespaces(lab)):
        tether(namespace, watcher, f"t{number}")
    lab.set_neighbour("10.0.0.12", GONE_MAC)
    lab.popen(["sleep", "60"])
    with addle.relayed(lab, "10.0.0.12"), addle.confirmed(lab, "10.0.0.12"):
        connect(lab, port, CLIENT[4])
        print("up", flush=True)
        time.sleep(60)
"""


def test_a_lab_dies_with_its_process_also_of_sigkill() -> None:
    """Every namespace is gone within two seconds, with flows and children running in them."""
    here = str(Path(__file__).parent)
    with Namespace() as watcher:
        argv = [sys.executable, "-c", TETHERED_LAB, str(watcher.fd), here]
        with subprocess.Popen(  # noqa: S603 - our own interpreter.
            argv, stdout=subprocess.PIPE, text=True, pass_fds=(watcher.fd,)
        ) as maker:
            assert maker.stdout is not None
            assert "up\n" == maker.stdout.readline()
            assert 7 == tethers(watcher)
            maker.kill()
        assert eventually(lambda: tethers(watcher) == 0, within=2.0)


UNPRIVILEGED_LAB = """
import contextlib, ctypes, os
from reconciler.testing.example import GONE_MAC, HOST, example
from reconciler.testing.lab import Lab
from reconciler.testing.namespaces import enter_user_namespace
# Refused where the tests themselves run without root, in their own user namespace.
with contextlib.suppress(PermissionError):
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    # A process that changed its uid may not write its own uid_map until it is dumpable again.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
enter_user_namespace()
with Lab(example(), host=HOST) as lab, lab.tcp_service() as port:
    client = lab.owner("10.0.0.11").eni_id
    lab.connect(client, "10.0.0.10", port)
    lab.set_neighbour("10.0.0.11", GONE_MAC)
    lab.quicken()
    try:
        lab.connect(client, "10.0.0.10", port, 0.3)
    except TimeoutError:
        print("timed out")
"""


def test_a_lab_runs_without_root_in_a_user_namespace() -> None:
    """As uid 65534 the same lab comes up, connects, and shows a wrong entry."""
    argv = [sys.executable, "-W", "error", "-c", UNPRIVILEGED_LAB]
    done = subprocess.run(  # noqa: S603 - our own interpreter.
        argv, capture_output=True, text=True, timeout=60, check=False
    )
    assert ("", "timed out\n", 0) == (done.stderr, done.stdout, done.returncode)


# ------------------------------------------------------------------ wrong uses


def test_a_host_without_eni_is_refused() -> None:
    """A lab of an instance that the description does not know names it."""
    with pytest.raises(LabError, match="i-unknown"):
        Lab(example(), host="i-unknown")


def test_an_eni_without_namespace_is_named(namespaces: None) -> None:
    """Where only some clients were asked for, using another one says so."""
    del namespaces
    vpc = example()
    with Lab(vpc, host=HOST, clients=()) as lab, pytest.raises(LabError, match="clients"):
        lab.connect(vpc.enis[1].eni_id, BROKER[4], 1)


def test_an_address_without_owner_is_named(lab: Lab) -> None:
    """Asking for the owner of nobody's address is an error, not None."""
    with pytest.raises(LabError, match=GONE_ADDRESS):
        lab.owner(GONE_ADDRESS)
