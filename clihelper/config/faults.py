"""The faults of a configuration file, and how a fault names a value without revealing it."""

from __future__ import annotations

from clihelper.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn, Protocol

    class Positioned(Protocol):
        """A part of the file."""

        line: int
        column: int

#: How many faults are reported one by one; the rest are only counted.
MAX_FAULTS = 100


class Faults:
    """The faults of one file, each with its place; each becomes one line of text.

    :param shown: the file as the user typed it.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self._found: list[tuple[int, int, str]] = []
        self._unreported = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def full(self) -> bool:
        """Whether further faults are only counted, so that no work need go into their text."""
        return len(self._found) >= MAX_FAULTS

    def add(self, line: int, column: int, keys: Iterable[object], text: str) -> None:
        """Note a fault.

        :param line: from 1; 0 if the fault concerns the whole file.
        :param column: from 1, in characters.
        :param keys: the path to the value from the root.
        """
        if self.full:
            self._unreported += 1
            return
        name = dotted(keys)
        self._found.append((line, column, f'{name}: {text}' if name else text))

    def at(self, node: Positioned, keys: Iterable[object], text: str) -> None:
        """Note a fault of a node."""
        self.add(node.line, node.column, keys, text)

    def fatal(self, line: int, column: int, text: str) -> NoReturn:
        """Report one fault that makes the rest unreadable.

        :raises ConfigurationError: always.
        """
        raise ConfigurationError(position(self.shown, line, column) + ': ' + text)

    def raise_any(self) -> None:
        """Report all noted faults, in the order of the file.

        :raises ConfigurationError: at least one fault was noted.
        """
        if not self._found:
            return
        lines = [f'{position(self.shown, *where)}: {text}' for *where, text in sorted(self._found)]
        if self._unreported:
            faults = 'fault' if self._unreported == 1 else 'faults'
            lines.append(f'{self.shown}: and {self._unreported} more {faults}')
        raise ConfigurationError(*lines)


def position(shown: str, line: int, column: int) -> str:
    """Return ``file:line:column``, or the file alone for line 0."""
    return f'{shown}:{line}:{column}' if line else shown


def dotted(keys: Iterable[object]) -> str:
    """Return ``AMQP.url[0]`` for ``('AMQP', 'url', 0)``: what a fault calls a value."""
    name = ''
    for key in keys:
        if isinstance(key, int) and not isinstance(key, bool):
            name += f'[{key}]'
        else:
            name += ('.' if name else '') + unquoted(str(key))
    return name


def quoted(text: str) -> str:
    """Return a string of the file as an error may show it: in quotes, short, with no password."""
    if '://' in text or '@' in text:
        return 'a string with an address in it'
    return repr(text if len(text) <= 60 else text[:57] + '...')


def unquoted(text: str) -> str:
    """Return a name of the file as an error may show it: in quotes only where it needs them."""
    shown = quoted(text)
    return text if shown == f"'{text}'" and text else shown


def printable(path: str) -> str:
    """Return a path as an error may show it: whole, on one line."""
    return path if path.isprintable() and path else repr(path)
