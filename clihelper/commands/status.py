"""``clihelper status``: whether a daemon runs, and what it does."""

from __future__ import annotations

from clihelper.commands import daemons
from clihelper.errors import Error, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from clihelper.commands.arguments import Arguments
    from clihelper.commands.daemons import Found

STATUSES = {'running': 0, 'died': 1, 'stopped': 3, 'unknown': 4}
"""The statuses of ``status`` in the Linux Standard Base Core Specification 5.0, section 22.2."""

UNKNOWN = STATUSES['unknown']

FLAGS = ('--json', '--watch', '--ready', '--live')

NOT_READY = 1
"""the status of ``--ready`` and ``--live`` if the daemon runs, and is not ready or hangs"""

USAGE = f"""\
usage: clihelper status [--json | --watch | --ready | --live] NAME | -c FILE [NAME]
                                                              | --pidfile FILE

Print whether a daemon is running, according to the lock of its pidfile, and what it does. The exit
status is 0 if it is running, 1 if it died and left its pidfile, 3 if it is stopped, and 4 if that
is unknown. What it does is read from its memory, even while it hangs or is stopped; root and the
daemon's user may read it.

{daemons.OPTIONS_HELP}
  --json            print an object
  --watch           show it every second, on the whole screen of a terminal until q or Ctrl-C
  --ready           print nothing; 0 if it can do its work now: it is consuming, or its servers
                    listen, or its periodic work goes on
  --live            print nothing; 0 unless it hangs; a broker that is away is no reason

Example: clihelper status orders"""


def main(arguments: Sequence[str]) -> int:
    """Print the state, and return the exit status; every error has status 4."""
    if '-h' in arguments or '--help' in arguments:
        print(USAGE)
        return 0
    try:
        words = daemons.parse(arguments, command='status', flags=FLAGS)
        if len(words.flags) > 1:
            raise UsageError(f'status: {" and ".join(sorted(words.flags))} exclude each other')
        found = daemons.find(words)
    except Error as error:
        error.status = UNKNOWN
        raise
    if '--watch' in words.flags:
        from clihelper.commands.watch import watch

        return watch(lambda: _look(daemons.find(words)))
    if '--json' in words.flags:
        return _print_object(words, found)
    if words.flags:
        return _probe(words, found)
    status, lines = _look(found)
    print('\n'.join(lines))
    return status


def _look(found: Found) -> tuple[int, list[str]]:
    """Return the exit status, and what is shown."""
    from clihelper.amqp.escaping import escaped
    from clihelper.operations import text

    report = _report(found)
    lines = [] if report is None else [escaped(line) for line in text.lines(report)]
    return STATUSES[found.state], [str(found), *lines]


def _print_object(words: Arguments, found: Found) -> int:
    import json

    status = STATUSES[found.state]
    name = words.names[0] if words.names else None
    print(json.dumps({'name': name, 'pidfile': found.path, 'state': found.state,
                      'pid': found.pid, 'status': status, **(_report(found) or {})}))
    return status


def _report(found: Found) -> dict[str, Any] | None:
    """Return what a daemon that runs does; None if it cannot be read."""
    if found.state != 'running' or not found.pid:
        return None
    from clihelper.operations import report

    try:
        return report.read(found.pid)
    except (LookupError, PermissionError):
        return None


def _probe(words: Arguments, found: Found) -> int:
    """Return 0 if the daemon is ready or live, as asked."""
    if found.state != 'running':
        return STATUSES[found.state]
    from clihelper.operations.report import is_live

    report = _report(found)
    if report is None:
        return UNKNOWN
    passed = report['ready'] if '--ready' in words.flags else is_live(report)
    return 0 if passed else NOT_READY
