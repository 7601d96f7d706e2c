"""``clihelper metrics``: what a daemon has counted, in Prometheus's text format."""

from __future__ import annotations

import os

from clihelper.commands import daemons
from clihelper.commands.reload import NOT_RUNNING
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = f"""\
usage: clihelper metrics NAME | -c FILE [NAME] | --pidfile FILE

Print what a daemon has counted, in Prometheus's text format: what Daemon.metrics serves as
/metrics. It is read from the daemon's memory, even while it hangs or is stopped; root and the
daemon's user may read it. The exit status is 0 if it was printed, 7 if no daemon is running, 77 if
it may not be read, and 69 if the daemon is of another version.

{daemons.OPTIONS_HELP}

Example: clihelper metrics orders >/var/lib/prometheus/node-exporter/orders.prom"""


class Unreadable(Error):
    """There are no figures, or they may not be read."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def main(arguments: Sequence[str]) -> int:
    """Print the metrics, and return the exit status."""
    if '-h' in arguments or '--help' in arguments:
        print(USAGE)
        return 0
    found = daemons.find(daemons.parse(arguments, command='metrics'))
    if found.state != 'running' or not found.pid:
        raise Unreadable(str(found), NOT_RUNNING)
    from clihelper.operations import exposition
    from clihelper.process.statistics import Statistics

    try:
        reading = Statistics.of_process(found.pid).read()
    except PermissionError as error:
        raise Unreadable(
            f'{found}: only root and its user may read its metrics', os.EX_NOPERM) from error
    except LookupError as error:
        raise Unreadable(str(error), os.EX_UNAVAILABLE) from error
    print(exposition.Exposition().render(*reading), end='')
    return 0
