"""Programs of clihelper 1.0 to 1.7: what the rest of the package calls of this folder.

There are two ways in. A controller is about to be made (:func:`new_controller`), whose class may
be of that time; and the package is asked for a name that it does not have, or that is assigned
(:func:`module_attribute`, :func:`assign`). The rest is imported for programs of that time only:
``adaptation`` has a class of the program inherit from ``controller``, whose ``driver`` calls its
hooks; ``module`` has what the package had; ``forking`` has its child processes forked.

Importing this registers with :class:`~clihelper.controller.Controller` the names that every
controller has from 1.x.
"""

from __future__ import annotations

import sys

from clihelper.controller import Controller
from clihelper.legacy.classes import classes_of_program, mentioned, set_running
from clihelper.legacy.tables import CONSTANTS, DEFINED, MENTIONED, OF_MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    C = TypeVar('C', bound=Controller)

#: Names from 1.x that are read of any controller, also of one that is written for today.
READABLE = frozenset(row[0] for row in CONSTANTS) | {
    '_options', '_arguments', '_debug', '_get_application_config', '_get_config',
    '_get_wake_interval', 'logging_config', 'is_shutting_down',
}


def new_controller(cls: type[C]) -> C:
    """Make a controller, not initialized; its class inherits what it had in 1.x, if it is of
    that time."""
    own = list(classes_of_program(cls))
    defined = {name for each in own for name in vars(each)}
    names = mentioned(own)
    if defined & DEFINED or names & MENTIONED or _may_run_ioloop(defined, names):
        from clihelper.legacy import adaptation, forking

        adaptation.adapt(cls, own)
        forking.fork_by_default()
    controller = cls.__new__(cls)
    set_running(controller)
    return controller


def module_attribute(name: str) -> Any:
    """A name that the package does not have, from 1.x.

    :raises AttributeError: it was not there either.
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


def _attribute(controller: Controller, name: str) -> Any:
    """One of :data:`READABLE`."""
    from clihelper.legacy.controller import LegacyController

    return vars(LegacyController)[name].__get__(controller, type(controller))


def _may_run_ioloop(defined: set[str], names: set[str]) -> bool:
    """Whether ``_process`` may start Tornado's IOLoop, for another hook to stop, as was usual."""
    return (
        'tornado.ioloop' in sys.modules
        and '_process' in defined
        and not defined.isdisjoint(('_cleanup', '_shutdown'))
        and 'start' in names
        and not names.isdisjoint(('IOLoop', 'ioloop'))
    )


Controller.further_attributes = dict.fromkeys(READABLE, _attribute)
