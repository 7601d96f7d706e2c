"""Detaching from the terminal with python-daemon; the command waits until the daemon is ready.

::

    command ---fork---> child ---fork, setsid, fork (python-daemon)---> daemon
       |                                                                  |
       '-- Command.wait <---------- pipe: pid, tell..., end ------- Readiness
       |
       '-- Command.leave: the exit status

Over the pipe, the daemon sends its pid, the lines for the user, and how starting ended. The
command passes the signals that would stop it on to the daemon. See daemon(7).

This module uses python-daemon's public steps but not its ``DaemonContext``, which closes every
descriptor up to the hard limit: that takes seconds where the limit is high, and also closes what
the program itself has opened.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from clihelper.errors import ConfigurationError, Error, NotPermitted, StoppedEarly
from clihelper.process.signals import HANDLED
from clihelper.process.systemd import listen_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn, Protocol, TextIO

    class SignalPipe(Protocol):
        """The signals of a process, as numbers to wait for."""

        def fileno(self) -> int: ...
        def read(self) -> list[int]: ...


PASSED_ON = {
    signal.SIGINT: signal.SIGTERM,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGQUIT,
}
"""The signals that a waiting command passes on to the daemon, and the signals sent instead. INT
becomes TERM, since TERM ends a daemon that has not taken over its signals yet without a
traceback. A second INT is passed on unchanged: a daemon that is stopping then stops at once."""

WRITING = 5000
"""milliseconds that a daemon waits for a command that does not read, such as a suspended one"""

_LONGEST_POLL = 86400.0  # seconds; a longer timeout overflows in poll(2)


def should_detach(foreground: bool) -> bool:
    """Return whether the program should detach by itself.

    It detaches neither under a service manager that set ``NOTIFY_SOCKET`` (sd_notify(3)) nor as
    process 1 of a container.

    :param foreground: whether ``-f`` was given.
    """
    return not foreground and not os.environ.get('NOTIFY_SOCKET') and os.getpid() != 1


def prevent_core() -> None:
    """Disable core files of this process and its children, since they may contain secrets.

    If ``kernel.core_pattern`` names a program, it receives the limit as well; systemd-coredump
    and apport honour it. See core(5) and ``RLIMIT_CORE`` in getrlimit(2).
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def mend_standard_streams() -> None:
    """Open ``/dev/null`` where standard input, output or error is closed.

    Otherwise the next file that is opened, such as a socket or a database, would get the number
    0, 1 or 2 and with it all printed output; and ``sys.stdin``, ``sys.stdout`` or ``sys.stderr``
    would be None. Call this before anything is opened. If the program has already opened
    something under such a number, it stays open, and nothing is printed into it.
    """
    for descriptor in range(3):
        if not _is_open(descriptor):
            # open(2) takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in enumerate(('stdin', 'stdout', 'stderr')):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, 'closed', False):
            stream = _open_stream(descriptor, 'w' if descriptor else 'r')
            setattr(sys, name, stream)
            if getattr(sys, f'__{name}__') is None:
                setattr(sys, f'__{name}__', stream)


def check_working_directory(path: str) -> None:
    """Check, before detaching, that the daemon may change to ``Daemon.working_directory``.

    :raises ConfigurationError: there is no such folder.
    :raises NotPermitted: it may not be entered.
    """
    try:
        # The dot is looked up in the folder, so it is a folder and may be searched.
        os.stat(os.path.join(path, '.'))
    except PermissionError as error:
        raise NotPermitted(f'Daemon.working_directory: {path}: {error.strerror}') from error
    except OSError as error:
        raise ConfigurationError(f'Daemon.working_directory: {path}: {error.strerror}') from error


