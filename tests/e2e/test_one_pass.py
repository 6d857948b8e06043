"""One pass from end to end: the real kernel, the real SDK, the real commands."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Command

from reconciler.core.model import pack_mac
from reconciler.testing.addle import confirmed, relayed
from reconciler.testing.example import GONE_ADDRESS, GONE_MAC, POD_ADDRESS
from reconciler.testing.lab import Lab

WRONG = pack_mac("02:00:00:00:00:99")


def fingerprint(lab: Lab) -> dict[Any, Any]:
    """Return what may not change by itself: MAC, flags and protocol of every entry."""
    volatile = {"used", "confirmed", "updated", "probes", "refcnt", "state"}
    return {
        (entry["dst"], entry["dev"]): {k: v for k, v in entry.items() if k not in volatile}
        for entry in lab.neighbours()
        if entry["dev"] != "lo"
    }


def test_a_quiet_table_is_in_sync(lab: Lab, command: Command) -> None:
    """Right entries give exit 0, and plan names the reading it rests on."""
    lab.set_neighbour("10.0.0.11", lab.owner("10.0.0.11").mac)
    answer = command("plan")
    assert (answer.code, answer.document["result"]) == (0, "in_sync")
    assert answer.document["counts"]["match"] == 1
    assert answer.document["authority"]["complete"]
    assert [link["name"] for link in answer.document["links"]] == ["eth0"]


def test_an_addled_ipv4_neighbour_is_healed(lab: Lab, command: Command) -> None:
    """An entry that a relayed flow keeps confirming is seen, healed, and a client connects."""
    new, old = "eni-00000000000000003", lab.owner("10.0.0.11").mac
    with lab.tcp_service(1883):
        lab.connect(lab.owner("10.0.0.11").eni_id, "10.0.0.10", 1883)
        lab.recycle("10.0.0.11", new)
        with relayed(lab, "10.0.0.11"):
            asked = lab.requests("10.0.0.11")
            with pytest.raises(TimeoutError):
                lab.connect(new, "10.0.0.10", 1883, timeout=1.5, source="10.0.0.11")
            plan = command("plan")
            finding = plan.finding("10.0.0.11")
            assert (plan.code, finding["verdict"], finding["action"]) == (2, "mismatch", "delete")
            assert (finding["mac"], finding["expected_mac"]) == (
                old.hex(":"),
                lab.owner("10.0.0.11").mac.hex(":"),
            )
            assert finding["owner"]["eni_id"] == new
            assert lab.requests("10.0.0.11") == asked
            applied = command("apply")
            assert (applied.code, applied.document["result"]) == (0, "repaired")
            assert applied.finding("10.0.0.11")["outcome"] == "healed"
            lab.connect(new, "10.0.0.10", 1883, source="10.0.0.11")
    assert (lab.neighbour("10.0.0.11") or {})["lladdr"] == lab.owner("10.0.0.11").mac.hex(":")


def test_an_addled_ipv6_neighbour_is_healed(lab: Lab, command: Command) -> None:
    """An IPv6 entry that MSG_CONFIRM keeps REACHABLE is healed."""
    address = "2001:db8:0:1::11"
    lab.set_neighbour(address, WRONG)
    with confirmed(lab, address):
        deadline = time.monotonic() + 5
        while (lab.neighbour(address) or {})["state"] != ["REACHABLE"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        asked = lab.requests(address)
        assert command("plan").finding(address)["nud"] == "REACHABLE"
        assert lab.requests(address) == asked
        answer = command("apply")
    assert (answer.code, answer.finding(address)["outcome"]) == (0, "healed")
    assert (lab.neighbour(address) or {})["lladdr"] == lab.owner(address).mac.hex(":")


def test_an_orphan_goes(lab: Lab, command: Command) -> None:
    """The entry of a terminated instance is removed."""
    lab.set_neighbour(GONE_ADDRESS, GONE_MAC)
    answer = command("apply")
    assert (answer.code, answer.finding(GONE_ADDRESS)["outcome"]) == (0, "gone")
    assert lab.neighbour(GONE_ADDRESS) is None


def test_a_delegated_prefix_owns_its_addresses(lab: Lab, command: Command) -> None:
    """A pod's address matches its node's MAC, and with another one is healed."""
    node = lab.owner(POD_ADDRESS)
    lab.add_address(node.eni_id, POD_ADDRESS)
    lab.set_neighbour(POD_ADDRESS, node.mac)
    assert command("plan", "--all").finding(POD_ADDRESS)["verdict"] == "match"
    lab.set_neighbour(POD_ADDRESS, WRONG)
    answer = command("apply")
    assert (answer.code, answer.finding(POD_ADDRESS)["outcome"]) == (0, "healed")


def test_what_must_never_be_touched(lab: Lab, command: Command) -> None:
    """Every protected and unmanaged kind of entry survives an apply, bit for bit, unwritten."""
    lab.broker.batch(
        "ip",
        [
            "link add docker0 address 02:42:00:00:00:01 type bridge",
            "addr add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
            "route add 10.99.0.0/16 via 10.0.0.60",
        ],
    )
    planted = {
        "10.0.0.1": "",  # the router
        "10.0.0.2": "",  # DNS
        "10.0.0.255": "",  # the last address
        "10.0.0.60": "",  # a next hop that nobody owns
        "169.254.169.254": "",
        "fe80::99": "",
        "10.0.0.61": "nud permanent",
        "10.0.0.62": "extern_learn",
        "10.0.0.63": "protocol zebra extern_learn",
        "2001:db8:0:1::64": "router",
        "10.77.0.9": "",  # outside the subnet
    }
    for address, options in planted.items():
        lab.set_neighbour(address, WRONG, options=options)
    lab.set_neighbour("172.17.0.5", WRONG, link="docker0")
    # Unlisted: nobody owns the address, but the MAC is a live ENI's.
    lab.set_neighbour("10.0.0.70", lab.owner("10.0.0.12").mac)
    lab.set_neighbour(GONE_ADDRESS, GONE_MAC)  # so that there is something to do
    monitor = lab.popen(["ip", "monitor", "neigh"], stdout=-1)
    time.sleep(0.2)
    before = fingerprint(lab)
    answer = command("apply", "--all")
    time.sleep(0.2)
    monitor.terminate()
    events, _ = monitor.communicate()
    after = fingerprint(lab)
    kept = {key: entry for key, entry in before.items() if key[0] != GONE_ADDRESS}
    assert kept == after
    assert answer.code == 0
    assert GONE_ADDRESS in events
    for address in [*planted, "172.17.0.5", "10.0.0.70"]:
        assert f"{address} " not in events
    verdicts = {f["address"]: (f["verdict"], f["rule"]) for f in answer.document["findings"]}
    assert verdicts["10.0.0.1"] == ("protected", "reserved-address")
    assert verdicts["10.0.0.60"] == ("protected", "next-hop")
    assert verdicts["10.0.0.61"] == ("protected", "state-permanent")
    assert verdicts["10.0.0.62"] == ("protected", "flag-ext-learned")
    assert verdicts["2001:db8:0:1::64"] == ("protected", "flag-router")
    assert verdicts["172.17.0.5"] == ("unmanaged", "link")
    assert verdicts["10.0.0.70"] == ("unlisted", "mac-is-live")
    assert verdicts["10.77.0.9"] == ("unmanaged", "outside-subnet")


def test_dry_run_and_observe_change_nothing(lab: Lab, command: Command) -> None:
    """A dry run and mode observe tell the same as apply, skip every change, and exit 2."""
    lab.set_neighbour("10.0.0.11", WRONG)
    before = fingerprint(lab)
    for words in (["--dry-run"], ["--mode", "observe"]):
        answer = command("apply", *words)
        assert (answer.code, answer.finding("10.0.0.11")["outcome"]) == (2, "skipped")
    assert fingerprint(lab) == before


def test_a_hold_file_refuses(lab: Lab, command: Command, tmp_path: Path) -> None:
    """While the hold file exists plan and apply exit 3, the findings filled, nothing changed."""
    hold, config = tmp_path / "hold", tmp_path / "config.toml"
    hold.touch()
    config.write_text(f'[guard]\nhold_file = "{hold}"\n')
    lab.set_neighbour("10.0.0.11", WRONG)
    before = fingerprint(lab)
    for words in ("plan", "apply"):
        answer = command(words, "--config", str(config))
        assert (answer.code, answer.document["refusal"]["guard"]) == (3, "hold")
        assert answer.finding("10.0.0.11")["action"] == "delete"
    assert fingerprint(lab) == before


def test_too_many_wrong_entries_are_refused(lab: Lab, command: Command) -> None:
    """A table that is mostly wrong is refused, left alone, and repaired with --force."""
    lab.set_neighbour("10.0.0.12", lab.owner("10.0.0.12").mac)
    addresses = [f"10.0.0.{n}" for n in range(100, 112)]
    for address in addresses:
        lab.set_neighbour(address, WRONG, nud="reachable")
    before = fingerprint(lab)
    answer = command("apply")
    refusal = answer.document["refusal"]
    assert (answer.code, refusal["guard"]) == (3, "ratio")
    assert refusal["setting"] == "guard.max_change_ratio"
    assert "--force" in refusal["message"]
    assert fingerprint(lab) == before
    assert command("apply", "--force").code == 0
    assert {key[0] for key in fingerprint(lab)}.isdisjoint(addresses)


def test_the_pace_leaves_the_rest_for_later(lab: Lab, command: Command) -> None:
    """Beyond max_changes entries are pending, and the exit code says that some are left."""
    for n in range(100, 104):
        lab.set_neighbour(f"10.0.0.{n}", WRONG)
    answer = command("apply", "--max-changes", "3")
    assert (answer.code, answer.document["result"]) == (2, "drift")
    assert [f["rule"] for f in answer.document["findings"]].count("paced") == 1


def test_missing_capability(lab: Lab) -> None:
    """Without CAP_NET_ADMIN apply exits 1 before the first write; plan works all the same."""
    lab.set_neighbour("10.0.0.11", WRONG)
    before = fingerprint(lab)
    drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    argv = [*drop, sys.executable, "-m", "reconciler"]
    ended = lab.run([*argv, "apply"])
    assert ended.returncode == 1
    assert "CAP_NET_ADMIN" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert lab.run([*argv, "plan"]).returncode == 2
    assert fingerprint(lab) == before


def test_explain_tells_the_rule_and_the_owner(lab: Lab, command: Command) -> None:
    """Explain gives the entry, its owner and the rule; an absent address gives its owner alone."""
    lab.set_neighbour("10.0.0.11", WRONG)
    told = command("explain", "10.0.0.11").document
    assert told["entries"][0]["rule"] == "owner-has-other-mac"
    assert told["owners"][0]["live"][0]["instance_id"] == "i-0c000000000000002"
    absent = command("explain", "10.0.0.13").document
    assert (absent["entries"], len(absent["owners"][0]["live"])) == ([], 1)


def test_the_daemon_heals_and_leaves_on_sigterm(lab: Lab) -> None:
    """The daemon heals a mismatch, refuses a second one beside it, and exits 0 on SIGTERM."""
    lab.set_neighbour("10.0.0.11", WRONG)
    argv = [sys.executable, "-m", "reconciler", "run", "--interval", "5s"]
    daemon = lab.popen(argv, stderr=-1)
    deadline = time.monotonic() + 10
    while (lab.neighbour("10.0.0.11") or {}).get("lladdr") != lab.owner("10.0.0.11").mac.hex(":"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = lab.run(argv)
    assert second.returncode == 1
    assert "another arp-reconciler already runs" in second.stderr
    daemon.send_signal(signal.SIGTERM)
    _, log = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert '"event": "repair"' in log
    assert "Traceback" not in log
