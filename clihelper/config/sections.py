"""The application's own sections: what a program makes of them, and the faults of that."""

from __future__ import annotations

import re

from clihelper.config import parse_errors
from clihelper.config.nodes import FAULTY, Mapping, Scalar, Sequence, key_at
from clihelper.errors import Error, StopNow, StoppedEarly, did_you_mean, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from clihelper.config.faults import Faults
    from clihelper.config.nodes import Node
    from clihelper.config.parse_errors import Keys
    from clihelper.program import Parse

LONGEST = 300
"""characters of an error's text that are shown"""

PIECE = 12
"""characters at an end of a long value that reveal it: libraries shorten what they quote"""


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
    given = list(section)  # the program may change what it gets
    try:
        return _called(function, section)
    except (Error, StopNow, StoppedEarly):
        raise
    except (Exception, SystemExit) as error:
        written: Any = node.plain()
        for keys, text in _faults(error, function, {each: written[each] for each in given}):
            path = (name, *keys)
            faults.at(key_at(root, path), path, _shown(text, scalars))
        return section


def _faults(
    error: BaseException, function: Any, section: dict[str, Any]
) -> list[tuple[Keys, str]]:
    """Return the keys, from the section on, and the texts of what is wrong."""
    if isinstance(error, TypeError) and hasattr(function, '__dataclass_fields__'):
        known = _arguments(function, section)
        if known:
            return known
    return parse_errors.found(error, section)


def _called(function: Any, section: dict[str, Any]) -> Any:
    """Call the program's function; a dataclass, with the keys as keyword arguments."""
    return function(**section) if hasattr(function, '__dataclass_fields__') else function(section)


def _arguments(cls: type, section: dict[str, Any]) -> list[tuple[Keys, str]]:
    """Return the keys that are no arguments of a class, and its arguments that are missing."""
    from inspect import Parameter, signature

    known = signature(cls).parameters.values()
    if any(each.kind is Parameter.VAR_KEYWORD for each in known):
        return []
    names = [each.name for each in known]
    return [
        *(((name,), parse_errors.UNKNOWN + did_you_mean(name, names))
          for name in section if name not in names),
        *(((each.name,), parse_errors.MISSING) for each in known
          if each.default is Parameter.empty and each.name not in section),
    ]


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


def _shown(text: str, scalars: list[Scalar]) -> str:
    """Return a text as one line of bounded length, without what a terminal would act on.

    It shows no password of an address, and nothing if it contains a value from elsewhere.
    """
    text = one_line(text)
    for scalar in scalars:
        if scalar.origin and any(form in text for form in _forms(scalar)):
            return f'refused; the reason is not shown because it contains {scalar.origin}'
    text = re.sub(r'(://[^/\s:@]*:)[^/\s@]*@', r'\1***@', text)
    if len(text) > LONGEST:
        text = text[: LONGEST - 3] + '...'
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _forms(scalar: Scalar) -> set[str]:
    """Return the texts by which a value could be recognised: of a long one, its ends are two."""
    whole = scalar.text, repr(scalar.text)[1:-1], str(scalar.value)
    forms = {one_line(each) for each in whole} - {''}
    long = [each for each in forms if len(each) >= 2 * PIECE]
    return forms | {each[:PIECE] for each in long} | {each[-PIECE:] for each in long}
