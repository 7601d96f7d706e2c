"""``clihelper status``: whether a daemon runs, with the statuses of an init script."""

from __future__ import annotations

from clihelper.commands import daemons
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STATUSES = {'running': 0, 'died': 1, 'stopped': 3, 'unknown': 4}
"""The statuses of ``status`` in the Linux Standard Base Core Specification 5.0, section 22.2."""

UNKNOWN = STATUSES['unknown']

USAGE = f"""\
usage: clihelper status [--json] NAME | -c FILE [NAME] | --pidfile FILE

Print whether a daemon is running, according to the lock of its pidfile. The exit status is 0 if
it is running, 1 if it died and left its pidfile, 3 if it is stopped, and 4 if that is unknown.

{daemons.OPTIONS_HELP}
  --json            print an object: name, pidfile, state, pid, status"""


def main(arguments: Sequence[str]) -> int:
    """Print the state, and return the exit status; every error has status 4."""
    if '-h' in arguments or '--help' in arguments:
        print(USAGE)
        return 0
    try:
        words = daemons.parse(arguments, command='status', flags=('--json',))
        found = daemons.find(words)
    except Error as error:
        error.status = UNKNOWN
        raise
    status = STATUSES[found.state]
    if '--json' in words.flags:
        import json

        name = words.names[0] if words.names else None
        print(json.dumps({'name': name, 'pidfile': found.path, 'state': found.state,
                          'pid': found.pid, 'status': status}))
    else:
        print(found)
    return status
