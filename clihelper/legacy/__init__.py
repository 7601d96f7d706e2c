"""Programs of clihelper 1.0 to 1.7: the functions that the rest of the package calls.

There are two entry points. The first is when a controller is about to be made
(:func:`make_controller`): its class may be written for 1.x. The second is when a program reads a
name that the package does not have, or assigns to one (:func:`module_attribute`, :func:`assign`).
The rest is imported only for programs of 1.x: ``adaptation`` makes a class of the program inherit
from ``controller``, whose ``driver`` calls the program's hooks; ``module`` provides what the
package itself had; ``forking`` makes the program's child processes be forked.

Importing this module registers with :class:`~clihelper.controller.Controller` the names from 1.x
that every controller has.
"""

from __future__ import annotations

import sys

from clihelper.controller import Controller
from clihelper.legacy.running import set_running
from clihelper.legacy.tables import CONSTANTS, DEFINED, MENTIONED, OF_MODULE
from clihelper.program import classes_of_program, mentioned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from clihelper.lifecycle import LifeCycle
    from clihelper.options import Options

    C = TypeVar('C', bound=Controller)

#: Names from 1.x that can be read on any controller, including one written for 2.0.
READABLE = frozenset(row[0] for row in CONSTANTS) | {
    '_options', '_arguments', '_debug', '_get_application_config', '_get_config',
    '_get_wake_interval', 'logging_config', 'is_shutting_down',
}


def make_controller(
    cls: type[C], life: LifeCycle, options: Options, arguments: list[str]
) -> C:
    """Make a controller whose configuration is already available in its ``__init__``.

    If its class is written for 1.x, make it inherit what it had there.
    """
    own = list(classes_of_program(cls))
    defined = {name for each in own for name in vars(each)}
    names = mentioned(own)
    if defined & DEFINED or names & MENTIONED or _may_run_ioloop(defined, names):
        from clihelper.legacy import adaptation, forking

        adaptation.adapt(cls, own)
        forking.fork_by_default()
    controller = cls.__new__(cls)
    set_running(controller)
    controller.attach(life)
    controller.__init__(options, arguments)  # type: ignore[misc]
    return controller


def module_attribute(name: str) -> Any:
    """Return the value of a name that only the package of 1.x had.

    :raises AttributeError: 1.x did not have the name either.
    """
    if name in OF_MODULE:
        from clihelper.legacy import forking, module

        forking.fork_by_default()
        return module.read(name)
    raise AttributeError(f"module 'clihelper' has no attribute {name!r}", name=name)


def assign(name: str, value: object) -> bool:
    """Assign to a name that the package had in 1.x; return False if it did not have it."""
    if name not in OF_MODULE:
        return False
    from clihelper.legacy import forking, module

    forking.fork_by_default()
    module.assign(name, value)
    return True


def _attribute(controller: Controller, name: str) -> Any:
    """Return the value of one of the names in :data:`READABLE`."""
    from clihelper.legacy.controller import LegacyController

    return vars(LegacyController)[name].__get__(controller, type(controller))


def _may_run_ioloop(defined: set[str], names: set[str]) -> bool:
    """Return whether ``_process`` may start Tornado's IOLoop and another hook stop it."""
    return (
        'tornado.ioloop' in sys.modules
        and '_process' in defined
        and not defined.isdisjoint(('_cleanup', '_shutdown'))
        and 'start' in names
        and not names.isdisjoint(('IOLoop', 'ioloop'))
    )


Controller.further_attributes = dict.fromkeys(READABLE, _attribute)
