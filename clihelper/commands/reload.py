"""``clihelper reload``: have a daemon read its configuration anew."""

from __future__ import annotations

import signal

from clihelper.commands import daemons
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_RUNNING = 7
"""The status for it in the Linux Standard Base Core Specification 5.0, section 22.2"""

USAGE = f"""\
usage: clihelper reload [--in-place] NAME | -c FILE [NAME] | --pidfile FILE

Have a daemon begin again with its configuration, by HUP. Whether that is good, the daemon's log
says. The exit status is 0 if the daemon was told, 7 if none runs, 77 if it may not be signalled.

{daemons.OPTIONS_HELP}
  --in-place        by USR1: the loop goes on; log files that were rotated are reopened"""


def main(arguments: Sequence[str]) -> int:
    """Signal the daemon; returns the exit status."""
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
