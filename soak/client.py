"""What runs in a client's namespace, and the subscriber: MQTT sessions that keep a record.

A process of its own, so that neither the lab nor the other clients can delay it::

    python -m soak.client publish RATE BROKER...   # a session for each address on stdin
    python -m soak.client listen BROKER            # everything, from one session

Both write a line for each session that is open, end at ``stop`` or at the end of
stdin, and then write one line of JSON. No session is ever opened anew: one that
ends by itself was dropped. Times are seconds of CLOCK_MONOTONIC, which all
processes of a machine share.
"""

import json
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from soak.place import PORT

PATIENCE = 60.0  # seconds to get a connection; incidents and faults of EC2 are shorter.
KEEP_ALIVE = 60  # seconds; half as long again without a word, and mosquitto hangs up.
DRAIN = 15.0  # seconds for the last acknowledgements to come in.
QUIET = 0.5  # seconds without a message after which the subscriber has them all.


class Session:
    """One MQTT session. ``dropped`` says why it ended, if it ended by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped: str | None = None
        self._closing = False
        self._connected = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=name, reconnect_on_failure=False
        )
        self._client.max_inflight_messages_set(0)
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_disconnect = self._ended

    def open(self, broker: str, source: str, stopped: Callable[[], bool]) -> bool:
        """Connect from the address, trying on for ``PATIENCE`` or until told to stop."""
        deadline = time.monotonic() + PATIENCE
        while not stopped() and time.monotonic() < deadline:
            try:
                self._client.connect(broker, PORT, KEEP_ALIVE, bind_address=source)
            except OSError:
                # The broker's answer goes astray, or the address is not ours yet.
                time.sleep(0.05)
                continue
            self._client.loop_start()
            return self._connected.wait(DRAIN)
        return False

    def close(self) -> None:
        """Say goodbye."""
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()

    def _ended(self, _client: Client, _data: object, _flags: object, why: Any, *_: object) -> None:
        if not self._closing:
            self.dropped = str(why)


class Publisher(Session):
    """Publishes at a steady rate from one address, and notes when each was acknowledged."""

    def __init__(self, address: str, broker: str, rate: float, stop: threading.Event) -> None:
        super().__init__(f"soak/{address}")
        self._address = address
        self._broker = broker
        self._every = 1 / rate
        self._stop = stop
        self._sent: list[tuple[int, float]] = []
        # Message ids are used anew after 65,535; each is acknowledged in its turn.
        self._acknowledged: defaultdict[int, deque[float]] = defaultdict(deque)
        self._count = 0
        self._late = 0.0
        self._client.on_publish = self._on_publish
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def record(self) -> dict[str, Any]:
        """Wait for the end and tell everything: [sent, acknowledged or null] of each message."""
        self._thread.join()
        messages = []
        for mid, sent in self._sent:
            acknowledged = self._acknowledged[mid]
            messages.append((sent, acknowledged.popleft() if acknowledged else None))
        return {
            "address": self._address,
            "topic": self.name,
            "messages": messages,
            "dropped": self.dropped,
            "late": self._late,
        }

    def _run(self) -> None:
        if not self.open(self._broker, self._address, self._stop.is_set):
            self.dropped = "never connected"
        _tell(f"{self._address}: {self.dropped or 'connected'}")
        due = time.monotonic()
        while self.dropped is None and not self._stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            self._late = max(self._late, now - due)
            info = self._client.publish(self.name, str(len(self._sent)), qos=1)
            self._sent.append((info.mid, now))
            due += self._every
        deadline = time.monotonic() + DRAIN
        while (
            self.dropped is None and self._count < len(self._sent) and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        self.close()

    def _on_publish(self, _client: Client, _data: object, mid: int, *_: object) -> None:
        self._acknowledged[mid].append(time.monotonic())
        self._count += 1


class Listener(Session):
    """Subscribes to everything and notes what was delivered."""

    def __init__(self, broker: str) -> None:
        super().__init__("listener")
        self._topics: defaultdict[str, list[int]] = defaultdict(list)
        self._heard = time.monotonic()
        self._subscribed = threading.Event()
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        if self.open(broker, "", lambda: False):
            self._client.subscribe("soak/#", qos=1)
        if not self._subscribed.wait(DRAIN):
            self.dropped = "never subscribed"

    def record(self) -> dict[str, Any]:
        """Wait until nothing more comes and tell the numbers heard of each topic."""
        while self.dropped is None and time.monotonic() - self._heard < QUIET:
            time.sleep(0.05)
        self.close()
        return {"topics": self._topics, "dropped": self.dropped}

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._heard = time.monotonic()
        self._topics[message.topic].append(int(message.payload))


def publish(rate: float, brokers: list[str]) -> dict[str, Any]:
    """Publish from every address on stdin, to the broker's address of its family."""
    stop = threading.Event()
    publishers = []
    for address in _lines():
        broker = next(b for b in brokers if (":" in b) == (":" in address))
        publishers.append(Publisher(address, broker, rate, stop))
    stop.set()
    return {"sessions": [publisher.record() for publisher in publishers]}


def listen(broker: str) -> dict[str, Any]:
    """Listen until told to stop."""
    listener = Listener(broker)
    _tell(f"listener: {listener.dropped or 'connected'}")
    for _ in _lines():
        pass
    return listener.record()


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _lines() -> Iterator[str]:
    for line in iter(sys.stdin.readline, ""):
        if line == "stop\n":
            return
        yield line.strip()


def main() -> None:
    """Do what the arguments say, and write the record."""
    # Ctrl-C reaches the whole process group; the soak itself says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    match sys.argv[1:]:
        case ["publish", rate, *brokers]:
            told = publish(float(rate), brokers)
        case ["listen", broker]:
            told = listen(broker)
        case _:
            sys.exit(__doc__)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
