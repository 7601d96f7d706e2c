"""``clihelper dead-letters``: list, show, replay or drop messages that could not be handled."""

from __future__ import annotations

import os
import sys
from collections import Counter
from io import TextIOWrapper
from math import isfinite

from clihelper.errors import ConfigurationError, UnavailableError, UsageError, counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence
    from typing import Any

    from clihelper.amqp.dead_letters import DeadLetter, DeadLetterReader
    from clihelper.config import Config

COMMAND = 'clihelper dead-letters'

DESCRIPTION = """\
List, show, replay or drop the dead letters of a program's AMQP queues.

list      list the letters and their reasons, one per line, and a summary
show      show one letter with its properties, headers and body
replay    publish letters to the queues that they came from; each is removed from the
          dead letters once the broker has confirmed it, so that none is lost
drop      delete letters for good
"""

EPILOG = """\
A LETTER is an ID as shown by "list", or at least its first seven digits; for "show" it
can also be a position. While this command reads letters, nobody else sees them.

exit status: 0; 2: wrong usage, or no such letter; 69: the broker cannot be used, or
letters could not be replayed (they are kept); 77, 78: the configuration
"""

ACTIONS = ('list', 'show', 'replay', 'drop')
FEWEST_DIGITS = 7
MANY = 20
"""The number of letters from which a summary is printed."""

LONGEST_CELL = 255
"""The most characters of a cell of a table."""

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
    """Run the subcommand, and return the exit status."""
    options = _parse(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # letters may be in any script
    from clihelper import config

    path = options.configuration
    loaded = config.load(os.path.abspath(path), appname='clihelper', shown=path)
    queues = _queues(loaded, options)
    from clihelper.amqp.dead_letters import DeadLetterReader

    actions = {'list': _list, 'show': _show, 'replay': _replay, 'drop': _drop}
    with DeadLetterReader(loaded.amqp, _warn) as letters:
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
        help="the program's configuration; its section AMQP names the broker")  # fmt: skip
    add('action', choices=ACTIONS, metavar='list|show|replay|drop')
    add('letters', nargs='*', metavar='LETTER')
    add('--all', action='store_true', help='replay, drop: all letters')
    add('--queue', metavar='NAME', help='letters that came from this queue')
    add('--reason', metavar='WORD', help='letters with this reason, such as "exception"')
    add('--exception', metavar='NAME', help='letters with this exception')
    add('--from', dest='held_in', metavar='NAME',
        help='the dead-letter queue to read; default: those of AMQP.queues')  # fmt: skip
    add('--limit', type=int, metavar='N', help='at most N letters; default for "list": 1000')
    add('--json', action='store_true', help='list, show: as JSON')
    add('--raw', action='store_true', help='show: only the body, unchanged')
    add('--yes', action='store_true', help='drop: do not ask')
    options = parser.parse_intermixed_args(arguments)
    _check(options)
    return options


def _check(options: Namespace) -> None:
    """Refuse options that make no sense together.

    :raises UsageError: says which.
    """
    action, given = options.action, options.letters
    chosen = bool(given or options.queue or options.reason or options.exception)
    if options.limit is not None and options.limit < 1:
        raise _misused('--limit: expected a number of at least 1')
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
            raise _misused(f'not a LETTER: {word!r}')


def _is_id(word: str) -> bool:
    return len(word) >= FEWEST_DIGITS and not set(word) - set('0123456789abcdef')


def _warn(text: str) -> None:
    sys.stdout.flush()
    print(f'{COMMAND}: {_line(text)}', file=sys.stderr)


def _misused(text: str) -> UsageError:
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


def _chosen(
    letters: DeadLetterReader, queues: dict[str, str], options: Namespace
) -> Iterator[DeadLetter]:
    """Yield the letters that the options select, up to the limit."""
    left = options.limit or sys.maxsize
    position = 0
    for queue, source in queues.items():
        for letter in letters.read(queue, source):
            position += 1
            letter.position = position
            if _is_selected(letter, options):
                yield letter
                left -= 1
                if not left:
                    return


def _is_selected(letter: DeadLetter, options: Namespace) -> bool:
    return (
        options.queue in (None, letter.queue)
        and options.reason in (None, letter.reason)
        and options.exception in (None, letter.exception)
        and (not options.letters or any(_names(word, letter) for word in options.letters))
    )


def _names(word: str, letter: DeadLetter) -> bool:
    if len(word) < FEWEST_DIGITS:
        return letter.position == int(word)
    return letter.id.startswith(word)


# The actions

def _list(letters: DeadLetterReader, queues: dict[str, str], options: Namespace) -> int:
    options.limit = options.limit or 1000
    total = sum(letters.count(queue) or 0 for queue in queues)
    rows = [letter.row() for letter in _chosen(letters, queues, options)]
    if options.json:
        _print_json(rows)
    else:
        _print_table(rows)
        if len(rows) >= MANY:
            _print_summary(Counter(map(_kind, rows)))
        found = f'{len(rows)} of {counted(total, "dead letter")}'
        print(f'{found} in {", ".join(queues) or "no queue"}')
    return 0


