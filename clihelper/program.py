"""What a program declares before it runs: its name, what it needs, where its pidfile is."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Parse = Callable[[dict[str, Any]], Any]


class Program:
    """The values set by :func:`clihelper.setup` and :func:`clihelper.add_config_key`.

    :ivar name: the program's name; None: the name that it was started by.
    :ivar description: a sentence for ``--help``.
    :ivar version: what ``--version`` prints after the name.
    :ivar required_sections: the sections that the configuration must contain.
    :ivar parsers: what turns a section into what the program wants, by the section's name.
    :ivar default_pidfile: returns the default of ``Daemon.pidfile`` for the name of the program;
        None: the usual directories are searched.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.description: str | None = None
        self.version: str | None = None
        self.required_sections: list[str] = []
        self.parsers: dict[str, Parse] = {}
        self.default_pidfile: Callable[[str], str] | None = None


current = Program()
"""The program of this process"""


def pidfile_directories(as_root: bool) -> list[str]:
    """The directories that a pidfile is in by default, the first one first.

    See RUNTIME_DIRECTORY in :manpage:`systemd.exec(5)`, and XDG_RUNTIME_DIR in the XDG Base
    Directory Specification.
    """
    found = [os.environ.get('RUNTIME_DIRECTORY', '').partition(':')[0]]
    found.append('/run' if as_root else os.environ.get('XDG_RUNTIME_DIR', ''))
    return [directory for directory in found if directory]


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
