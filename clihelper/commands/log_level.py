"""``clihelper log-level``: change the level of a logger of a running daemon for a while."""

from __future__ import annotations

import sys

from clihelper.commands import asking, daemons
from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')

UNITS = {'s': 1, 'm': 60, 'min': 60, 'h': 3600, 'd': 86400}

TIMEOUT = 5.0
"""Seconds to wait for the daemon."""

USAGE = f"""\
usage: clihelper log-level LOGGER LEVEL [--for TIME] NAME | -c FILE [NAME] | --pidfile FILE

Change the level of a logger in every process of a daemon, until the time is over, or until the
next reload. The levels of handlers stay as they are.

  LOGGER            the name of the logger: root, clihelper, or one of the program's or a library's
  LEVEL             DEBUG, INFO, WARNING, ERROR or CRITICAL
  --for TIME        for how long: seconds, or a number with s, m, h or d

{daemons.OPTIONS_HELP}

{asking.STATUSES_HELP}

Example: clihelper log-level clihelper.amqp DEBUG --for 10m orders"""


def main(argv: Sequence[str]) -> int:
    """Change the level, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    asked = daemons.parse(argv, command='log-level', values=('--for',), own=_own)
    logger, level = asked.own
    if level.upper() not in LEVELS:
        raise UsageError(f'log-level: expected one of {", ".join(LEVELS)}, got {level!r}')
    request: dict[str, object] = {'command': 'log-level', 'logger': logger, 'level': level.upper()}
    if '--for' in asked.values:
        request['seconds'] = _seconds(asked.values['--for'])
    found = daemons.find(asked)
    answers = list(asking.ask(found, request, TIMEOUT))
    if not any(answer.get('known') for answer in answers):
        print(f'clihelper: {found.label}: nothing has used the logger {logger!r} yet',
              file=sys.stderr)
    return 0


def _own(names: list[str]) -> int:
    if len(names) < 2:
        raise UsageError('log-level: expected LOGGER LEVEL (see clihelper log-level --help)')
    return 2


def _seconds(text: str) -> float:
    number = text.rstrip('abcdefghijklmnopqrstuvwxyz')
    try:
        seconds = float(number) * UNITS[text[len(number):] or 's']
    except (ValueError, KeyError):
        seconds = 0
    if not 0 < seconds <= 365 * 86400:
        raise UsageError(f'log-level: --for: expected a time such as 90, 10m or 2h, got {text!r}')
    return seconds