def _show(letters: DeadLetterReader, queues: dict[str, str], options: Namespace) -> int:
    for letter in _chosen(letters, queues, options):
        if options.raw:
            sys.stdout.buffer.write(letter.body)
        elif options.json:
            _print_json(_whole(letter))
        else:
            _print_whole(letter)
        return 0
    raise _missing(options.letters)


def _replay(letters: DeadLetterReader, queues: dict[str, str], options: Namespace) -> int:
    from clihelper.amqp.publisher import PublishError

    replayed: dict[str, int] = {}
    kept, words = 0, set(options.letters)
    try:
        for letter in _chosen(letters, queues, options):
            words -= {word for word in words if _names(word, letter)}
            fault = '' if letter.target else 'the queue that it came from is unknown'
            try:
                if not fault:
                    letters.replay(letter)
                    replayed[letter.target] = replayed.get(letter.target, 0) + 1
            except PublishError as error:
                if error.unknown:
                    raise UnavailableError(f'{letter.id} is kept: {error}') from error
                fault = str(error)
            if fault:
                kept += 1
                _warn(f'{letter.id} is kept: {fault}')
        letters.flush()
    finally:
        for queue, number in replayed.items():
            print(f'replayed to {_line(queue)}: {number}')
        if not replayed:
            print('replayed: 0')
    if words:
        raise _missing(words)
    return os.EX_UNAVAILABLE if kept else 0


def _drop(letters: DeadLetterReader, queues: dict[str, str], options: Namespace) -> int:
    if not options.yes and not sys.stdin.isatty():
        raise _misused('drop: there is no terminal to ask on; --yes drops without asking')
    # There may be many large letters: their contents are not kept.
    chosen: list[tuple[str, int]] = []
    counts: Counter[tuple[str, ...]] = Counter()
    words = set(options.letters)
    for letter in _chosen(letters, queues, options):
        words -= {word for word in words if _names(word, letter)}
        counts[_kind(letter.row())] += 1
        chosen.append((letter.held_in, letter.delivery_tag))
    if words:
        raise _missing(words)
    if chosen and not options.yes:
        _print_summary(counts)
        if not _confirmed(f'Drop {counted(len(chosen), "dead letter")} for good? [y/N] '):
            chosen = []
    for held_in, delivery_tag in chosen:
        letters.drop(held_in, delivery_tag)
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
                      ' is reading it')  # fmt: skip


# Printing

def _print_json(what: Any) -> None:
    import json

    print(json.dumps(what, indent=2))


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line per row; on a terminal, cut to its width."""
    if not rows:
        return
    cells = [[*HEADINGS.values()]]
    cells += [['' if row[name] is None else _line(row[name]) for name in HEADINGS] for row in rows]
    _print_columns(cells)


def _kind(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what a letter is counted by in a summary."""
    return row['queue'], row['reason'], row['exception']


def _print_summary(counts: Counter[tuple[str, ...]]) -> None:
    cells = [['COUNT', 'QUEUE', 'REASON', 'EXCEPTION']]
    for kind, count in counts.most_common():
        cells.append([str(count), *map(_line, kind)])
    print()
    _print_columns(cells)
    print()


def _print_columns(cells: list[list[str]]) -> None:
    cells = [[_cut(cell) for cell in row] for row in cells]
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        text = '  '.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        print((text[:width] if width else text).rstrip())


def _cut(cell: str) -> str:
    return cell if len(cell) <= LONGEST_CELL else f'{cell[: LONGEST_CELL - 3]}...'


def _whole(letter: DeadLetter) -> dict[str, Any]:
    """Return the whole letter for JSON; the body as text, or in Base64."""
    whole = {
        **letter.row(),
        'properties': letter.properties,
        'headers': _for_json(letter.headers),
    }
    if letter.fault:
        whole['packed_base64'] = _base64(letter.packed)
    try:
        whole['body'] = letter.body.decode()
    except UnicodeDecodeError:
        whole['body_base64'] = _base64(letter.body)
    return whole


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def _for_json(value: Any) -> Any:
    """Return a value of a header for JSON; values that JSON cannot express become text."""
    from clihelper.amqp.dead_letters import as_text

    if isinstance(value, dict):
        return {name: _for_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_for_json(each) for each in value]
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    return value if value is None or isinstance(value, int) else as_text(value)


def _print_whole(letter: DeadLetter) -> None:
    for name, value in letter.row().items():
        if value not in ('', None):
            print(f'{name.replace("_", " ")}: {_line(value)}')
    for title, values in (('properties', letter.properties), ('headers', letter.headers)):
        print(f'{title}:')
        for name, value in sorted(values.items()):
            print(f'    {_line(name)}: {_line(value)}')
    if letter.fault:
        print(f'unreadable: {_line(letter.fault)}')
        print(f'packed, in Base64: {_base64(letter.packed)}')
    try:
        text = letter.body.decode()
    except UnicodeDecodeError:
        print('body: binary (--raw writes it)')
        return
    print('body:')
    print('\n'.join(_line(line) for line in text.split('\n')))


def _line(value: object) -> str:
    """Return a value as text on one line, without control characters."""
    from clihelper.amqp.dead_letters import as_text

    text = as_text(value)
    if text.isprintable():
        return text
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)
