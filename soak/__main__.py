"""Run the soak: the same load twice, first left alone, then with everything."""

import json
import signal
import sys
import time
from pathlib import Path

import click

from reconciler.core.model import pack_mac
from reconciler.errors import LabError
from reconciler.testing.lab import Lab
from reconciler.testing.namespaces import enter_user_namespace
from soak.broker import mosquitto
from soak.daemon import daemon
from soak.incidents import Watch
from soak.load import load
from soak.place import HOST, Place, addresses, place
from soak.report import Phase, Report, Troubles
from soak.table import table
from soak.trouble import PERIOD, TICK, Trouble


def soak(seconds: float) -> Report:
    """Run both phases, each of so many seconds.

    Raises:
        LabError: the lab, the broker or the daemon could not be started.
    """
    here = place(incidents=2 * int(seconds / PERIOD) + 2)
    clients = [eni.eni_id for eni in here.clients]
    with Lab(here.vpc, host=HOST, clients=clients) as lab, mosquitto(lab) as broker:
        for address, mac in addresses(here.bystanders).items():
            lab.set_neighbour(address, pack_mac(mac))
        lab.endpoint.page_limit = 10  # Several pages, as in an account of thousands.
        before = _left_alone(lab, here, seconds)
        with daemon(lab) as running, load(lab, here) as clients_running:
            began = time.monotonic()
            trouble = Trouble(lab, here, clients_running, seconds)
            trouble.run()
            took = time.monotonic() - began
            during = Phase(took, tuple(clients_running.stop()))
        calls = tuple(lab.endpoint.calls)
        return Report(
            before,
            during,
            steady=addresses(here.steady).keys(),
            shaken=addresses(here.shaken).keys(),
            troubles=Troubles(
                trouble.watch.incidents,
                trouble.weather,
                trouble.deleted,
                spoiled=sum(bool(call.fault or call.code) for call in calls),
                calls=len(calls),
                faults=trouble.faults,
                harmed=trouble.watch.harmed,
            ),
            daemon=running,
            broker_alive=broker.poll() is None,
        )


def _left_alone(lab: Lab, here: Place, seconds: float) -> Phase:
    """Let the clients publish, with nobody near the table but the watch."""
    watch = Watch(lab, steady={}, bystanders={})
    with load(lab, here) as running:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            watch.poll()
            time.sleep(TICK)
        took = time.monotonic() - began
        return Phase(took, tuple(running.stop()))


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=10),
    default=180.0,
    show_default=True,
    help="Length of each of the two phases.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(seconds: float, file: Path | None) -> None:
    """Prove that repair does no harm to a real broker's connections.

    Exit code 0: all was as expected. 1: it was not, or could not be tried. 130: interrupted.
    """
    # Like Ctrl-C, so that every block is left and what it made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        enter_user_namespace()
        document = soak(seconds).document()
    except LabError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("Interrupted: everything it had made is gone.", err=True)
        sys.exit(130)
    click.echo(table(document))
    if file is not None:
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if document["failures"] else 0)


if __name__ == "__main__":
    main()
