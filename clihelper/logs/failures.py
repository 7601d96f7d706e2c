"""Handlers that cannot write: a full disk, a closed pipe, a closed terminal.

The daemon keeps running. Standard error gets one line when the failure begins and one when it is
over. The log itself gets a record of how many records were lost. Only their number is kept.

A handler whose reader does not read waits for it, unless the process is about to be ended: see
:func:`discard_blocked`.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
import traceback

from clihelper.logs.formatters import safe_repr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Seconds between two announcements: a disk that is full now and then must not flood the output.
QUIET_TIME = 60.0

_MOST_CALL_SITES = 1000
_reported_call_sites: set[tuple[str, int]] = set()


def watch(handler: logging.Handler) -> None:
    """Take over a handler's error handling, unless its class defines its own."""
    if type(handler).handleError is logging.Handler.handleError:
        handler.handleError = Failures(handler).handle  # type: ignore[method-assign]


class Failures:
    """The failures of one handler.

    :param handler: the handler. Its ``emit`` is replaced only while it fails, so that the first
        success is noticed.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._lost = 0
        self._failed = False
        self._salvaging = False
        self._announced = False
        self._quiet_until = float('-inf')

    def handle(self, record: logging.LogRecord) -> None:
        """Handle an error of ``emit``, in place of :meth:`logging.Handler.handleError`."""
        error = sys.exc_info()[1]
        if error is None:
            return
        fault = _formatting_fault(record)
        if fault is not None:
            self._bad_call(record, fault)
        elif not (_is_reentrant(error) and self._write_directly(record)):
            self._lose(error)

    def _lose(self, error: BaseException) -> None:
        self._lost += 1
        self._failed = True
        _discard_buffer(getattr(self._handler, 'stream', None))
        self._handler.emit = self._emit  # type: ignore[method-assign]
        if time.monotonic() >= self._quiet_until:
            self._announce(f'cannot write, records are lost: {_in_words(error)}')
            self._announced = True

    def _emit(self, record: logging.LogRecord) -> None:
        """Replace the handler's ``emit`` while it fails."""
        self._failed = False
        try:
            _end_torn_line(self._handler)
        except (OSError, ValueError):
            self.handle(record)
            return
        type(self._handler).emit(self._handler, record)
        if not self._failed and (self._announced or time.monotonic() >= self._quiet_until):
            self._recover()

    def _recover(self) -> None:
        del self._handler.emit
        lost, self._lost, self._announced = self._lost, 0, False
        text = f'writes again, {lost} {"record was" if lost == 1 else "records were"} lost'
        if not _is_stderr(getattr(self._handler, 'stream', None)):
            self._announce(text)
        if self._handler.level <= logging.WARNING:
            type(self._handler).emit(self._handler, logging.makeLogRecord({
                'name': 'clihelper', 'levelno': logging.WARNING, 'levelname': 'WARNING',
                'msg': f'{_description(self._handler)} {text}'}))

    def _announce(self, text: str) -> None:
        self._quiet_until = time.monotonic() + QUIET_TIME
        _tell(f'clihelper: {_description(self._handler)} {text}\n')

    def _bad_call(self, record: logging.LogRecord, fault: Exception) -> None:
        """Report to the developer where the call is, and log its contents all the same."""
        site = (record.pathname, record.lineno)
        if site not in _reported_call_sites and len(_reported_call_sites) < _MOST_CALL_SITES:
            _reported_call_sites.add(site)
            _tell(_call_report(record, fault))
        if self._salvaging:
            return
        salvaged = logging.makeLogRecord(vars(record))
        salvaged.msg = f'{record.msg!r} with {safe_repr(record.args)}: {_in_words(fault)}'
        salvaged.args = None
        self._salvaging = True
        try:
            self._handler.emit(salvaged)
        finally:
            self._salvaging = False

    def _write_directly(self, record: logging.LogRecord) -> bool:
        """Write past the buffer, which was being written to when a signal handler logged.

        :returns: whether that succeeded.
        """
        try:
            text = self._handler.format(record) + '\n'
            descriptor = self._handler.stream.fileno()  # type: ignore[attr-defined]
            os.write(descriptor, text.encode('utf-8', 'backslashreplace'))
        except (AttributeError, OSError, ValueError):
            return False
        return True


def _formatting_fault(record: logging.LogRecord) -> Exception | None:
    """Return what is wrong with the message and its arguments; None if nothing is."""
    try:
        record.getMessage()
    except Exception as fault:  # An argument's __str__ may raise anything.
        return fault
    return None


def _is_reentrant(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and 'reentrant' in str(error)


def discard_blocked(descriptors: Iterable[int]) -> bool:
    """Let whoever waits to write to one of the *descriptors* go on: its output is discarded.

    A full pipe, a full socket and a suspended terminal are replaced by ``/dev/null``, and stay so.
    A thread that waits in a system call must be interrupted to notice. Any thread may call this.

    :returns: whether there was one.
    """
    import select

    found = False
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if not poll.poll(0):
            _point_to_null(descriptor)
            found = True
    return found


def _point_to_null(descriptor: int) -> None:
    inheritable = os.get_inheritable(descriptor)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, descriptor, inheritable)
    os.close(null)


def _discard_buffer(stream: Any) -> None:
    """Empty the buffer of a stream that cannot be written to.

    Otherwise its contents, already counted as lost, would be written once the disk has room. Or
    they could not be written at exit, which makes Python's exit status 120.
    """
    try:
        descriptor = stream.fileno()
        kept = os.dup(descriptor)
    except (AttributeError, OSError, ValueError):
        return
    inheritable = os.get_inheritable(descriptor)
    try:
        _point_to_null(descriptor)
        stream.flush()
    except (OSError, ValueError):
        pass
    finally:
        os.dup2(kept, descriptor, inheritable)
        os.close(kept)


def _end_torn_line(handler: logging.Handler) -> None:
    """End the line of a record that a full disk truncated, so that the next begins a new line."""
    stream = getattr(handler, 'stream', None)
    if stream is None or stream.closed or not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return
    try:
        with open(f'/proc/self/fd/{stream.fileno()}', 'rb', buffering=0) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b'\n'
    except OSError:
        torn = True  # The file is not readable. An empty line is better than two records in one.
    if torn:
        stream.write('\n')


def _is_stderr(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == 2)
    except (AttributeError, OSError, ValueError):
        return False


def _description(handler: logging.Handler) -> str:
    name = handler.name or type(handler).__name__
    place = getattr(handler, 'baseFilename', None)
    return f'log handler {name}' + (f' ({place})' if place else '')


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f'{type(error).__name__}: {error}'


def _call_report(record: logging.LogRecord, fault: Exception) -> str:
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get('__name__', '').startswith(
            ('logging', __name__.rpartition('.')[0])):
        frame = frame.f_back
    stack = ''.join(traceback.format_stack(frame, limit=10))
    return (f'clihelper: bad logging call at {record.pathname}:{record.lineno}: '
            f'{_in_words(fault)}\n{stack}')


def _tell(text: str) -> None:
    """Write to the descriptor of standard error, past any object that fails or is redirected."""
    try:
        if sys.__stderr__ is not None:
            os.write(sys.__stderr__.fileno(), text.encode('utf-8', 'backslashreplace'))
    except (OSError, ValueError):
        pass
