"""Record the kernel's answers about the fuzz tests' host.

Run ``PYTHONPATH=tests python -m fuzz.record`` as root after a change of the
world; it writes ``recording.txt`` anew. It was recorded on Linux 6.18.
"""

from collections.abc import Iterator
from pathlib import Path

from fuzz.recorded import RECORDING, Answers, Question, reader
from fuzz.world import US, VPC

from reconciler.core.model import format_mac
from reconciler.kernel.netlink import NetlinkSocket
from reconciler.testing.namespaces import Namespace


class RecordingSocket(NetlinkSocket):
    """Asks the kernel, and keeps every datagram by the question."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: Answers = {}
        self._question: Question = (0, b"")

    def _ask(self, ask: int, flags: int, body: bytes, *rest: object) -> object:  # type: ignore[override]
        self._question = (ask, body)
        self.answers[self._question] = []
        return super()._ask(ask, flags, body, *rest)  # type: ignore[arg-type]

    def _datagrams(self, sock: object) -> Iterator[bytes]:
        for datagram in super()._datagrams(sock):  # type: ignore[arg-type]
            self.answers[self._question].append(datagram)
            yield datagram


def record() -> Answers:
    """Build the world's host in a namespace and keep what the kernel says of it."""
    right = {e.eni_id: format_mac(e.mac) for e in VPC.enis}
    own = [format_mac(e.mac) for e in VPC.enis if e.instance_id == US]
    wrong = "02:00:00:00:0f:{:02x}"
    five, six, nine = (right[f"eni-{n:017x}"] for n in (5, 6, 9))
    entries = [
        "10.0.0.1 lladdr 02:ff:ff:ff:ff:01 dev eth0 nud reachable",
        f"10.0.0.30 lladdr {five} dev eth0 nud reachable",
        f"10.0.0.31 lladdr {wrong.format(1)} dev eth0 nud reachable",
        f"10.0.0.32 lladdr {wrong.format(2)} dev eth0 nud stale",
        f"10.0.0.33 lladdr {wrong.format(3)} dev eth0 nud permanent",
        f"10.0.0.34 lladdr {wrong.format(4)} dev eth0 nud noarp",
        f"10.0.0.35 lladdr {wrong.format(5)} dev eth0 nud stale extern_learn",
        f"10.0.0.36 lladdr {wrong.format(6)} dev eth0 nud reachable managed proto 42",
        f"10.0.0.37 lladdr {wrong.format(7)} dev eth0 nud stale router",
        f"10.0.0.38 lladdr {six} dev eth0 nud stale",
        "10.0.0.39 dev eth0 use",
        f"10.0.0.40 lladdr {wrong.format(10)} dev eth0 nud stale",
        f"10.0.0.41 lladdr {wrong.format(11)} dev eth0 nud stale",
        f"10.0.0.42 lladdr {wrong.format(12)} dev eth0 nud stale",
        f"10.0.0.43 lladdr {wrong.format(13)} dev eth0 nud stale",
        f"10.0.0.44 lladdr {wrong.format(14)} dev eth0 nud stale",
        f"10.0.0.60 lladdr {wrong.format(15)} dev eth0 nud stale",
        f"10.0.0.10 lladdr {wrong.format(16)} dev eth1 nud stale",
        f"10.0.0.30 lladdr {nine} dev eth1 nud reachable",
        f"10.0.0.31 lladdr {wrong.format(17)} dev eth1 nud reachable",
        f"10.0.0.32 lladdr {wrong.format(18)} dev eth1 nud stale proto 17",
        f"10.0.0.31 lladdr {wrong.format(19)} dev mac0 nud stale",
        f"10.0.0.31 lladdr {wrong.format(20)} dev port0 nud stale",
        f"10.0.0.31 lladdr {wrong.format(21)} dev pod0 nud stale",
        f"2001:db8::30 lladdr {five} dev eth0 nud reachable",
        f"2001:db8::31 lladdr {wrong.format(22)} dev eth0 nud stale",
        f"2001:db8::32 lladdr {wrong.format(23)} dev eth0 nud reachable proto 17",
        f"2001:db8::33 lladdr {wrong.format(24)} dev eth0 nud noarp",
        f"2001:db8::34 lladdr {wrong.format(25)} dev eth0 nud stale router",
        f"2001:db8::35 lladdr {wrong.format(26)} dev eth0 nud stale",
        f"fe80::99 lladdr {wrong.format(27)} dev eth0 nud stale",
    ]
    with Namespace() as namespace, Namespace() as peer:
        hop = "nexthop via 10.0.0.{} dev eth0"
        far = "type veth peer name {} netns " + peer.path
        namespace.batch(
            "ip",
            [
                f"link add eth0 index 2 address {own[0]} {far.format('p0')}",
                f"link add eth1 index 3 address {own[1]} {far.format('p1')}",
                f"link add mac0 index 4 link eth0 address {own[2]} type macvlan",
                f"link add port0 index 5 address {own[3]} {far.format('p2')}",
                f"link add pod0 index 6 address 02:aa:00:00:00:01 {far.format('p3')}",
                "link add br0 index 7 address 02:aa:00:00:00:02 type bridge",
                "link set port0 master br0",
            ],
            pass_fds=[peer.fd],
        )
        peer.batch("ip", [f"link set p{number} addrgenmode none up" for number in range(4)])
        with namespace.entered():
            # Routes over nexthop objects then name no gateway of their own.
            Path("/proc/sys/net/ipv4/nexthop_compat_mode").write_text("0", encoding="ascii")
        namespace.batch(
            "ip",
            [
                "link set lo up",
                *(
                    f"link set {name} addrgenmode none up"
                    for name in ("eth0", "eth1", "mac0", "port0", "pod0", "br0")
                ),
                "addr add 10.0.0.10/24 dev eth0",
                "addr add 2001:db8::10/64 dev eth0 nodad",
                "addr add 10.0.0.12/24 dev eth1",
                "addr add 192.0.2.1 peer 192.0.2.2/32 dev pod0",
                "route add default via 10.0.0.1 dev eth0",
                "route add default via 10.0.0.41 dev eth0 metric 7 table 7",
                "nexthop add id 7 via 10.0.0.42 dev eth0",
                "nexthop add id 8 via 10.0.0.43 dev eth0",
                "nexthop add id 9 group 7/8",
                "route add 203.0.113.0/24 nhid 9",
                *(f"route add 198.51.100.{number} via 10.0.0.40 dev eth0" for number in range(4)),
                f"route add 198.51.101.0/24 {hop.format(40)} {hop.format(44)}",
                "route add 2001:db8:1::/64 via 2001:db8::35 dev eth0",
                *(f"neigh add {entry}" for entry in entries),
            ],
        )
        with namespace.entered():
            socket = RecordingSocket()
            recorder = reader(socket)
            try:
                entry = recorder.table().neighbours[0]
                recorder.neighbour(entry.key)
                recorder.ucast_solicit(entry.ifindex)
            finally:
                recorder.close()
    return socket.answers


def main() -> None:
    """Write the recording."""
    lines = [
        f"{ask} {body.hex()} {datagram.hex()}\n"
        for (ask, body), datagrams in record().items()
        for datagram in datagrams
    ]
    RECORDING.write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
