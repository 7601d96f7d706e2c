"""``clihelper dead-letters``: what could not be handled; why, and what to do with it."""

from __future__ import annotations

import os
import sys

from clihelper.errors import ConfigurationError, UnavailableError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence
    from typing import Any

    from clihelper.amqp.letters import DeadLetter, Letters
    from clihelper.config import Config

COMMAND = 'clihelper dead-letters'

DESCRIPTION = """\
List, show, replay or drop the dead letters of a program's AMQP queues.

list      what is there and why, a line each, and a summary
show      one letter with its properties, headers and body
replay    publish letters to the queues that they came from; each leaves the dead ones
          once the broker has confirmed it, so that none is lost
drop      take letters away for good
"""

EPILOG = """\
A LETTER is an ID as "list" shows it, or its first seven digits or more; for "show"
a position will do, too. While letters are looked at, nobody else sees them.

exit status: 0; 2: wrong use, or no such letter; 69: the broker cannot be used, or
letters could not be replayed (they are kept); 77, 78: the configuration
"""

ACTIONS = ('list', 'show', 'replay', 'drop')
FEWEST_DIGITS = 7
MANY = 20
"""letters from which on there is a summary"""

OFTEN = 10
"""deliveries of a letter from which on there is a warning: RabbitMQ 4 drops what has had 20"""

HEADINGS = {
    'position': '#',
    'id': 'ID',
    'queue': 'QUEUE',
    'reason': 'REASON',
    'attempts': 'RUNS',
    'time': 'TIME',
    'host': 'HOST',
    'exception': 'EXCEPTION',
    'message': 'MESSAGE',
}


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    options = _parse(arguments)
    from clihelper import config

    path = options.configuration
    loaded = config.load(os.path.abspath(path), appname='clihelper', shown=path)
    queues = _queues(loaded, options)
    from clihelper.amqp.letters import Letters

    actions = {'list': _list, 'show': _show, 'replay': _replay, 'drop': _drop}
    with Letters(loaded.amqp) as letters:
        return actions[options.action](letters, queues, options)


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
        help="the program's configuration; its section AMQP says where")  # fmt: skip
    add('action', choices=ACTIONS, metavar='list|show|replay|drop')
    add('letters', nargs='*', metavar='LETTER')
    add('--all', action='store_true', help='replay, drop: all of them')
    add('--queue', metavar='NAME', help='those that came from this queue')
    add('--reason', metavar='WORD', help='those with this reason, as "exception"')
    add('--exception', metavar='NAME', help='those of this exception')
    add('--from', dest='held_in', metavar='NAME',
        help='the queue of dead letters to look into; default: those of AMQP.queues')  # fmt: skip
    add('--limit', type=int, metavar='N', help='at most so many; default for "list": 1000')
    add('--json', action='store_true', help='list, show: as JSON')
    add('--raw', action='store_true', help='show: the body alone, byte by byte')
    add('--yes', action='store_true', help='drop: do not ask')
    options = parser.parse_intermixed_args(arguments)
    _check(options)
    return options


def _check(options: Namespace) -> None:
    """Refuse what makes no sense together.

    :raises UsageError: with what it is.
    """
    action, given = options.action, options.letters
    chosen = bool(given or options.queue or options.reason or options.exception)
    if options.limit is not None and options.limit < 1:
        raise _misused('--limit: expected a number from 1')
    if action == 'show' and len(given) != 1:
        raise _misused('show: expected one LETTER')
    if action == 'list' and given:
        raise _misused('list: takes no LETTER')
    if action in ('replay', 'drop') and chosen == options.all:
        raise _misused(f'{action}: expected LETTERs, --queue, --reason or --exception, or --all')
    for word in given:
        is_position = word.isdecimal() and len(word) < FEWEST_DIGITS
        if is_position and action != 'show':
            raise _misused(f'{action}: positions change, an ID is needed instead of {word}')
        if not is_position and not _is_id(word):
            raise _misused(f'no LETTER: {word!r}')


def _is_id(word: str) -> bool:
    return len(word) >= FEWEST_DIGITS and not set(word) - set('0123456789abcdef')


def _misused(text: str) -> UsageError:
    return UsageError(f'{text} (see {COMMAND} --help)')


def _queues(config: Config, options: Namespace) -> dict[str, str]:
    """The queues of dead letters; with each the queue whose letters it has, if it is one."""
    url = config.amqp['url']
    first = url if isinstance(url, str) else url[0]
    if not first.startswith(('amqp', 'pyamqp')):
        scheme = first.partition(':')[0]
        where = config.locate('AMQP', 'url')
        raise ConfigurationError(f'{where}: AMQP.url: {scheme}:// keeps no dead letters')
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


def _chosen(letters: Letters, queues: dict[str, str], options: Namespace) -> Iterator[DeadLetter]:
    """The letters that the options mean, up to the limit."""
    left = options.limit or sys.maxsize
    position = 0
    for queue, source in queues.items():
        for letter in letters.read(queue, source):
            position += 1
            letter.position = position
            if _is_meant(letter, options):
                yield letter
                left -= 1
                if not left:
                    return


def _is_meant(letter: DeadLetter, options: Namespace) -> bool:
    return (
        options.queue in (None, letter.queue)
        and options.reason in (None, letter.reason)
        and options.exception in (None, letter.said('exception'))
        and (not options.letters or any(_names(word, letter) for word in options.letters))
    )


def _names(word: str, letter: DeadLetter) -> bool:
    if len(word) < FEWEST_DIGITS:
        return letter.position == int(word)
    return letter.id.startswith(word)


