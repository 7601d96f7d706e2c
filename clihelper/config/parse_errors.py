"""What an error of a program's ``parse`` says, and of which keys of the section.

No library is known here by name. An error says what is wrong where with ``errors()``, as
pydantic's; with ``absolute_path``, as jsonschema's; or in its text, as msgspec's and as that of a
call of Python's with unknown or missing keyword arguments.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Keys = tuple[object, ...]

UNKNOWN = 'unknown key'
MISSING = 'is missing'

_PATH = re.compile(r' - at `(key` in `)?\$([^`]*)`$')
_STEP = re.compile(r'\.([^.\[\]]+)|\[([0-9]+)\]')
_FIELD = re.compile(r'^Object (?:contains (unknown)|missing required) field `(.*)`$')
_UNEXPECTED = re.compile(r"^(?:(?P<caller>[\w.<>]+)\(\) got an u|U)nexpected keyword argument"
                         r" '(?P<key>[^']+)'(?:\. Did you mean '(?P<meant>\w+)'\?)?$")
_LACKING = re.compile(r"^(?P<caller>[\w.<>]+)\(\) missing \d+ required (?:positional|keyword-only)"
                      r" arguments?: (?P<keys>'.*)$")


def found(error: BaseException, section: dict[str, Any]) -> list[tuple[Keys, str]]:
    """Return the keys, from the section on, and the text of each fault that *error* stands for.

    :param section: what the program was given.
    """
    try:
        return list(_found(error, section))
    except Exception:  # its attributes are something else, or str() fails
        return [((), type(error).__name__)]


def _found(error: BaseException, section: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    errors = getattr(error, 'errors', None)
    path = getattr(error, 'absolute_path', None)
    if callable(errors):
        for each in errors():
            # pydantic 1 calls a whole model so.
            keys = tuple(step for step in each['loc'] if step != '__root__')
            yield keys, str(each['msg'])
    elif path is not None:
        yield tuple(path), str(getattr(error, 'message', error))
    else:
        text = str(error)
        known = _of_call(text, section) if isinstance(error, TypeError) else _of_path(text)
        if known:
            yield from known
        elif isinstance(error, (ValueError, TypeError)):
            yield (), text or type(error).__name__
        else:
            yield (), f'{type(error).__name__}: {error} ({_place(error)})'


# msgspec's texts

def _of_path(text: str) -> list[tuple[Keys, str]]:
    """Return what a text with a path at its end says; empty if it has none."""
    place = _PATH.search(text)
    keys: list[object] = []
    if place is not None:
        text, path = text[:place.start()], place[2]
        text += ', as a key' if place[1] else ''
        while path and (step := _STEP.match(path)):
            keys.append(step[1] or int(step[2]))
            path = path[step.end():]
        # Of a mapping with arbitrary keys it does not say which one: $.depots[...].port
        text += f', at {path}' if path else ''
    if field := _FIELD.match(text):
        return [((*keys, field[2]), UNKNOWN if field[1] else MISSING)]
    return [(tuple(keys), text)] if place is not None else []


# Python's texts

def _of_call(text: str, section: dict[str, Any]) -> list[tuple[Keys, str]]:
    """Return what is wrong with the keyword arguments of a call; empty if it is something else.

    It may be any call within ``parse``: that of a class with the section, of another one with a
    mapping in it, or of a function that the program itself calls wrongly.
    """
    if unexpected := _UNEXPECTED.match(text):
        key, meant = unexpected['key'], unexpected['meant']
        places = [keys for keys, each in _mappings(section) if key in each]
        if len(places) == 1:
            return [((*places[0], key), UNKNOWN + (f'; did you mean {meant}?' if meant else ''))]
    lacking = _LACKING.match(text)
    if lacking and lacking['caller'].endswith('.__init__'):
        names = re.findall("'([^']+)'", lacking['keys'])
        if len(list(_mappings(section))) == 1:
            return [((name,), MISSING) for name in names]
        whose = lacking['caller'].split('.')[-2]
        return [((), f'{name} is missing for {whose}') for name in names]
    return []


def _mappings(section: dict[str, Any]) -> Iterator[tuple[Keys, dict[Any, Any]]]:
    """Yield the section and each mapping in it, with the keys to it."""
    stack: list[tuple[Keys, Any]] = [((), section)]
    while stack:
        keys, each = stack.pop()
        if isinstance(each, dict):
            yield keys, each
            stack.extend(((*keys, name), value) for name, value in each.items())
        elif isinstance(each, list):
            stack.extend(((*keys, number), value) for number, value in enumerate(each))


def _place(error: BaseException) -> str:
    """Return the file and line that raised, for an error that is likely to be the program's."""
    import os

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return 'nowhere'
    return f'{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}'
