"""The DeprecationWarning for an old name: once, with the new name, at the user's line."""

from __future__ import annotations

import linecache
import re
import sys
import warnings

from clihelper.legacy.tables import OF_CONTROLLER, OF_MODULE
from clihelper.program import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from clihelper.legacy.tables import Row

_warned: set[str] = set()


def used(row: Row) -> None:
    """Warn that an old name is used, at the nearest caller outside clihelper."""
    if row[0] in _warned:
        return
    frame = _user(sys._getframe(1))
    if frame is not None:
        _warn(row, frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


def used_of_controller(name: str) -> None:
    """Like :func:`used`, for a name of a controller."""
    if name in OF_CONTROLLER:
        used(OF_CONTROLLER[name])


def used_of_module(name: str) -> None:
    """Like :func:`used`, for a name of the module."""
    if name in OF_MODULE:
        used(OF_MODULE[name])


def defined(owner: type, name: str) -> None:
    """Warn that a class defines an old name, at the line of the definition."""
    if name not in OF_CONTROLLER or name in _warned:
        return
    module = sys.modules.get(owner.__module__)
    code = code_of(vars(owner)[name])
    if code is not None:
        filename, line = code.co_filename, code.co_firstlineno
    else:
        filename = getattr(module, '__file__', None) or '<unknown>'
        line = _line_of_assignment(filename, name)
    _warn(OF_CONTROLLER[name], filename, line, vars(module) if module else {})


def text(row: Row) -> str:
    """Return the text for an old name, which ``clihelper upgrade-check`` also shows."""
    old, new, since, _ = row
    return f'{old} is a name of clihelper {since}; now: {new}'


def _warn(row: Row, filename: str, line: int, names: dict[str, Any]) -> None:
    _warned.add(row[0])
    warnings.warn_explicit(
        text(row), DeprecationWarning, filename, line,
        module=names.get('__name__', '<unknown>'),
        registry=names.setdefault('__warningregistry__', {}),
    )


def _user(frame: FrameType | None) -> FrameType | None:
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if not (name == 'clihelper' or name.startswith(('clihelper.', 'importlib._bootstrap'))):
            return frame
        frame = frame.f_back
    return None


def _line_of_assignment(filename: str, name: str) -> int:
    assignment = re.compile(rf'\s+{name}\s*=')
    lines = linecache.getlines(filename)
    return next((n for n, line in enumerate(lines, 1) if assignment.match(line)), 1)