# The actions

def _list(letters: Letters, queues: dict[str, str], options: Namespace) -> int:
    options.limit = options.limit or 1000
    total = sum(letters.count(queue) or 0 for queue in queues)
    rows, looks = [], 0
    for letter in _chosen(letters, queues, options):
        rows.append(letter.row())
        looks = max(looks, letter.looks)
    if options.json:
        _print_json(rows)
    else:
        _print_table(rows)
        if len(rows) >= MANY:
            _print_summary(rows)
        print(f'{len(rows)} of {total} dead letters in {", ".join(queues) or "no queue"}')
    if looks >= OFTEN:
        print(
            f'{COMMAND}: some have been looked at {looks} times. Each time counts as a delivery,'
            ' and RabbitMQ 4 drops letters of a quorum queue after 20, unless a policy sets its'
            ' delivery-limit to -1',
            file=sys.stderr,
        )
    return 0


def _show(letters: Letters, queues: dict[str, str], options: Namespace) -> int:
    for letter in _chosen(letters, queues, options):
        if options.raw:
            sys.stdout.buffer.write(letter.body)
        elif options.json:
            _print_json(_whole(letter))
        else:
            _print_whole(letter)
        return 0
    raise _missing(options.letters)


def _replay(letters: Letters, queues: dict[str, str], options: Namespace) -> int:
    from clihelper.amqp.publisher import PublishError

    replayed: dict[str, int] = {}
    kept, words = 0, set(options.letters)
    try:
        for letter in _chosen(letters, queues, options):
            words -= {word for word in words if _names(word, letter)}
            fault = '' if letter.queue else 'nobody knows what queue it came from'
            try:
                if not fault:
                    letters.replay(letter)
                    replayed[letter.queue] = replayed.get(letter.queue, 0) + 1
            except PublishError as error:
                if error.unknown:
                    raise UnavailableError(f'{letter.id} is kept: {error}') from error
                fault = str(error)
            if fault:
                kept += 1
                print(f'{COMMAND}: {letter.id} is kept: {_line(fault)}', file=sys.stderr)
        letters.flush()
    finally:
        for queue, number in replayed.items():
            print(f'replayed to {_line(queue)}: {number}')
        if not replayed:
            print('replayed: 0')
    if words:
        raise _missing(words)
    return os.EX_UNAVAILABLE if kept else 0


def _drop(letters: Letters, queues: dict[str, str], options: Namespace) -> int:
    if not options.yes and not sys.stdin.isatty():
        raise _misused('drop: there is no terminal to ask on; --yes drops without asking')
    chosen, rows = [], []
    words = set(options.letters)
    for letter in _chosen(letters, queues, options):
        words -= {word for word in words if _names(word, letter)}
        rows.append(letter.row())
        chosen.append(letter)
        letter.body = letter.delivery.body = b''  # there may be many, and large ones
    if words:
        raise _missing(words)
    if chosen and not options.yes:
        _print_summary(rows)
        if not _confirmed(f'Drop {len(chosen)} dead letters for good? [y/N] '):
            chosen = []
    for letter in chosen:
        letters.drop(letter)
    letters.flush()
    print(f'dropped: {len(chosen)}')
    return 0


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ('y', 'yes')
    except EOFError:
        print()
        return False


def _missing(words: Any) -> UsageError:
    return UsageError(f'no dead letter {", ".join(sorted(words))}; it is gone, or somebody else'
                      ' looks at it')  # fmt: skip


# Printing

def _print_json(what: Any) -> None:
    import json

    print(json.dumps(what, indent=2, default=str))


def _print_table(rows: list[dict[str, Any]]) -> None:
    """One line each; on a terminal, no longer than it is wide."""
    if not rows:
        return
    cells = [[*HEADINGS.values()]]
    cells += [['' if row[name] is None else _line(row[name]) for name in HEADINGS] for row in rows]
    _print_columns(cells)


def _print_summary(rows: list[dict[str, Any]]) -> None:
    counts: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = row['queue'], row['reason'], row['exception']
        counts[key] = counts.get(key, 0) + 1
    cells = [['COUNT', 'QUEUE', 'REASON', 'EXCEPTION']]
    for key, count in sorted(counts.items(), key=lambda each: -each[1]):
        cells.append([str(count), *map(_line, key)])
    print()
    _print_columns(cells)
    print()


def _print_columns(cells: list[list[str]]) -> None:
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        text = '  '.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        print((text[:width] if width else text).rstrip())


def _whole(letter: DeadLetter) -> dict[str, Any]:
    """All of it; the body as text, or in Base64."""
    whole = {**letter.row(), 'properties': letter.properties, 'headers': letter.headers}
    try:
        whole['body'] = letter.body.decode()
    except UnicodeDecodeError:
        import base64

        whole['body_base64'] = base64.b64encode(letter.body).decode()
    return whole


def _print_whole(letter: DeadLetter) -> None:
    for name, value in letter.row().items():
        if value not in ('', None):
            print(f'{name.replace("_", " ")}: {_line(value)}')
    for title, values in (('properties', letter.properties), ('headers', letter.headers)):
        print(f'{title}:')
        for name, value in sorted(values.items()):
            print(f'    {_line(name)}: {_line(value)}')
    try:
        text = letter.body.decode()
    except UnicodeDecodeError:
        print('body: binary (--raw writes it)')
        return
    print('body:')
    print('\n'.join(_line(line) for line in text.split('\n')))


def _line(value: object) -> str:
    """A value on one line, with nothing in it that a terminal would act on."""
    text = str(value)
    if text.isprintable():
        return text
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)
