"""``clihelper pause``: have a running daemon consume queues no more."""

from __future__ import annotations

import sys

from clihelper.commands import asking, daemons
from clihelper.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 5.0
"""Seconds to wait for the daemon."""

USAGE = f"""\
usage: clihelper pause [QUEUE...] [--json] NAME | -c FILE [NAME] | --pidfile FILE

Have a daemon consume queues no more, until clihelper resume. When it returns, no further message
of them begins to be handled; those in hand are finished, and prefetched ones go back. It is kept
over reloads and, with Daemon.state_directory, over restarts.

  QUEUE             a key of AMQP.queues; all queues if there is none. The last word is the NAME,
                    unless another option says which daemon it is
{daemons.OPTIONS_HELP}
  --json            print an object

{asking.STATUSES_HELP}
It is 2, too, if there is no such queue.

Example: clihelper pause invoices orders"""


def main(argv: Sequence[str]) -> int:
    """Pause, and return the exit status."""
    return ask('pause', argv, USAGE)


def ask(command: str, argv: Sequence[str], usage: str) -> int:
    """Ask a daemon to pause queues, or to go on, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(usage)
        return 0

    def own(names: list[str]) -> int:
        return len(names) - _needs_name(argv) if names else 0

    asked = daemons.parse(argv, command=command, flags=('--json',), own=own)
    found = daemons.find(asked)
    request: dict[str, object] = {'command': command}
    if asked.own:
        request['queues'] = asked.own
    for answer in asking.ask(found, request, TIMEOUT):
        if '--json' in asked.flags:
            import json

            print(json.dumps({key: answer[key] for key in ('paused', 'kept') if key in answer}))
        else:
            paused = answer.get('paused') or []
            words = ', '.join(map(str, paused)) or 'no queue'
            print(f'{found.label}: paused: {words}')
        if not answer.get('kept') and (answer.get('paused') or command == 'resume'):
            print(f'clihelper: {found.label}: this is not kept over a restart:'
                  f' {answer.get("why")}', file=sys.stderr)
    return 0


def _needs_name(argv: Sequence[str]) -> bool:
    """Return whether the last word is the name of the daemon, rather than of a queue."""
    options = [word.partition('=')[0] for word in argv]
    if '--pidfile' in options:
        return False
    for number, word in enumerate(argv):
        name, equals, value = word.partition('=')
        if name in ('-c', '--config'):
            config = value if equals else (*argv[number + 1 :], '')[0]
            return bool(config) and _depends_on_name(config)
    return True


def _depends_on_name(config: str) -> bool:
    """Return whether the pidfile of a configuration depends on the name of the program."""
    try:
        return not daemons.configured_pidfile(config)
    except ConfigurationError:
        return True
