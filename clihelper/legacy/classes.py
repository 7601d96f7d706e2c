"""Inspection of a program's classes, and the controller that runs."""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_running: Callable[[], Any] | None = None


def set_running(controller: object) -> None:
    """Record the controller that the process runs, by a weak reference."""
    global _running
    _running = weakref.ref(controller)


def running() -> Any:
    """Return the controller that runs, or None."""
    return _running() if _running is not None else None


def classes_of_program(cls: type) -> Iterator[type]:
    """Yield *cls* and its bases, up to the first one of clihelper's own."""
    for each in cls.__mro__:
        if each.__module__.partition('.')[0] == 'clihelper':
            return
        yield each


def mentioned(classes: Iterable[type]) -> set[str]:
    """Return the names of attributes and globals that methods of the classes use."""
    codes = (code_of(value) for each in classes for value in vars(each).values())
    return {name for code in codes if code is not None for name in code.co_names}


def code_of(value: Any) -> Any:
    """Return the code of a function, a method or a property; otherwise None."""
    function = getattr(value, 'fget', None) or getattr(value, '__func__', None) or value
    return getattr(function, '__code__', None)
