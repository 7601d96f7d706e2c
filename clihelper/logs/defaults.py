"""The default logging, for a configuration without a ``Logging`` section."""

from __future__ import annotations

import errno
import logging
import os
import select
import time
from contextlib import suppress

from clihelper.logs.formatters import ColorFormatter, PriorityFormatter, is_journal, priority

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import TextIO

    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler

SYSLOG_SOCKET = '/dev/log'

PATIENCE = 1000
"""milliseconds that a record waits for a syslogd that does not read; those after it do not wait"""

LOST = 'what is logged there is lost until there is one'

# In bytes. A datagram larger than the socket's buffer (about 200 KiB) would be refused as a whole.
_LONGEST_MESSAGE = 64 * 1024

_MONTHS = 'Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'


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
    """Sends records to the local syslog, in the format of syslog(3).

    A line begins with ``ident[pid]:``. It reconnects after a restart of syslogd. A record that
    cannot be delivered within a second is dropped, and so are those after it until syslogd reads
    again; their number is then logged.

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
        self._ident = ident
        self._facility = code
        self._connection: _Syslog | None = None
        self._reads = True
        with suppress(OSError):
            self._connection = _Syslog()
        self.setFormatter(logging.Formatter('%(name)s: %(message)s'))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(self._message(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        with self.lock:  # type: ignore[union-attr]
            self._disconnect()
        super().close()

    def _message(self, record: logging.LogRecord) -> bytes:
        text = self.format(record).replace('\0', '\\0').encode('utf-8', 'backslashreplace')
        if len(text) > _LONGEST_MESSAGE:
            kept = text[:_LONGEST_MESSAGE].decode('utf-8', 'ignore').encode()
            text = kept + b'... (%d bytes)' % len(text)
        when = time.localtime(record.created)
        header = (f'<{self._facility | priority(record.levelno)}>'
                  f'{_MONTHS[when.tm_mon - 1]} {when.tm_mday:2} {time.strftime("%T", when)}'
                  f' {self._ident}[{os.getpid()}]: ')
        return header.encode('utf-8', 'backslashreplace') + text

    def _send(self, message: bytes) -> None:
        for is_last in (self._connection is None, True):
            try:
                self._write(message)
                self._reads = True
                return
            except BlockingIOError:
                self._reads = False
                raise
            except OSError:  # syslogd was restarted, or there is none
                self._disconnect()
                if is_last:
                    raise

    def _write(self, message: bytes) -> None:
        if self._connection is None:
            self._connection = _Syslog()
        self._connection.send(message, PATIENCE if self._reads else 0)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Syslog:
    """A connection to syslogd.

    syslog(3) is not used: it waits as long as syslogd does not read, and begins its wait again
    after a signal, so that the program would never learn of one.

    :raises OSError: there is no syslogd.
    """

    def __init__(self) -> None:
        import _socket  # importing socket takes some milliseconds

        self._end = b''
        try:
            self._socket = _connected(_socket.SOCK_DGRAM)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            self._socket = _connected(_socket.SOCK_STREAM)
            self._end = b'\0'

    def send(self, message: bytes, patience: int) -> None:
        """Send a message.

        :param patience: milliseconds to wait for a syslogd that does not read.
        :raises BlockingIOError: it does not read.
        :raises OSError: it is gone.
        """
        left = message + self._end
        while left:
            try:
                left = left[self._socket.send(left):]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._socket.fileno(), select.POLLOUT)
                if not poll.poll(patience):
                    if len(left) < len(message + self._end):
                        raise ConnectionResetError from None  # only a new stream begins afresh
                    raise

    def close(self) -> None:
        self._socket.close()


def _connected(kind: int) -> socket:
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, kind)
    try:
        connection.setblocking(False)
        connection.connect(SYSLOG_SOCKET)
    except OSError:
        connection.close()
        raise
    return connection
