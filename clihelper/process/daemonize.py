"""Detaching from the terminal, over python-daemon; the command waits until the daemon is ready.

::

    command ---fork---> child ---fork, setsid, fork (python-daemon)---> daemon
       |                                                                  |
       '-- Command.wait <---------- pipe: pid, tell..., end ------- Readiness
       |
       '-- Command.leave: the exit status

The daemon says over the pipe what its number is, what to tell the user, and how starting ended.
The command passes the signals that would stop it on to the daemon. See daemon(7).

Of python-daemon its public steps are used and not its ``DaemonContext``. That closes every
descriptor up to the hard limit, which takes seconds where the limit is high, and closes what the
program itself has opened.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from clihelper.errors import ConfigurationError, Error, NotPermitted, StoppedEarly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn, Protocol, TextIO

    class SignalPipe(Protocol):
        """The signals of a process, as numbers that can be waited for."""

        def fileno(self) -> int: ...
        def read(self) -> list[int]: ...


PASSED_ON = {
    signal.SIGINT: signal.SIGTERM,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGQUIT,
}
"""The signals that a waiting command passes on to the daemon, and as what. INT becomes TERM
because a daemon that has not taken over its signals yet ends by that without a traceback. A
second INT is passed on as itself: a daemon that is stopping then stops at once."""

WRITING = 5000
"""milliseconds that a daemon waits for a command that does not read: one that is suspended"""

LISTEN_FDS_START = 3
"""the first descriptor that a service manager hands over: sd_listen_fds(3)"""

_LONGEST_POLL = 86400.0  # seconds; a longer time-out overflows in poll(2)


def should_detach(foreground: bool) -> bool:
    """Whether the program is to become a daemon by itself.

    :param foreground: whether ``-f`` was given. Besides, nothing detaches under a service manager
        that set ``NOTIFY_SOCKET`` (sd_notify(3)), nor as process 1 of a container.
    """
    return not foreground and not os.environ.get('NOTIFY_SOCKET') and os.getpid() != 1


def prevent_core() -> None:
    """Have this process and its children leave no core file: they may hold secrets.

    The limit is handed to a ``kernel.core_pattern`` that names a program, too; systemd-coredump
    and apport honour it. See core(5) and ``RLIMIT_CORE`` in getrlimit(2).
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def mend_standard_streams() -> None:
    """Open ``/dev/null`` where standard input, output or error is closed.

    Else the next file that is opened, a socket or a database, would get the number 0, 1 or 2 and
    all that is printed; and ``sys.stdin``, ``sys.stdout`` or ``sys.stderr`` would be None. To be
    called before anything is opened. Where the program has opened something under such a number
    already, that is kept, and nothing is printed into it.
    """
    for descriptor in range(3):
        if not _is_open(descriptor):
            # The lowest free number is taken, open(2): this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in enumerate(('stdin', 'stdout', 'stderr')):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, 'closed', False):
            stream = _open_stream(descriptor, 'w' if descriptor else 'r')
            setattr(sys, name, stream)
            if getattr(sys, f'__{name}__') is None:
                setattr(sys, f'__{name}__', stream)


def check_working_directory(path: str) -> None:
    """Find out, before detaching, whether the daemon may go to ``Daemon.working_directory``.

    :raises ConfigurationError: there is no such folder.
    :raises NotPermitted: it may not be entered.
    """
    try:
        # The dot is looked up in the folder: so it is one, and may be searched.
        os.stat(os.path.join(path, '.'))
    except PermissionError as error:
        raise NotPermitted(f'Daemon.working_directory: {path}: {error.strerror}') from error
    except OSError as error:
        raise ConfigurationError(f'Daemon.working_directory: {path}: {error.strerror}') from error


def detach(
    *, umask: int, working_directory: str, preserve: Iterable[int] = ()
) -> Command | Readiness:
    """Become a daemon. This returns twice: in the command that was started, and in the daemon.

    The daemon is in a session of its own without a terminal, its standard streams are
    ``/dev/null``, no signal is blocked, and of the descriptors it keeps

    - those that the program itself has opened, known by their close-on-exec flag, which Python
      sets: a handler's file or socket is never closed under it;
    - those that a service manager handed over (sd_listen_fds(3)); ``LISTEN_PID`` is set anew;
    - those of *preserve*.

    What else came from the shell is closed. The standard streams must be open
    (:func:`mend_standard_streams`), and no other thread may run.

    :param umask: the daemon's file mode creation mask.
    :param working_directory: the daemon's folder.
    :param preserve: descriptors to keep besides.
    :returns: a :class:`Command` in the command, a :class:`Readiness` in the daemon. What fails
        on the daemon's side is reported to the command, with status 1.
    :raises Error: there are too many processes or open files to detach.
    """
    listening = _listening_descriptors()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
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
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return readiness


