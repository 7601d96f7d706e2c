"""``clihelper reload``: make a daemon reload its configuration, and wait until it has done so."""

from __future__ import annotations

import sys

from clihelper.commands import arguments, asking, daemons
from clihelper.errors import NotPermitted, UnavailableForNow, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from clihelper.commands.daemons import Found

TIMEOUT = 120.0
"""Seconds to wait for the new configuration."""

USAGE = f"""\
usage: clihelper reload [--in-place] [--no-wait | --timeout SECONDS] NAME | -c FILE [NAME]
                                                                     | --pidfile FILE

Make a daemon start over with its configuration, as HUP does, and return when the new configuration
is in force in all of its processes. If it is faulty, print its faults; the old one stays in force
then. Without a control socket, send HUP, and say so.

{daemons.OPTIONS_HELP}
  --in-place        as USR1 does: the loop goes on, and rotated log files are reopened
  --no-wait         only send the signal
  --timeout SECONDS how long to wait; default: {TIMEOUT:g}. The reload goes on after that

The exit status is 0 if the new configuration is in force (or the signal was sent), 1 if the reload
was undone because the new one does not work, 2 if the command line is wrong, 7 if no daemon is
running, 75 if it was not done in time or the daemon was stopped, 77 if the daemon is not yours,
and 78 if the configuration is faulty.

Example: clihelper reload orders"""


def main(argv: Sequence[str]) -> int:
    """Have the daemon reload, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    asked = daemons.parse(argv, command='reload', values=('--timeout',),
                          flags=('--in-place', '--no-wait'))
    timeout = TIMEOUT
    if '--timeout' in asked.values:
        if '--no-wait' in asked.flags:
            raise UsageError('reload: --no-wait and --timeout exclude each other')
        timeout = arguments.seconds(
            asked.values['--timeout'], command='reload', option='--timeout')
    found = daemons.find(asked)
    asking.check_running(found)
    in_place = '--in-place' in asked.flags
    if '--no-wait' in asked.flags:
        _signal(found, in_place)
    else:
        _reload(found, in_place, timeout)
    return 0


def _reload(found: Found, in_place: bool, timeout: float) -> None:
    from clihelper.operations.client import NoControl

    try:
        for _ in asking.ask(found, {'command': 'reload', 'in_place': in_place}, timeout):
            pass
    except (NoControl, NotPermitted) as error:
        _signal(found, in_place)
        print(f'clihelper: {error}: signalled; its log says what has become of it',
              file=sys.stderr)
    except UnavailableForNow as error:
        raise UnavailableForNow(f'{error}; the reload may go on') from None


def _signal(found: Found, in_place: bool) -> None:
    import signal

    try:
        with daemons.LockedDaemon(found) as daemon:
            daemon.signal(signal.SIGUSR1 if in_place else signal.SIGHUP)
    except ProcessLookupError:
        raise asking.NotRunning(found) from None
