"""How dead letters are printed: as tables, as JSON, or one as a whole."""

from __future__ import annotations

import os
import sys

from clihelper.amqp.dead_letters import as_text
from clihelper.commands.letter_form import for_yaml
from clihelper.commands.letter_groups import cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import Counter
    from typing import Any

    from clihelper.amqp.dead_letters import DeadLetter

LETTER_HEADINGS = {
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

GROUP_HEADINGS = {
    'group': 'GROUP',
    'count': 'COUNT',
    'queue': 'QUEUE',
    'reason': 'REASON',
    'exception': 'EXCEPTION',
    'first': 'FIRST',
    'last': 'LAST',
    'example': 'EXAMPLE',
    'message': 'MESSAGE',
}


def print_json(what: Any) -> None:
    """Print an object as JSON."""
    import json

    print(json.dumps(what, indent=2))


def print_table(rows: list[dict[str, Any]], headings: dict[str, str]) -> None:
    """Print one line per row; on a terminal, cut to its width.

    :param headings: the columns by name.
    """
    if not rows:
        return
    cells = [[*headings.values()]]
    cells += [['' if row[name] is None else line(row[name]) for name in headings] for row in rows]
    _print_columns(cells)


def print_summary(counts: Counter[tuple[str, ...]]) -> None:
    """Print how many letters there are by queue, reason and exception."""
    cells = [['COUNT', 'QUEUE', 'REASON', 'EXCEPTION']]
    for kind, count in counts.most_common():
        cells.append([str(count), *map(line, kind)])
    print()
    _print_columns(cells)
    print()


def _print_columns(cells: list[list[str]]) -> None:
    cells = [[cut(cell) for cell in row] for row in cells]
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        text = '  '.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        print((text[:width] if width else text).rstrip())


def whole(letter: DeadLetter) -> dict[str, Any]:
    """Return the whole letter for JSON; the body as text, or in Base64."""
    found = {
        **letter.row(),
        'properties': letter.properties,
        'headers': for_yaml(letter.headers),
    }
    if letter.fault:
        found['packed_base64'] = _base64(letter.packed)
    try:
        found['body'] = letter.body.decode()
    except UnicodeDecodeError:
        found['body_base64'] = _base64(letter.body)
    return found


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def print_facts(row: dict[str, Any]) -> None:
    """Print the facts about a letter or a group, one per line, except for those not known."""
    for name, value in row.items():
        if value not in ('', None):
            print(f'{name.replace("_", " ")}: {line(value)}')


def print_whole(letter: DeadLetter) -> None:
    """Print a letter with its properties, headers and body."""
    print_facts(letter.row())
    for title, values in (('properties', letter.properties), ('headers', letter.headers)):
        print(f'{title}:')
        for name, value in sorted(values.items()):
            print(f'    {line(name)}: {line(value)}')
    if letter.fault:
        print(f'unreadable: {line(letter.fault)}')
        print(f'packed, in Base64: {_base64(letter.packed)}')
    try:
        text = letter.body.decode()
    except UnicodeDecodeError:
        print('body: binary (--raw writes it)')
        return
    print('body:')
    print('\n'.join(line(each) for each in text.split('\n')))


def line(value: object) -> str:
    """Return a value as text on one line, without control characters."""
    text = as_text(value)
    if text.isprintable():
        return text
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)
