"""The tables of the names of clihelper 1.x in reStructuredText, made from the package's.

Sphinx puts them behind the text of ``upgrading.rst`` (``conf.py``); ``python docs/upgrading.py``
prints them.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from clihelper.legacy import tables as names  # noqa: E402  (the folder above comes first)

PARTS = (
    ('Functions of the module', names.FUNCTIONS),
    ('Variables of the module', names.GLOBALS),
    ('Methods of a controller', names.HOOKS),
    ('Attributes of a controller', names.ACCESSORS),
    ('Constants of a controller', names.CONSTANTS),
)


def tables() -> str:
    """All of them, behaviour first."""
    lines = [
        '', 'What is otherwise than it was', '-----------------------------', '',
        *table(('When', 'Now', 'Until then'), (25, 40, 35),
               [(when, now, was or 'The same.') for when, now, _, was in names.BEHAVIOUR]),
        'The names', '---------', '',
        '*Since* is the first version that had a name, or the first and the last one. Where a name'
        ' is its own successor, nothing need be changed.', '',
    ]
    for heading, rows in PARTS:
        lines += [heading, '~' * len(heading), '', *table(
            ('Name', 'Since', 'Now', 'Note'), (26, 12, 32, 30),
            [(f'``{old}``', since, 'the same' if old == new else f'``{new}``', note)
             for old, new, since, note in rows],
        )]
    return '\n'.join(lines) + '\n'


def table(
    heads: tuple[str, ...], widths: tuple[int, ...], rows: list[tuple[str, ...]]
) -> list[str]:
    """A table with a head."""
    lines = ['.. list-table::', '   :header-rows: 1',
             f'   :widths: {" ".join(map(str, widths))}', '']
    for row in (heads, *rows):
        for number, cell in enumerate(row):
            lines.append(f'   {"* -" if number == 0 else "  -"} {cell}'.rstrip())
    return [*lines, '']


if __name__ == '__main__':
    print(tables())