def detach(
    *, umask: int, working_directory: str, preserve: Iterable[int] = ()
) -> Command | Readiness:
    """Become a daemon. This returns twice: in the command that was typed, and in the daemon.

    The daemon runs in its own session without a terminal, and its standard streams are
    ``/dev/null``. Of the signals, only those in :data:`~clihelper.process.signals.HANDLED` are
    blocked: the caller unblocks them when it can handle them, so that no signal is lost. The
    daemon keeps these descriptors:

    - those opened by the program itself, which are recognised by the close-on-exec flag that
      Python sets: the file or socket of a log handler is never closed;
    - those passed by a service manager (sd_listen_fds(3)); ``LISTEN_PID`` is updated;
    - those in *preserve*.

    All others, inherited from the shell, are closed. The standard streams must be open
    (:func:`mend_standard_streams`), and no other thread may be running.

    :param umask: the daemon's file mode creation mask.
    :param working_directory: the daemon's folder.
    :param preserve: additional descriptors to keep.
    :returns: a :class:`Command` in the command, a :class:`Readiness` in the daemon. A
        failure in the daemon is reported to the command, with status 1.
    :raises Error: there are too many processes or open files to detach.
    """
    listening = listen_fds()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        detach_process = _import_detach_process()
        reader, writer = os.pipe()
        child = os.fork()
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise Error(f'cannot detach: {error.strerror or error}') from error
    if child:
        os.close(writer)
        return Command(child, reader, mask)
    readiness = Readiness(writer)
    try:
        os.close(reader)
        detach_process()
        os.umask(umask)
        os.chdir(working_directory)
        if listening:
            os.environ['LISTEN_PID'] = str(os.getpid())
        _close_inherited(set(preserve), listening)
        _silence_standard_streams()
        readiness.started()
    except Exception as error:
        readiness.failed(Error.status, [f'cannot detach: {error}'])
        os._exit(Error.status)
    signal.pthread_sigmask(signal.SIG_SETMASK, HANDLED)
    return readiness


