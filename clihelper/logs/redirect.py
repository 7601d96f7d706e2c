"""Turn what the daemon prints into records, and find out whether code runs inside logging."""

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

# In characters; a line without an end becomes several records instead of filling the memory.
_LONGEST_LINE = 64 * 1024


def redirect_output(logger: str = 'stdout', level: str | int = 'INFO') -> None:
    """Make each line that is printed to ``sys.stdout`` and ``sys.stderr`` a record.

    Warnings go to the logger ``py.warnings``. An incomplete line is kept, for each thread,
    until its end is printed or the output is restored. Empty lines are dropped. What a handler
    prints while it handles a record goes to the original stream, and so does what a process or a
    C library writes to the file descriptor. Another call changes the logger and the level.
    :func:`restore_output` undoes the redirection; it is also called at exit.

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
    """Undo :func:`redirect_output`. Incomplete lines become records now."""
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
    """A text stream that makes each line a record.

    :param logger: the logger of the records.
    :param level: their level.
    :param original: the stream that this one replaces; None if there is none.
    :param descriptor: what :meth:`fileno` returns if there is no original.
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
        self._partial: dict[int, str] = {}  # by thread, so that no two threads share a line

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f'write() argument must be str, not {type(text).__name__}')
        self.receive(text, sys._getframe(1))
        return len(text)

    def receive(self, text: str, caller: FrameType) -> None:
        """Log the complete lines, or pass the text on if a handler prints it.

        :param text: the printed text.
        :param caller: the frame that prints it.
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
        """Make records of the incomplete lines."""
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
        """Return the descriptor of the original: faulthandler and subprocess ask for one."""
        return self._descriptor if self.original is None else self.original.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: closing ``sys.stdout`` must not silence the program."""

    def reconfigure(self, **options: Any) -> None:
        """Do nothing: the handlers decide how records are encoded."""


class _Bytes(io.BufferedIOBase):
    """A binary stream whose bytes become text of a :class:`LogStream`: its ``buffer``."""

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
        """Do nothing, as :meth:`LogStream.close`."""


_PACKAGES = ('logging', __name__.rpartition('.')[0])


def is_emitting(frame: FrameType | None) -> bool:
    """Return whether a frame, or one that called it, belongs to logging.

    Code that interrupted such a frame must not log: a handler's stream and a queue's lock are
    not reentrant (``RuntimeError: reentrant call inside <_io.BufferedWriter>``, or a deadlock).

    :param frame: the innermost frame, as a Python signal handler gets it.
    """
    while frame is not None:
        module = frame.f_globals.get('__name__') or ''
        for package in _PACKAGES:
            if module == package or module.startswith(package + '.'):
                return True
        frame = frame.f_back
    return False
