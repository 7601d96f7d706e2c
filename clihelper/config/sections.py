"""The application's own sections: what a program makes of them, and where an error of that is.

No library is known here by name. An error says what is wrong where with pydantic's ``errors()``,
with jsonschema's ``absolute_path``, or at the end of its text, as msgspec's.
"""

from __future__ import annotations

import re

from clihelper.config.nodes import FAULTY, Mapping, Scalar, Sequence, key_at
from clihelper.errors import Error, StopNow, StoppedEarly, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from clihelper.config.faults import Faults
    from clihelper.config.nodes import Node
    from clihelper.program import Parse

    Keys = tuple[object, ...]

LONGEST = 300
"""characters of an error's text that are shown"""

_PATH_OF_MSGSPEC = re.compile(r' - at `\$([^`]*)`$')
_STEP = re.compile(r'\.([^.\[\]]+)|\[([0-9]+)\]')


def parse(name: str, function: Parse, root: Mapping, section: Any, faults: Faults) -> Any:
    """Return what the program's *function* makes of a section.

    If it raises, a fault is noted for each error, at the key that the error names, or else at that
    of the section; the section is then returned as it was.

    :param section: its value; None: it is null, or faulty.
    """
    if name not in root.entries:
        return section
    key, node = root.entries[name]
    scalars = list(_scalars(node))
    if any(scalar.value is FAULTY for scalar in scalars):
        return section
    if section is None:
        section = {}
    if not isinstance(section, dict):
        faults.at(node, (name,), 'expected a mapping')
        return section
    try:
        return function(section)
    except (Error, StopNow, StoppedEarly):
        raise
    except (Exception, SystemExit) as error:
        for keys, text in _errors(error):
            path = (name, *keys)
            faults.at(key_at(root, path), path, _shown(text, scalars))
        return section


def _scalars(node: Node) -> Iterator[Scalar]:
    """Yield the scalars in a node."""
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, Scalar):
            yield each
        elif isinstance(each, Sequence):
            stack.extend(each.items)
        elif isinstance(each, Mapping):
            stack.extend(value for _, value in each.entries.values())


# What an error says, and of which key

def _errors(error: BaseException) -> list[tuple[Keys, str]]:
    """Return the keys, from the section on, and the text of each error in *error*."""
    try:
        return list(_named(error))
    except Exception:  # its attributes are something else, or str() fails
        return [((), type(error).__name__)]


def _named(error: BaseException) -> Iterator[tuple[Keys, str]]:
    errors = getattr(error, 'errors', None)
    path = getattr(error, 'absolute_path', None)
    if callable(errors):
        for each in errors():
            yield tuple(each['loc']), str(each['msg'])
    elif path is not None:
        yield tuple(path), str(getattr(error, 'message', error))
    elif isinstance(error, (ValueError, TypeError)):
        text = str(error)
        found = _PATH_OF_MSGSPEC.search(text)
        steps = _STEP.findall(found[1]) if found else []
        keys = tuple(name or int(number) for name, number in steps)
        yield keys, (text[:found.start()] if found else text) or type(error).__name__
    else:
        yield (), f'{type(error).__name__}: {error} ({_place(error)})'


def _place(error: BaseException) -> str:
    """Return the file and line that raised, for an error that is likely to be the program's."""
    import os

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return 'nowhere'
    return f'{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}'


def _shown(text: str, scalars: list[Scalar]) -> str:
    """Return a text as one line of bounded length, without what a terminal would act on.

    It shows no password of an address, and nothing if it contains a value from elsewhere.
    """
    text = one_line(text)
    for scalar in scalars:
        forms = (one_line(scalar.text), one_line(repr(scalar.text)[1:-1]))
        if scalar.origin and any(form and form in text for form in forms):
            return f'refused; the reason is not shown because it contains {scalar.origin}'
    text = re.sub(r'(://[^/\s:@]*:)[^/\s@]*@', r'\1***@', text)
    if len(text) > LONGEST:
        text = text[: LONGEST - 3] + '...'
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)