class Command:
    """The process that was started from the shell, which waits for the daemon.

    :func:`detach` makes it.

    :ivar pid: the daemon's pid; 0 until it is known.
    """

    def __init__(self, child: int, reader: int, mask: Iterable[int]) -> None:
        self.pid = 0
        self._child = child
        self._reader = reader
        self._mask = mask
        self._pidfd = -1
        self._unread = b''
        self._poll = select.poll()
        self._poll.register(reader, select.POLLIN)
        self._stop: signal.Signals | None = None
        self._was_ready = False

    def wait(self, timeout: float, signals: SignalPipe, tell: Callable[[str], None]) -> int:
        """Wait until the daemon reports that it is ready, or that it failed.

        Call it once, in the main thread. From :func:`detach` until this call signals are blocked,
        so that none is lost or ends only the command.

        :param timeout: seconds to wait.
        :param signals: the pipe whose signals in :data:`PASSED_ON` are passed on; others are
            dropped.
        :param tell: called with each line for the user as it arrives: lines from the daemon, or
            that it died, or that it is not ready yet.
        :returns: the exit status: 0 if the daemon is ready, or is still starting when the time is
            over; 75 (``EX_TEMPFAIL``) if it was stopped while the command waited; 1 if it died
            before it was ready; otherwise the status that the daemon reports.
        """
        self._poll.register(signals.fileno(), select.POLLIN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        deadline = time.monotonic() + timeout
        status = self._follow(deadline, signals, tell)
        if status == 0 and self._stop:
            # It became ready before the stop reached it, and has closed the pipe.
            self._was_ready = True
            self._poll.unregister(self._reader)
            status = self._died(tell) if self._pidfd < 0 else self._follow(deadline, signals, tell)
        return self._overdue(timeout, tell) if status is None else status

    def leave(self, status: int) -> NoReturn:
        """End the command with *status*, and nothing else.

        Whatever is registered for the program's end (``atexit``, temporary folders) is left to
        the daemon.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)

    def _follow(
        self, deadline: float, signals: SignalPipe, tell: Callable[[str], None]
    ) -> int | None:
        """Serve the pipe and the signals until starting has ended; None: the time is over."""
        while (left := deadline - time.monotonic()) > 0:
            events = self._poll.poll(min(left, _LONGEST_POLL) * 1000)
            ready = [descriptor for descriptor, _ in events]
            # Also one that came when poll(2) had looked: what was sent before is served first.
            self._pass_on(signals.read())
            if self._reader in ready:
                data = os.read(self._reader, 65536)
                status = self._take(data, tell) if data else self._died(tell)
                if status:
                    self._follow_to_end(deadline, signals, tell)
                if status is not None:
                    return status
            elif self._pidfd in ready:
                # A child left behind by the daemon may hold the pipe open.
                return self._died(tell)
        return None

    def _follow_to_end(
        self, deadline: float, signals: SignalPipe, tell: Callable[[str], None]
    ) -> None:
        """Wait until a daemon that failed has ended: then it can be started again at once."""
        self._poll.unregister(self._reader)
        while self._pidfd >= 0:
            left = deadline - time.monotonic()
            if left <= 0:
                tell(f'it has not ended yet{self._which()}')
                return
            events = self._poll.poll(min(left, _LONGEST_POLL) * 1000)
            ready = [descriptor for descriptor, _ in events]
            if signals.fileno() in ready:
                self._pass_on(signals.read())
            if self._pidfd in ready:
                return

    def _take(self, data: bytes, tell: Callable[[str], None]) -> int | None:
        """Process the daemon's records; return the exit status once a record contains it."""
        *records, self._unread = (self._unread + data).split(b'\n')
        for record in records:
            kind, _, text = record.decode(errors='replace').partition(' ')
            if kind == 'end':
                return int(text)
            if kind == 'tell':
                tell(text)
            elif kind == 'pid':
                self._meet(int(text))
        return None

    def _meet(self, pid: int) -> None:
        self.pid = pid
        with contextlib.suppress(OSError):  # it has ended already, or the kernel is old
            self._pidfd = os.pidfd_open(pid)
            self._poll.register(self._pidfd, select.POLLIN)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._child, 0)  # it has ended, or is about to
        if self._stop:
            self._send(self._stop)

    def _pass_on(self, signums: Iterable[int]) -> None:
        for signum in filter(PASSED_ON.__contains__, signums):
            again = self._stop is not None and signum == signal.SIGINT
            self._stop = signal.SIGINT if again else PASSED_ON[signal.Signals(signum)]
            if self.pid:
                self._send(self._stop)

    def _send(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signum)

    def _died(self, tell: Callable[[str], None]) -> int:
        if self._stop:
            when = 'as soon as' if self._was_ready else 'before'
            tell(f'stopped {when} it was ready{self._which()}')
            return StoppedEarly.status
        tell(f'died before it was ready{self._which()}')
        return Error.status

    def _overdue(self, timeout: float, tell: Callable[[str], None]) -> int:
        if self._stop:
            tell(f'not stopped after {timeout:g} s; it goes on stopping{self._which()}')
            return StoppedEarly.status
        tell(f'not ready after {timeout:g} s; it goes on starting{self._which()}')
        return 0

    def _which(self) -> str:
        return f' (pid {self.pid})' if self.pid else ''


class Readiness:
    """The daemon's end of the pipe to the command that waits for it. Made by :func:`detach`.

    It is not an error if the command has ended. After :meth:`ready` or :meth:`failed` the pipe is
    closed and all methods do nothing.
    """

    def __init__(self, writer: int) -> None:
        self._writer = writer
        os.set_blocking(writer, False)

    def started(self) -> None:
        """Send the pid of this process, the daemon, to the command."""
        self._send(f'pid {os.getpid()}')

    def warn(self, line: str) -> None:
        """Show the user *line*, and go on starting."""
        self._send(*(f'tell {part}' for part in line.splitlines()))

    def ready(self) -> None:
        """Let the command return with status 0."""
        self._end(0)

    def failed(self, status: int, lines: Iterable[str]) -> None:
        """Let the command show the user *lines*, and return *status* when this process ends."""
        for line in lines:
            self.warn(line)
        self._end(status)

    def _end(self, status: int) -> None:
        self._send(f'end {status}')
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)

    def _send(self, *records: str) -> None:
        if self._writer < 0:
            return
        data = ''.join(f'{record}\n' for record in records).encode(errors='backslashreplace')
        with contextlib.suppress(BrokenPipeError):
            while data:
                try:
                    data = data[os.write(self._writer, data):]
                except BlockingIOError:
                    if not self._may_write():
                        return

    def _may_write(self) -> bool:
        poll = select.poll()
        poll.register(self._writer, select.POLLOUT)
        return bool(poll.poll(WRITING))