class Command:
    """What was started from the shell, while the daemon starts. Made by :func:`detach`.

    :ivar pid: the number of the daemon; 0 until it is known.
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

    def wait(self, timeout: float, signals: SignalPipe, tell: Callable[[str], None]) -> int:
        """Wait until the daemon says that it is ready, or that it failed.

        To be called once, in the main thread. From :func:`detach` until here the signals of
        :data:`PASSED_ON` are blocked, so that none is lost or ends the command alone.

        :param timeout: seconds to wait.
        :param signals: whose signals of :data:`PASSED_ON` are passed on; others are dropped.
        :param tell: called with each line for the user, as it comes: what the daemon says, or
            that it died, or that it is not ready yet.
        :returns: the exit status: 0 if the daemon is ready, or is not yet and goes on starting;
            75 (``EX_TEMPFAIL``) if it was stopped before it was ready; 1 if it died before; else
            what the daemon says.
        """
        self._poll.register(signals.fileno(), select.POLLIN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        status = self._follow(time.monotonic() + timeout, signals, tell)
        if status is None:
            return self._overdue(timeout, tell)
        if self._stop:
            return status or StoppedEarly.status
        return status

    def leave(self, status: int) -> NoReturn:
        """End the command with *status*, and nothing else.

        What is registered to be done at the program's end (``atexit``, temporary folders) is the
        daemon's to do.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)

    def _follow(
        self, deadline: float, signals: SignalPipe, tell: Callable[[str], None]
    ) -> int | None:
        """Serve the pipe and the signals until starting has ended; None: it has not."""
        while (left := deadline - time.monotonic()) > 0:
            events = self._poll.poll(min(left, _LONGEST_POLL) * 1000)
            ready = [descriptor for descriptor, _ in events]
            if signals.fileno() in ready:
                self._pass_on(signals.read())
            if self._reader in ready:
                data = os.read(self._reader, 65536)
                status = self._take(data, tell) if data else self._died(tell)
                if status is not None:
                    return status
            elif self._pidfd in ready:
                # A child that it has left behind may hold the pipe open.
                return self._died(tell)
        return None

    def _take(self, data: bytes, tell: Callable[[str], None]) -> int | None:
        """Do what the daemon's records say; the exit status, once one says that."""
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
        with contextlib.suppress(OSError):  # it is gone already, or the kernel is old
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
            tell(f'stopped before it was ready{self._which()}')
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

    A command that is gone is no error. After :meth:`ready` or :meth:`failed` the pipe is closed
    and all methods do nothing.
    """

    def __init__(self, writer: int) -> None:
        self._writer = writer
        os.set_blocking(writer, False)

    def started(self) -> None:
        """Tell the command who the daemon is: this process."""
        self._send(f'pid {os.getpid()}')

    def warn(self, line: str) -> None:
        """Tell the user something, and go on starting."""
        self._send(*(f'tell {part}' for part in line.splitlines()))

    def ready(self) -> None:
        """The command returns, with status 0."""
        self._end(0)

    def failed(self, status: int, lines: Iterable[str]) -> None:
        """The command tells the user *lines* and returns *status*; this process is to end too.

        To be called when all else is released, so that the user can start it anew at once.
        """
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
    """The :class:`Readiness` of a program that did not detach: nobody waits for it.

    :param tell: called with each line for the user; by default it is printed on stderr.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell or _print

    def warn(self, line: str) -> None:
        """Tell the user something."""
        for part in line.splitlines():
            self._tell(part)

    def ready(self) -> None:
        """Do nothing."""

    def failed(self, status: int, lines: Iterable[str]) -> None:
        """Tell the user *lines*; the status is this process's own to return."""
        for line in lines:
            self.warn(line)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _import_detach_process() -> Callable[[], None]:
    """python-daemon's fork, setsid and fork.

    When its version 2.3 is imported, it builds a set of all numbers up to the hard limit of
    descriptors: 0.1 s and 70 MiB where that is 2**20, and no end at 2**30. The set serves what
    is not used here; so a low limit is shown to it.
    """
    import resource

    getrlimit = resource.getrlimit
    resource.getrlimit = lambda _: (1024, 1024)
    try:
        from daemon.daemon import detach_process_context
    finally:
        resource.getrlimit = getrlimit
    return detach_process_context  # type: ignore[no-any-return]


def _listening_descriptors() -> range:
    """What a service manager handed over to this process: sd_listen_fds(3)."""
    if os.environ.get('LISTEN_PID') != str(os.getpid()):
        return range(0)
    try:
        count = int(os.environ.get('LISTEN_FDS', ''))
    except ValueError:
        count = 0
    return range(LISTEN_FDS_START, LISTEN_FDS_START + count)


def _close_inherited(preserve: set[int], listening: range) -> None:
    """Close what came from the shell: what is open and has no close-on-exec flag."""
    for descriptor in _numbers_in_use():
        if descriptor > 2 and descriptor not in preserve and descriptor not in listening:
            with contextlib.suppress(OSError):
                if os.get_inheritable(descriptor):
                    os.close(descriptor)


def _numbers_in_use() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir('/proc/self/fd')]
    except OSError:  # there is no /proc, or no descriptor left to read it with
        return range(os.sysconf('SC_OPEN_MAX'))


def _silence_standard_streams() -> None:
    """Point descriptors 0, 1 and 2 to ``/dev/null``, except one that the program has opened."""
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
