"""Write a configuration with every key of the schema, explained, and commented out by default.

It is made from :mod:`clihelper.config.schema`, as validation and the reference are.
"""

from __future__ import annotations

import re
import textwrap

from clihelper.config import schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

WIDTH = 88

_NONE: Any = object()


def render(head: str, chosen: Mapping[str, Mapping[str, Any] | str]) -> str:
    """Return the text of a configuration.

    :param head: what it is, in one or more lines.
    :param chosen: the sections that it contains, each with the values that are not left at their
        defaults; a string is inserted unchanged.
    """
    lines = [line for part in head.splitlines() for line in _comment(part)]
    for key in schema.SECTIONS.keys.values():
        if key.name not in chosen:
            continue
        value = chosen[key.name]
        lines += ['', *_comment(_plain(key.meaning)), f'{key.name}:']
        if isinstance(value, str):
            lines += _indented(value.rstrip().splitlines())
        else:
            assert isinstance(key.type, schema.Table)
            lines += _indented(_table(key.type, value))
    return '\n'.join(lines) + '\n'


def _table(table: schema.Table, chosen: Mapping[str, Any]) -> list[str]:
    """Return the keys of a mapping; those that are not clihelper's come last."""
    lines = []
    for key in table.keys.values():
        lines += _entry(key, chosen.get(key.name, _NONE))
    for name, value in chosen.items():
        if name not in table.keys:
            lines.append(f'{name}: {_flow(value)}')
    return lines


def _entry(key: schema.Key, value: Any) -> list[str]:
    """Return a key below its explanation; commented out if it is not chosen."""
    explained = _comment(f'{_plain(key.meaning)} It is {_plain(key.type.words)};'
                         f' default: {_default(key)}.')
    if value is not _NONE:
        return [*explained, *_assigned(key, value)]
    return [*explained, *(f'# {line}' for line in _assigned(key, _NONE))]


def _assigned(key: schema.Key, value: Any) -> list[str]:
    """Return ``key: value``; the entries of a mapping follow below."""
    kind: Any = key.type
    if isinstance(kind, schema.Either):
        kind = next((each for each in kind.types if isinstance(each, schema.Table)), kind)
    if isinstance(kind, schema.Table) and (value is _NONE or isinstance(value, dict)):
        return [f'{key.name}:', *_indented(_table(kind, _all(kind) if value is _NONE else value))]
    if isinstance(kind, schema.Map):
        lines = [f'{key.name}:']
        for name, one in ({kind.name.upper(): _all(kind.value)} if value is _NONE
                          else value).items():
            lines += _indented([f'{name}:', *_indented(_table(kind.value, one))])
        return lines
    return [f'{key.name}: {_typed(key) if value is _NONE else _flow(value)}'.rstrip()]


def _all(table: schema.Table) -> dict[str, Any]:
    """Return every key of a table, for a table that is commented out as a whole."""
    return {key.name: None if key.default is schema.ABSENT else key.default
            for key in table.keys.values()}


def _typed(key: schema.Key) -> str:
    """Return the default as one would type it; empty if it cannot be typed."""
    literal = re.fullmatch(r'``(\S+)``', key.otherwise)
    if literal:
        return literal[1]
    return '' if key.default in (schema.ABSENT, None) else _flow(key.default)


def _default(key: schema.Key) -> str:
    if key.otherwise:
        return _plain(key.otherwise)
    if isinstance(key.type, schema.Table):
        return 'as below'
    return 'none' if key.default in (schema.ABSENT, None, {}, []) else _flow(key.default)


def _flow(value: Any) -> str:
    """Return a value in YAML's flow style."""
    if value is None:
        return ''
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f'[{", ".join(map(_flow, value))}]'
    if isinstance(value, dict):
        return f'{{{", ".join(f"{name}: {_flow(one)}" for name, one in value.items())}}}'
    return str(value)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent='# ', subsequent_indent='# ',
                         break_long_words=False, break_on_hyphens=False)


def _indented(lines: list[str]) -> list[str]:
    return [f'  {line}' if line else line for line in lines]


def _plain(text: str) -> str:
    """Return a text of the schema without the markup of the reference."""
    text = re.sub(r'\\ :sup:`(\w+)`', r'^\1', text)
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?(\w+)`', r'\1', text)
    return text.replace('``', '')
