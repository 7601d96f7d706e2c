"""What a program declares before it runs, its classes, and its files that hide a module."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any, ClassVar, Protocol

    class Dataclass(Protocol):
        """An object of a class that :func:`dataclasses.dataclass` has made."""

        __dataclass_fields__: ClassVar[dict[str, Any]]

    Parse = Callable[[dict[str, Any]], Any] | type[Dataclass]

LIBRARIES = frozenset({'amqp', 'daemon', 'kombu', 'lockfile', 'tornado', 'vine', 'yaml'})
"""The packages that clihelper imports, besides those of Python"""


class Program:
    """The values set by :func:`clihelper.setup` and :func:`clihelper.add_config_key`.

    :ivar name: the program's name; None: the name that it was started by.
    :ivar description: a sentence for ``--help``.
    :ivar version: what ``--version`` prints after the name.
    :ivar required_sections: the sections that the configuration must contain.
    :ivar parsers: what turns a section into what the program wants, by the section's name.
    :ivar default_pidfile: returns the default of ``Daemon.pidfile`` for the name of the program;
        None: the usual directories are searched.
    :ivar default_logs_directory: the default of ``Daemon.logs_directory``; None: the working
        directory.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.description: str | None = None
        self.version: str | None = None
        self.required_sections: list[str] = []
        self.parsers: dict[str, Parse] = {}
        self.default_pidfile: Callable[[str], str] | None = None
        self.default_logs_directory: str | None = None


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


def explain_hidden(error: BaseException | None = None) -> str | None:
    """Return a line that names the file which hides a module, if an error is due to one.

    Python looks for modules in the program's own folder first: a ``yaml.py`` there is imported in
    place of PyYAML. A program that is called so itself is begun a second time, as that module.

    :param error: an exception that was caught where this is called; None: only look whether the
        code that calls this is itself such a file's.
    """
    for name in {*_modules_of(error), *_running(sys._getframe())}:
        path = _hiding(name)
        if path is not None:
            return f'{path} is in the way of the module {name}, which clihelper needs: rename it'
    return None


def _hiding(name: str) -> str | None:
    """Return the file that is imported in place of a module of Python's, or of a library."""
    if name not in LIBRARIES and name not in sys.stdlib_module_names:
        return None
    for folder in map(os.path.abspath, sys.path):
        path = os.path.join(folder, name)
        if folder == os.path.dirname(os.__file__):
            return None
        if os.path.isfile(f'{path}.py'):
            return f'{path}.py'
        if os.path.isdir(path) and name in LIBRARIES:
            return None
    return None


def _modules_of(error: BaseException | None) -> Iterator[str]:
    """Yield the modules that an error and its causes are about, or went through."""
    while error is not None:
        if isinstance(error, ImportError) and error.name:
            yield error.name.partition('.')[0]
        if isinstance(error, AttributeError) and isinstance(error.obj, type(sys)):
            yield error.obj.__name__
        trace = error.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_globals.get('__name__', '')
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def _running(frame: FrameType | None) -> Iterator[str]:
    """Yield the modules whose code is running."""
    while frame is not None:
        yield frame.f_globals.get('__name__', '')
        frame = frame.f_back
