"""Making a class of a program of 1.x inherit what ``Controller`` had then."""

from __future__ import annotations

from clihelper.controller import Controller
from clihelper.legacy import deprecation
from clihelper.legacy.controller import LegacyController
from clihelper.legacy.hooks import resolve
from clihelper.legacy.tables import CONTROLLER, HOOKS, MODULE
from clihelper.program import mentioned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ROWS = [row for table in (*CONTROLLER, *MODULE) for row in table]
EARLIER = frozenset(row[0] for row in _ROWS if row[2].startswith('1.0-'))
"""Names that were removed in 1.6"""
LATER = frozenset(row[0] for row in _ROWS if row[2].startswith('1.6'))
"""Names that were added in 1.6"""
HOOKS_CALLED_BY_NAME = [row[0] for row in HOOKS if row[0] in vars(LegacyController)]
"""Hooks that a program may call as ``clihelper.Controller.cleanup(self)``"""


def adapt(cls: Any, own: list[Any]) -> None:
    """Replace ``Controller`` with :class:`LegacyController` among the bases.

    :param cls: the class of the controller that is about to be made.
    :param own: this class, and those of its bases that belong to the program.
    """
    if cls.__mro__[len(own)] not in (Controller, LegacyController):
        return
    owners = {name: each for each in reversed(own) for name in vars(each)}
    cls.defined_by_program, cls.hooks_of_program = resolve(
        {name: vars(owner)[name] for name, owner in owners.items()}
    )
    names = cls.defined_by_program | mentioned(own)
    cls.later = bool(names & LATER) and not names & EARLIER
    for each in own:
        if Controller in each.__bases__:
            each.__bases__ = tuple(
                LegacyController if base is Controller else base for base in each.__bases__)
    for name in HOOKS_CALLED_BY_NAME:
        if not hasattr(Controller, name):
            setattr(Controller, name, vars(LegacyController)[name])
    for name, owner in owners.items():
        if name in cls.defined_by_program:
            deprecation.defined(owner, name)
