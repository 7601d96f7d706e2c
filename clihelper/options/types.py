"""The options of the command line, for type checkers and editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol


class Options(Protocol):
    """What ``self.options`` has: clihelper's own options, and those that the program adds.

    The program's own are of any type, unless it declares them::

        class OrderOptions(clihelper.Options, Protocol):
            dry_run: bool


        class Orders(clihelper.Controller):
            options: OrderOptions
    """

    configuration: str
    """the file, as it was typed"""

    foreground: bool
    """whether the program stays in the terminal"""

    check: bool
    """whether the configuration is only checked"""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class OptionsAttribute:
    """``Controller.options``, as type checkers see it.

    A subclass may declare it as more than :class:`Options`: a variable would be invariant.
    """

    def __get__(self, controller: object, cls: type) -> Options:
        raise NotImplementedError

    def __set__(self, controller: object, options: Options) -> None:
        raise NotImplementedError
