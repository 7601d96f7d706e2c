"""``clihelper workers``: how many workers a daemon has; more or fewer of them."""

from __future__ import annotations

from clihelper.commands import asking, daemons
from clihelper.errors import UsageError, counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 5.0
"""Seconds to wait for the daemon."""

USAGE = f"""\
usage: clihelper workers [N] [--json] NAME | -c FILE [NAME] | --pidfile FILE

Print how many workers a daemon has, and how many of them are ready. With N, have it run so many
from now on, until a reload that changes Daemon.workers. It returns at once: workers that are not
needed any more finish their work. It takes a supervisor, which a daemon with several workers has.

  N                 how many, from 1 to 1024; a NAME that is a number takes --pidfile
{daemons.OPTIONS_HELP}
  --json            print an object

{asking.STATUSES_HELP}
It is 2, too, if there is no supervisor.

Example: clihelper workers 8 orders"""


def main(argv: Sequence[str]) -> int:
    """Print how many, or change that, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    asked = daemons.parse(argv, command='workers', flags=('--json',), own=_own)
    request: dict[str, object] = {'command': 'workers'}
    if asked.own:
        request['number'] = _number(asked.own[0])
    found = daemons.find(asked)
    for answer in asking.ask(found, request, TIMEOUT):
        if '--json' in asked.flags:
            import json

            print(json.dumps({'workers': answer.get('workers'), 'ready': answer.get('ready')}))
        else:
            wanted, ready = answer.get('workers'), answer.get('ready')
            print(f'{found.label}: {counted(int(wanted or 0), "worker")}, {ready} ready')
    return 0


def _own(names: list[str]) -> int:
    return int(bool(names) and names[0].isdecimal() and names[0].isascii())


def _number(text: str) -> int:
    number = int(text) if len(text) < 5 else 0
    if not 1 <= number <= 1024:
        raise UsageError(f'workers: expected a number from 1 to 1024, got {text}')
    return number
