"""``clihelper reload``: make a daemon reload its configuration."""

from __future__ import annotations

import signal

from clihelper.commands import daemons
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_RUNNING = 7
"""The status for this in the Linux Standard Base Core Specification 5.0, section 22.2."""

USAGE = f"""\
usage: clihelper reload [--in-place] NAME | -c FILE [NAME] | --pidfile FILE

Make a daemon start over with its configuration, by sending HUP. The daemon's log says whether
the configuration is valid. The exit status is 0 if the signal was sent, 7 if no daemon is
running, 77 if it may not be signalled.

{daemons.OPTIONS_HELP}
  --in-place        send USR1 instead: the loop goes on, and rotated log files are reopened"""


def main(arguments: Sequence[str]) -> int:
    """Signal the daemon, and return the exit status."""
    if '-h' in arguments or '--help' in arguments:
        print(USAGE)
        return 0
    asked = daemons.parse(arguments, command='reload', flags=('--in-place',))
    found = daemons.find(asked)
    if found.state == 'unknown':
        raise Error(str(found))
    try:
        if found.state != 'running':
            raise ProcessLookupError
        with daemons.LockedDaemon(found) as daemon:
            daemon.signal(signal.SIGUSR1 if '--in-place' in asked.flags else signal.SIGHUP)
    except ProcessLookupError:
        error = Error(f'{found.label}: does not run')
        error.status = NOT_RUNNING
        raise error from None
    return 0
