"""``clihelper dead-letters``: messages that could not be handled, by group or one by one."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from clihelper.commands.selection import is_group, is_id, is_position
from clihelper.errors import ConfigurationError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from clihelper.config import Config

COMMAND = 'clihelper dead-letters'

DESCRIPTION = """\
List, show, replay, edit or drop the dead letters of a program's AMQP queues.

list      list the letters by group: same queue, reason and exception; with --each
          one per line, and a summary
show      show one letter with its properties, headers and body, or one group
replay    publish letters to the queues that they came from; each is removed from the
          dead letters once the broker has confirmed it, so that none is lost
edit      edit one letter with $VISUAL or $EDITOR; the old one is removed once the
          broker has confirmed the new one
drop      delete letters for good
"""

EPILOG = """\
A LETTER is an ID as shown by "list --each", or at least its first seven digits, or for all
letters of a group its name as shown by "list"; for "show" it can also be a position. While
this command reads letters, nobody else sees them.

exit status: 0; 2: wrong usage, no such letter, or an edited text that is wrong; 69: the
broker cannot be used, letters could not be replayed (they are kept), or the editor failed;
77, 78: the configuration; 128 + N: ended by signal N
"""

ACTIONS = ('list', 'show', 'replay', 'edit', 'drop')

SECONDS = {'s': 1, 'm': 60, 'h': 3600}


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand, and return the exit status."""
    options = _parse(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # letters may be in any script
    from clihelper import config

    path = options.configuration
    loaded = config.load(os.path.abspath(path), appname='clihelper', shown=path)
    queues = _queues(loaded, options)
    from clihelper.commands.letter_actions import Actions

    return Actions(loaded.amqp, queues, options).run()


def _parse(arguments: Sequence[str]) -> Namespace:
    import argparse

    from clihelper.parser import Parser

    parser = Parser(
        prog=COMMAND,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('-c', '--config', dest='configuration', metavar='FILE', required=True,
        help="the program's configuration; its section AMQP names the broker")  # fmt: skip
    add('action', choices=ACTIONS, metavar='|'.join(ACTIONS))
    add('letters', nargs='*', metavar='LETTER')
    add('--all', action='store_true', help='replay, drop: all letters')
    add('--each', action='store_true', help='list: one letter per line')
    add('--queue', metavar='NAME', help='letters that came from this queue')
    add('--reason', metavar='WORD', help='letters with this reason, such as "exception"')
    add('--exception', metavar='NAME', help='letters with this exception')
    add('--from', dest='held_in', metavar='NAME',
        help='the dead-letter queue to read; default: those of AMQP.queues')  # fmt: skip
    add('--limit', type=int, metavar='N',
        help='at most N letters; default for "list --each": 1000')  # fmt: skip
    add('--rate', metavar='N/s', help='replay: at most N letters per second (N/m: per minute)')
    add('--replay', action='store_true',
        help='edit: publish the letter to the queue that it came from')  # fmt: skip
    add('--json', action='store_true', help='list, show: as JSON')
    add('--raw', action='store_true', help='show: only the body, unchanged')
    add('--yes', action='store_true', help='drop, edit: do not ask')
    options = parser.parse_intermixed_args(arguments)
    _check(options)
    _check_letters(options.action, options.letters)
    options.rate = _rate(options.rate)
    return options


def _check(options: Namespace) -> None:
    """Refuse options that make no sense together.

    :raises UsageError: says which.
    """
    action = options.action
    chosen = bool(options.letters or options.queue or options.reason or options.exception)
    if options.limit is not None and options.limit < 1:
        raise misused('--limit: expected a number of at least 1')
    for option, its_action in (('each', 'list'), ('rate', 'replay'), ('replay', 'edit')):
        if getattr(options, option) and action != its_action:
            raise misused(f'{action}: --{option} is for {its_action}')
    if action in ('replay', 'drop') and chosen == options.all:
        raise misused(f'{action}: expected LETTERs, --queue, --reason or --exception, or --all')
    if action in ('drop', 'edit') and not options.yes and not sys.stdin.isatty():
        raise misused(f'{action}: there is no terminal to ask on; --yes does it without asking')


def _check_letters(action: str, words: Sequence[str]) -> None:
    """Refuse words that are not what the action takes.

    :raises UsageError: says which.
    """
    if action in ('show', 'edit') and len(words) != 1:
        raise misused(f'{action}: expected one LETTER')
    for word in words:
        if is_position(word) and action != 'show':
            raise misused(f'{action}: positions change, an ID is needed instead of {word}')
        if not is_position(word) and not is_id(word) and not is_group(word):
            raise misused(f'not a LETTER: {word!r}')
        if is_group(word) and action == 'edit':
            raise misused(f'edit: {word} is a group; expected the ID of one letter')
        if is_id(word) and action == 'list':
            raise misused('list: takes groups, but no other LETTER')


def _rate(text: str | None) -> float | None:
    """Letters per second.

    :raises UsageError: *text* is not a rate.
    """
    if text is None:
        return None
    number, _, unit = text.partition('/')
    if number.isascii() and number.isdecimal() and unit in SECONDS and 0 < int(number) <= 10**6:
        return int(number) / SECONDS[unit]
    raise misused(f'--rate: expected a rate such as 10/s or 100/m, got {text!r}')


def misused(text: str) -> UsageError:
    """The error for a wrong command line."""
    return UsageError(f'{text} (see {COMMAND} --help)')


def _queues(config: Config, options: Namespace) -> dict[str, str]:
    """Return the dead-letter queues, each with the queue that its letters are of, if it is one."""
    url = config.amqp['url']
    first = url if isinstance(url, str) else url[0]
    if not first.startswith(('amqp', 'pyamqp')):
        scheme = first.partition(':')[0]
        where = config.locate('AMQP', 'url')
        raise ConfigurationError(f'{where}: AMQP.url: {scheme}:// does not keep dead letters')
    if options.held_in:
        return {options.held_in: ''}
    if config.amqp['dead_letter'] is False:
        where = config.locate('AMQP', 'dead_letter')
        raise ConfigurationError(f'{where}: AMQP.dead_letter is false: there are none')
    from clihelper.amqp.topology import Topology

    topology = Topology(config.amqp)
    found: dict[str, str] = {}
    for queue in topology.queues:
        dead = topology.dead_letters_of(queue)
        if dead is not None:
            found[dead] = '' if dead in found else topology.lasting_name(queue)
    return found
