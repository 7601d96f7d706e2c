"""Programs of clihelper 1.0 to 1.7: the door of the room, which is all that others know of it.

Three things lead here. A subclass of ``Controller`` is about to be made (:func:`adapt`); a
controller is asked for an attribute that it has not (:func:`has`, :func:`attribute`); the package
is asked for a name that it has not, or that is assigned (:func:`module_attribute`,
:func:`assign`). What is behind the door is imported for programs of that time only:
``adaptation`` has a class of the program inherit from ``controller``, whose ``driver`` calls its
hooks; ``module`` has what the package had; ``forking`` has its child processes forked.
"""

from __future__ import annotations

import sys
import weakref

from clihelper.legacy.tables import CONSTANTS, DEFINED, MENTIONED, OF_MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_running: Callable[[], Any] | None = None

#: Names that a controller of today has not, and that do not need one of that time.
READABLE = frozenset(row[0] for row in CONSTANTS) | {
    '_options', '_arguments', '_debug', '_get_application_config', '_get_config',
    '_get_wake_interval', 'logging_config', 'is_shutting_down',
}


def adapt(controller: object) -> None:
    """Let a program's class inherit what it had in 1.x, if it is of that time.

    :param controller: made, but not initialized.
    """
    global _running
    _running = weakref.ref(controller)  # it is not kept for this
    cls = type(controller)
    own = list(_classes_of_program(cls))
    defined = {name for each in own for name in vars(each)}
    mentioned = set().union(*_mentioned(own))
    if defined & DEFINED or mentioned & MENTIONED or _may_run_ioloop(defined, mentioned):
        from clihelper.legacy import adaptation, forking

        adaptation.adapt(cls, own)
        forking.fork_by_default()


def running() -> Any:
    """The controller that runs, or None."""
    return _running() if _running is not None else None


def has(name: str) -> bool:
    """Whether a controller of today that has not an attribute has it from 1.x."""
    return name in READABLE


def attribute(controller: object, name: str) -> Any:
    """Such an attribute."""
    from clihelper.legacy.controller import Former

    return vars(Former)[name].__get__(controller, type(controller))


def module_attribute(name: str) -> Any:
    """A name that the package has not, from 1.x.

    :raises AttributeError: nor was it there.
    """
    if name in OF_MODULE:
        from clihelper.legacy import forking, module

        forking.fork_by_default()
        return module.read(name)
    raise AttributeError(f"module 'clihelper' has no attribute {name!r}", name=name)


def assign(name: str, value: object) -> bool:
    """Assign to a name that the package had in 1.x; False: it had none of that name."""
    if name not in OF_MODULE:
        return False
    from clihelper.legacy import forking, module

    forking.fork_by_default()
    module.assign(name, value)
    return True


def _classes_of_program(cls: type) -> Iterator[type]:
    """The classes that come before clihelper's own; a later one would not have been asked."""
    for each in cls.__mro__:
        if each.__module__.partition('.')[0] == 'clihelper':
            return
        yield each


def _may_run_ioloop(defined: set[str], mentioned: set[str]) -> bool:
    """Whether ``_process`` may start Tornado's IOLoop, for another hook to stop, as was usual."""
    return (
        'tornado.ioloop' in sys.modules
        and '_process' in defined
        and not defined.isdisjoint(('_cleanup', '_shutdown'))
        and 'start' in mentioned
        and not mentioned.isdisjoint(('IOLoop', 'ioloop'))
    )


def _mentioned(classes: list[type]) -> Iterator[set[str]]:
    """The names of attributes and globals that methods of the classes use."""
    for each in classes:
        for value in vars(each).values():
            function = getattr(value, 'fget', None) or getattr(value, '__func__', None) or value
            code = getattr(function, '__code__', None)
            if code is not None:
                yield set(code.co_names)
