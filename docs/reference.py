"""The reference of the configuration in reStructuredText, made from the schema.

Sphinx puts it in the place of ``reference.rst`` (``conf.py``); ``python docs/reference.py`` prints
it.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from clihelper.config import schema  # noqa: E402  (the folder above comes first)

HEAD = '''\
.. This page is made by docs/reference.py from clihelper/config/schema.py.

Configuration reference
=======================

Every section and key that clihelper knows. A section or key that is absent has its default; null
stands for an empty mapping. Sections that are not listed here belong to the application.
'''


def page() -> str:
    """The whole page."""
    return '\n'.join([HEAD, *(line for key in schema.SECTIONS.keys.values()
                              for line in section(key))])


def section(key: schema.Key) -> list[str]:
    """A section of the configuration: what it is for, its table, and the tables in it."""
    assert isinstance(key.type, schema.Table)
    return [*heading(key.name, '-'), key.meaning, '', *table(key.name, key.type)]


def table(name: str, rows: schema.Table) -> list[str]:
    """The keys of one mapping, then those of the mappings in it."""
    is_section = '.' not in name
    lines = [
        '.. list-table::', '   :header-rows: 1',
        f'   :widths: {"17 20 18 33 12" if is_section else "18 24 20 38"}', '',
        '   * - Key', '     - Type', '     - Default', '     - Meaning',
        *(['     - Takes effect'] if is_section else []),
    ]
    for key in rows.keys.values():
        lines += [f'   * - ``{key.name}``', f'     - {literal_stars(key.type.words)}',
                  f'     - {default(key)}', f'     - {key.meaning}']
        if is_section:
            lines.append(f'     - {effect(key)}')
    lines.append('')
    if rows.free:
        lines += ['Further keys are passed on as they are.', '']
    for key in rows.keys.values():
        lines += inner(f'{name}.{key.name}', key.type)
    return lines


def inner(name: str, type: object) -> list[str]:
    """The table of a mapping within a table, if the type has one."""
    if isinstance(type, schema.Map):
        name, type = f'{name}.<{type.name}>', type.value
    if isinstance(type, schema.List):
        name, type = f'{name}[]', type.item
    if isinstance(type, schema.Either):
        type = type.alternative(mapping=True, sequence=False)
    return [*heading(name, '~'), *table(name, type)] if isinstance(type, schema.Table) else []


def heading(text: str, line: str) -> list[str]:
    """A heading and its underline."""
    return [text, line * len(text), '']


def default(key: schema.Key) -> str:
    """A default in words, or as one would write it in YAML."""
    if key.otherwise:
        return key.otherwise
    if isinstance(key.type, schema.Table):
        return 'its defaults'
    value = key.default
    if value is None or value == {} or value == []:
        return 'none'
    if isinstance(value, bool):
        return f'``{str(value).lower()}``'
    if isinstance(value, list):
        return f'``[{", ".join(value)}]``'
    return f'``{value}``'


def effect(key: schema.Key) -> str:
    """When a change takes effect."""
    when = {schema.AT_ONCE: 'USR1, HUP', schema.AT_RELOAD: 'HUP', schema.AT_START: 'start'}
    words = when[key.effect]
    return f'{words}; without workers: start' if key.supervised else words


def literal_stars(words: str) -> str:
    """Words in which reStructuredText sees no markup."""
    return words.replace('*', r'\*').replace('`', r'\`')


if __name__ == '__main__':
    print(page())
