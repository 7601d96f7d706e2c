"""What is logged where when the configuration has no ``Logging`` section."""

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

# A datagram of more than the socket's buffer (about 200 KiB) would be refused as a whole.
_LONGEST_MESSAGE = 64 * 1024


def check_default(detached: bool) -> str | None:
    """A warning for the terminal where the default log of a daemon leads nowhere, else None.

    :param detached: whether the process will detach and so log to syslog.
    """
    if not detached or os.path.exists(SYSLOG_SOCKET):
        return None
    return (f'the configuration has no Logging section and there is no {SYSLOG_SOCKET}: '
            'what the daemon logs is lost until there is one')


def install_default(*, console: bool, appname: str) -> None:
    """Log everything from INFO up to one handler of the root logger.

    :param console: to standard error if true, else to syslog.
    :param appname: how the program is called in syslog.
    """
    handler: logging.Handler = ConsoleHandler() if console else SyslogHandler(appname)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)


class ConsoleHandler(_StreamHandler):
    """Records to standard error: in colour on a terminal, with priorities in the journal.

    Its formatter is a :class:`PriorityFormatter` where the stream is the journal, and else a
    :class:`ColorFormatter`, unless it is given another.

    :param stream: a stream other than standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.setFormatter((PriorityFormatter if is_journal(self.stream) else ColorFormatter)())


class SyslogHandler(logging.Handler):
    """Records to the local syslog by way of the C library's syslog(3).

    A line begins with ``ident[pid]: ``. The C library connects again when syslogd was restarted,
    and drops what it cannot deliver. There is one such connection in a process: with several
    of these handlers, the last one's ``ident`` is that of all.

    :param ident: how the program is called.
    :param facility: a facility of syslog(3) in lower case, ``daemon`` or ``local6`` for instance.
    :raises ValueError: the facility is unknown.
    """

    def __init__(self, ident: str, facility: str = 'daemon') -> None:
        super().__init__()
        import syslog  # Half of logging.handlers' cost is saved by not using its handler.

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
