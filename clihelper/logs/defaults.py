"""The default logging, for a configuration without a ``Logging`` section."""

from __future__ import annotations

import logging
import os

from clihelper.logs.formatters import ColorFormatter, PriorityFormatter, is_journal, priority

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler

SYSLOG_SOCKET = '/dev/log'

LOST = 'what is logged there is lost until there is one'

# A datagram larger than the socket's buffer (about 200 KiB) would be refused as a whole.
_LONGEST_MESSAGE = 64 * 1024


def check_default(detached: bool) -> str | None:
    """Return a warning for the terminal if a daemon's default log leads nowhere; otherwise None.

    :param detached: whether the process will detach, and so log to syslog.
    """
    if not detached or os.path.exists(SYSLOG_SOCKET):
        return None
    return f'the configuration has no Logging section and there is no {SYSLOG_SOCKET}: {LOST}'


def install_default(*, console: bool, appname: str) -> None:
    """Log everything from INFO up to one handler of the root logger.

    :param console: whether to log to standard error; otherwise to syslog.
    :param appname: the program's name in syslog.
    """
    handler: logging.Handler = ConsoleHandler() if console else SyslogHandler(appname)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)


class ConsoleHandler(_StreamHandler):
    """Writes records to standard error: in colour on a terminal, with priorities in the journal.

    Its formatter is a :class:`PriorityFormatter` if the stream is the journal, and otherwise a
    :class:`ColorFormatter`, unless another is set.

    :param stream: a stream to use instead of standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.setFormatter((PriorityFormatter if is_journal(self.stream) else ColorFormatter)())


class SyslogHandler(logging.Handler):
    """Sends records to the local syslog, with the C library's syslog(3).

    A line begins with ``ident[pid]: ``. The C library reconnects after a restart of syslogd,
    and drops what it cannot deliver. A process has a single such connection: with several of
    these handlers, all use the ``ident`` of the last one.

    :param ident: the program's name in syslog.
    :param facility: a facility of syslog(3) in lower case, such as ``daemon`` or ``local6``.
    :raises ValueError: the facility is unknown.
    """

    def __init__(self, ident: str, facility: str = 'daemon') -> None:
        super().__init__()
        import syslog  # Doing without logging.handlers saves half the cost of importing it.

        code = getattr(syslog, f'LOG_{str(facility).upper()}', None)
        if code is None:
            raise ValueError(f'unknown syslog facility {facility!r}')
        self._send = syslog.syslog
        self._facility = code
        syslog.openlog(ident, syslog.LOG_PID, code)
        self.setFormatter(logging.Formatter('%(name)s: %(message)s'))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record).replace('\0', '\\0')
            if len(text) > _LONGEST_MESSAGE:
                text = f'{text[:_LONGEST_MESSAGE]}... ({len(text)} characters)'
            safe = text.encode('utf-8', 'backslashreplace').decode('utf-8')
            self._send(self._facility | priority(record.levelno), safe)
        except Exception:
            self.handleError(record)
