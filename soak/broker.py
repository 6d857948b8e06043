"""The real broker: mosquitto, in the lab's broker namespace."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import LabError
from reconciler.testing.lab import Lab
from soak.place import PORT

# Without limits on what waits for the subscriber: mosquitto would drop the rest.
_CONFIG = f"""
listener {PORT}
allow_anonymous true
persistence false
user root
log_dest none
max_inflight_messages 0
max_queued_messages 0
"""
_PATIENCE = 5.0  # seconds; it accepts within 30 ms on an idle machine.


@contextmanager
def mosquitto(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """Run mosquitto until the block ends; it accepts connections when the block begins.

    Raises:
        LabError: it is not installed, or it does not accept connections.
    """
    # Debian installs it where only root's PATH looks.
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise LabError("The soak needs a real message broker. Install: apt-get install mosquitto")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        config = Path(folder, "mosquitto.conf")
        config.write_text(_CONFIG, encoding="utf-8")
        null = subprocess.DEVNULL
        child = lab.popen([program, "-c", str(config)], stdin=null, stdout=null, stderr=null)
        try:
            _await(lab, child)
            yield child
        finally:
            child.kill()
            child.wait()


def _await(lab: Lab, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and child.poll() is None:
        with lab.broker.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            if sock.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        time.sleep(0.01)
    raise LabError(f"mosquitto accepts no connection (exit code {child.poll()}).")


__all__ = ["mosquitto"]