class Attached:
    """The :class:`Readiness` of a program that did not detach, for which no command waits.

    :param tell: called with each line for the user; by default it is printed on stderr.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell or _print

    def warn(self, line: str) -> None:
        """Show the user *line*."""
        for part in line.splitlines():
            self._tell(part)

    def ready(self) -> None:
        """Do nothing."""

    def failed(self, status: int, lines: Iterable[str]) -> None:
        """Show the user *lines*; this process itself returns the status."""
        for line in lines:
            self.warn(line)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _import_detach_process() -> Callable[[], None]:
    """Import python-daemon's fork, setsid and fork.

    On import, its version 2.3 builds a set of all numbers up to the hard limit of descriptors:
    0.1 s and 70 MiB at 2**20, and practically for ever at 2**30. The set is needed only by code
    that is not used here, so the import is made to see a low limit.
    """
    import resource

    getrlimit = resource.getrlimit
    resource.getrlimit = lambda _: (1024, 1024)
    try:
        with _python_daemon_first():
            from daemon.daemon import detach_process_context
    finally:
        resource.getrlimit = getrlimit
    return detach_process_context  # type: ignore[no-any-return]


@contextlib.contextmanager
def _python_daemon_first() -> Iterator[None]:
    """Return a context in which ``daemon`` is python-daemon, and not the program itself.

    Many programs are called ``daemon.py``; for them, ``daemon`` stays what it was.
    """
    if not any(map(_hides_python_daemon, sys.path)):
        yield
        return
    path, modules = sys.path[:], {name: sys.modules.pop(name) for name in _modules_of('daemon')}
    sys.path[:] = [folder for folder in path if not _hides_python_daemon(folder)]
    try:
        yield
    finally:
        sys.path[:] = path
        for name in _modules_of('daemon'):
            del sys.modules[name]
        sys.modules.update(modules)


def _hides_python_daemon(folder: str) -> bool:
    path = os.path.join(folder, 'daemon')
    return (os.path.isfile(f'{path}.py') or os.path.isdir(path)) and not os.path.isfile(
        os.path.join(path, 'daemon.py'))


def _modules_of(package: str) -> list[str]:
    return [name for name in sys.modules if name.partition('.')[0] == package]


def _close_inherited(preserve: set[int], listening: range) -> None:
    """Close what was inherited from the shell: descriptors without a close-on-exec flag."""
    for descriptor in _numbers_in_use():
        if descriptor > 2 and descriptor not in preserve and descriptor not in listening:
            with contextlib.suppress(OSError):
                if os.get_inheritable(descriptor):
                    os.close(descriptor)


def _numbers_in_use() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir('/proc/self/fd')]
    except OSError:  # there is no /proc, or no free descriptor to read it with
        return range(os.sysconf('SC_OPEN_MAX'))


def _silence_standard_streams() -> None:
    """Point descriptors 0, 1 and 2 to ``/dev/null``, except those opened by the program."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        if os.get_inheritable(descriptor):
            os.dup2(null, descriptor)
    os.close(null)


def _is_open(descriptor: int) -> bool:
    try:
        os.get_inheritable(descriptor)
    except OSError:
        return False
    return True


def _open_stream(descriptor: int, mode: str) -> TextIO:
    if not os.get_inheritable(descriptor):
        descriptor = os.open(os.devnull, os.O_RDWR)
    return os.fdopen(  # type: ignore[return-value]
        descriptor, mode, encoding='utf-8', errors='backslashreplace', closefd=False
    )
