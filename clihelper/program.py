"""What a program declares before it runs: its name, what it needs, where its pidfile is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Program:
    """The values set by :func:`clihelper.setup` and :func:`clihelper.add_config_key`.

    :ivar name: the program's name; None: the name that it was started by.
    :ivar description: a sentence for ``--help``.
    :ivar version: what ``--version`` prints after the name.
    :ivar required_sections: the sections that the configuration must contain.
    :ivar default_pidfile: returns the default of ``Daemon.pidfile`` for the name of the program;
        None: the usual directories are searched.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.description: str | None = None
        self.version: str | None = None
        self.required_sections: list[str] = []
        self.default_pidfile: Callable[[str], str] | None = None


current = Program()
"""The program of this process"""
