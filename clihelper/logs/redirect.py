"""What the daemon prints becomes records; and whether code runs inside logging at this moment.
"""

from __future__ import annotations

import atexit
import io
import logging
import sys
from threading import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, TextIO

# Characters; a line that does not end becomes several records instead of all of the memory.
_LONGEST_LINE = 64 * 1024


def redirect_output(logger: str = 'stdout', level: str | int = 'INFO') -> None:
    """Make each line that is printed to ``sys.stdout`` and ``sys.stderr`` a record.

    Warnings go to the logger ``py.warnings``. A line without its end is kept, for each thread,
    until the end comes or the output is restored; empty lines are dropped. What a handler
    prints while it handles a record goes to the stream that was there before, and so does what
    a process or a C library writes to the file descriptor. Called again, it changes logger
    and level. Undone by :func:`restore_output`, and so at the exit.

    :param logger: the name of the logger.
    :param level: the level of the records, a name or a number.
    :raises ValueError: the level is unknown.
    """
    number = logging._checkLevel(level)  # type: ignore[attr-defined]
    restore_output()
    target = logging.getLogger(logger)
    sys.stdout = LogStream(target, number, sys.stdout, 1)
    sys.stderr = LogStream(target, number, sys.stderr, 2)
    logging.captureWarnings(True)
    atexit.unregister(restore_output)
    atexit.register(restore_output)


def restore_output() -> None:
    """Undo :func:`redirect_output`: lines without an end become records now."""
    redirected = False
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if isinstance(stream, LogStream):
            setattr(sys, name, stream.original)
            stream.finish()
            redirected = True
    if redirected:
        logging.captureWarnings(False)


class LogStream(io.TextIOBase):
    """A text stream each line of which is a record.

    :param logger: where the records go.
    :param level: their level.
    :param original: the stream that this one stands for; None if there is none.
    :param descriptor: the number for :meth:`fileno` where there is no original.
    """

    encoding = 'utf-8'
    errors = 'backslashreplace'
    mode = 'w'
    line_buffering = True

    def __init__(self, logger: logging.Logger, level: int, original: TextIO | None,
                 descriptor: int) -> None:
        self.original = original
        self.name = '<log>'
        self.buffer = _Bytes(self)
        self._logger = logger
        self._level = level
        self._descriptor = descriptor
        self._partial: dict[int, str] = {}  # by thread, lest two of them share a line

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f'write() argument must be str, not {type(text).__name__}')
        self.receive(text, sys._getframe(1))
        return len(text)

    def receive(self, text: str, caller: FrameType) -> None:
        """Log the lines that are complete, or pass the text on if a handler prints it.

        :param text: what is printed.
        :param caller: the frame that prints.
        """
        if is_emitting(caller):
            self._pass_on(text)
            return
        thread = get_ident()
        *lines, rest = (self._partial.pop(thread, '') + text).split('\n')
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = ''
        if rest:
            self._partial[thread] = rest
        for line in lines:
            self._log(line)

    def finish(self) -> None:
        """Make records of the lines that have no end yet."""
        for thread in list(self._partial):
            self._log(self._partial.pop(thread, ''))

    def _log(self, line: str) -> None:
        line = line.rstrip('\r')
        if line:
            self._logger.log(self._level, '%s', line, stacklevel=4)  # whoever called write()

    def _pass_on(self, text: str) -> None:
        if self.original is not None:
            self.original.write(text)
            self.original.flush()

    def flush(self) -> None:
        if self.original is not None:
            self.original.flush()

    def fileno(self) -> int:
        """The descriptor of the original: faulthandler and subprocess ask for one."""
        return self._descriptor if self.original is None else self.original.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Does nothing: whoever closes ``sys.stdout`` must not silence the program."""

    def reconfigure(self, **options: Any) -> None:
        """Does nothing: how records are encoded is the handlers' business."""


class _Bytes(io.BufferedIOBase):
    """What :attr:`LogStream.buffer` is: bytes that become text."""

    def __init__(self, text: LogStream) -> None:
        self._text = text

    def write(self, data: Any, /) -> int:
        self._text.receive(bytes(data).decode('utf-8', 'backslashreplace'), sys._getframe(1))
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        """Does nothing, as with :class:`LogStream`."""


_PACKAGES = ('logging', __name__.rpartition('.')[0])


def is_emitting(frame: FrameType | None) -> bool:
    """Say whether a frame, or one that called it, belongs to logging.

    Code that interrupted such a frame must not log: a handler's stream and a queue's lock are
    not reentrant (``RuntimeError: reentrant call inside <_io.BufferedWriter>``, or a deadlock).

    :param frame: where to begin, as a Python signal handler gets it.
    """
    while frame is not None:
        module = frame.f_globals.get('__name__') or ''
        for package in _PACKAGES:
            if module == package or module.startswith(package + '.'):
                return True
        frame = frame.f_back
    return False
