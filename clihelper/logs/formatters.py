"""Formatters: a coloured console, JSON lines, and the journal's priorities.

A formatter does not know where its text is written, so colours and priorities are off until
:func:`adapt` has seen the stream: a log file never gets either.
"""

from __future__ import annotations

import logging
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, Self

    Style = Literal['%', '{', '$']

CONSOLE_FORMAT = '%(asctime)s.%(msecs)03d %(levelname)-8s %(name)s: %(message)s'
CONSOLE_TIME = '%Y-%m-%d %H:%M:%S'
JOURNAL_FORMAT = '%(name)s: %(message)s'

# SGR parameters of ECMA-48: readable on both dark and light backgrounds.
_COLORS = (
    (logging.CRITICAL, '1;37;41'),
    (logging.ERROR, '1;31'),
    (logging.WARNING, '33'),
    (logging.INFO, '32'),
    (0, '34'),
)

# The severities of syslog(3).
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (0, 7),
)

_STANDARD_ATTRIBUTES = frozenset(
    (*vars(logging.makeLogRecord({})), 'message', 'asctime', 'taskName'))


FIELDS = ('queue', 'message_id', 'correlation_id', 'attempt', 'trace_id', 'worker')
"""The fields of a record about the message that is being handled, each empty unless there is one;
see :mod:`clihelper.logs.records`."""


def priority(level: int) -> int:
    """Return the severity of syslog(3), 0 (emergency) to 7 (debug), for a level of logging."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def wants_color(stream: Any) -> bool:
    """Return whether a stream is a terminal that shows colours.

    ``NO_COLOR``, if not empty, forbids them (https://no-color.org), and so does ``TERM=dumb``.
    """
    if os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb':
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def is_journal(stream: Any) -> bool:
    """Return whether a stream leads to the journal.

    It does if ``JOURNAL_STREAM`` contains its device and inode; see systemd.exec(5).
    """
    expected = os.environ.get('JOURNAL_STREAM')
    if not expected:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (AttributeError, ValueError, OSError):
        return False
    return expected == f'{status.st_dev}:{status.st_ino}'


def adapt(handler: logging.Handler) -> None:
    """Tell the formatter of a handler where the handler writes."""
    formatter = handler.formatter
    if isinstance(formatter, (ColorFormatter, PriorityFormatter)):
        handler.setFormatter(formatter.for_stream(getattr(handler, 'stream', None)))


class _StreamFormatter(logging.Formatter):
    """A formatter that adapts a copy of itself to each stream.

    :cvar default_format: the format if none is given.
    :cvar default_datefmt: the format of the time, see :func:`time.strftime`.
    """

    default_format = JOURNAL_FORMAT
    default_datefmt: str | None = None
    adorned = False

    def __init__(self, format: str | None = None, datefmt: str | None = None,
                 style: Style = '%', validate: bool = True, *,
                 defaults: Mapping[str, Any] | None = None) -> None:
        if format is None:
            if style != '%':
                raise ValueError(f'style {style!r} needs a format')
            format = self.default_format
            datefmt = datefmt or self.default_datefmt
        super().__init__(format, datefmt, style, validate, defaults=defaults)

    @staticmethod
    def suits(stream: Any) -> bool:
        """Return whether the adornment belongs on this stream."""
        raise NotImplementedError

    def for_stream(self, stream: Any) -> Self:
        """Return a copy of this formatter that adorns its text if the stream is suitable."""
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(self.__dict__)
        twin.adorned = self.suits(stream)
        return twin


class ColorFormatter(_StreamFormatter):
    """Formats time, level, logger and message, with the level in colour on a terminal.

    Colour appears only on handlers that :func:`clihelper.logs.configure` set up and that write to
    a terminal. The record is left as it is.

    :param format: the format as :class:`logging.Formatter` takes it; default
        ``%(asctime)s.%(msecs)03d %(levelname)-8s %(name)s: %(message)s``.
    :param datefmt: the format of the time; default ``%Y-%m-%d %H:%M:%S``.
    :param style: one of ``%``, ``{`` and ``$``.
    :raises ValueError: the format does not suit the style.
    """

    default_format = CONSOLE_FORMAT
    default_datefmt = CONSOLE_TIME
    suits = staticmethod(wants_color)

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if not self.adorned or not record.levelname:
            return line
        color = next((code for least, code in _COLORS if record.levelno >= least), '0')
        return line.replace(record.levelname, f'\x1b[{color}m{record.levelname}\x1b[0m', 1)


class PriorityFormatter(_StreamFormatter):
    """Puts ``<N>`` before each line if the stream is the journal, as in sd-daemon(3).

    Each line of a record is prefixed, because the journal treats each as a separate entry.

    :param format: the format as :class:`logging.Formatter` takes it; default
        ``%(name)s: %(message)s``, since the journal knows the time and the process.
    :param datefmt: the format of the time.
    :param style: one of ``%``, ``{`` and ``$``.
    :raises ValueError: the format does not suit the style.
    """

    suits = staticmethod(is_journal)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self.adorned:
            return text
        prefix = f'<{priority(record.levelno)}>'
        return prefix + text.replace('\n', '\n' + prefix)


class JSONFormatter(logging.Formatter):
    """Formats each record as one line with a JSON object (RFC 8259), in ASCII.

    Its members are ``time`` (ISO 8601, UTC, milliseconds), ``level``, ``logger``, ``message``,
    ``pid``, ``process``, ``thread``; ``exception`` and ``stack`` if there are any; and what
    the caller gave as ``extra``, with ``_`` appended to a name that is taken. Values that JSON
    cannot express are written as their :func:`repr`. The parameters are those that ``dictConfig``
    passes to every formatter, and have no effect here.
    """

    def __init__(self, format: str | None = None, datefmt: str | None = None,
                 style: Style = '%', validate: bool = True) -> None:
        super().__init__()
        import json  # Imported only if it is used.

        self._dumps = json.dumps

    def format(self, record: logging.LogRecord) -> str:
        members = self._members(record)
        for name, value in vars(record).items():
            if name not in _STANDARD_ATTRIBUTES and not (value == '' and name in FIELDS):
                members[name + '_' if name in members else name] = value
        try:
            return self._dumps(members, default=safe_repr, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return self._dumps({name: self._expressible(value)
                                for name, value in members.items()}, default=safe_repr)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        moment = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))
        return f'{moment}.{int(record.msecs):03d}Z'

    def _members(self, record: logging.LogRecord) -> dict[str, Any]:
        members: dict[str, Any] = {
            'time': self.formatTime(record),
            'level': record.levelname,
            'logger': record.name,
            'message': record.getMessage(),
            'pid': record.process,
            'process': record.processName,
            'thread': record.threadName,
        }
        if record.exc_info and record.exc_info[0] is not None:
            members['exception'] = self.formatException(record.exc_info)
        elif record.exc_text:
            members['exception'] = record.exc_text
        if record.stack_info:
            members['stack'] = self.formatStack(record.stack_info)
        return members

    def _expressible(self, value: Any) -> Any:
        try:
            self._dumps(value, default=safe_repr, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return safe_repr(value)
        return value


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, or a substitute if ``__repr__`` raises, which may be anything."""
    try:
        return repr(value)
    except Exception:
        return f'<{type(value).__name__} without a repr>'
