"""Run a program as a separate process: start it, wait for it, signal it, and always end it."""

from __future__ import annotations

import os
import pwd
import re
import select
import selectors
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self, TypeVar

from clihelper.process.pidfile import probe
from clihelper.testing.notify import NotifySocket
from clihelper.testing.waiting import TIMEOUT, WaitError

T = TypeVar('T')

MANAGED = ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID')
"""Variables that a service manager has set for the tests, not for the program under test."""

CHUNK = 65536
"""The most bytes that are read from a pipe at a time."""


class Program:
    """A program in the foreground, from entering the ``with`` to leaving it.

    It leads a session of its own, so a Ctrl-C that ends the tests does not reach it. A thread
    reads its output, so it never has to wait for the test. Leaving the ``with`` kills the program
    and its process group, if they are still running.

    Each ``wait_...`` continues after the line or notification that ended the previous one.

    :param argv: the program and its arguments.
    :param env: variables in addition to those of the test; a value of None removes a variable.
    :param cwd: the directory to start it in; by default, that of the test.
    :param user: the name or the number of the user to run it as, with that user's groups from the
        group database; this requires root. By default, the user who runs the test.
    :param notify: whether the program gets a ``NOTIFY_SOCKET``, which :meth:`wait_ready` reads,
        and because of which it does not detach.
    :param watchdog: seconds of the watchdog to request from it; None for no watchdog.
    :param popen: further arguments of :class:`subprocess.Popen`, such as ``pass_fds`` or
        ``stdin``, which is ``/dev/null`` by default.
    :ivar int pid: the process ID.
    :ivar stdin: the file to write its standard input to, if ``stdin`` is
        :data:`subprocess.PIPE`; otherwise None.
    """

    pid: int
    stdin: IO[bytes] | None

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | int | None = None,
        notify: bool = True,
        watchdog: float | None = None,
        **popen: Any,
    ) -> None:
        self._argv = [os.fspath(word) for word in argv]
        self._env = env or {}
        self._popen = {'stdin': subprocess.DEVNULL, 'cwd': cwd, **_identity(user), **popen}
        self._notify = NotifySocket(watchdog=watchdog) if notify else None
        self._process: subprocess.Popen[bytes]
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._lines: list[str] = []
        self._streams: dict[str, _Stream] = {}
        self._lines_seen = self._notifications_seen = 0
        self._exited = self._closing = False

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._argv,
                bufsize=0,
                env=_environment(self._env, self._notify),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                **self._popen,
            )
        except BaseException:
            self._close_descriptors()
            raise
        self.pid = self._process.pid
        self.stdin = self._process.stdin
        self._exit = os.pidfd_open(self.pid)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._watch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        _kill_session(self.pid)
        self._process.wait()
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for stream in self._streams.values():
            stream.close()
        if self.stdin is not None:
            self.stdin.close()
        os.close(self._exit)
        os.close(self._wake)
        self._close_descriptors()

    # What the program has done so far.

    @property
    def lines(self) -> list[str]:
        """The lines that the program has written so far, to either stream, in reading order."""
        with self._changed:
            return self._lines.copy()

    @property
    def stdout(self) -> list[str]:
        """The lines on its standard output so far."""
        with self._changed:
            return self._streams['stdout'].lines.copy()

    @property
    def stderr(self) -> list[str]:
        """The lines on its standard error so far."""
        with self._changed:
            return self._streams['stderr'].lines.copy()

    @property
    def notifications(self) -> list[dict[str, str]]:
        """What it has reported to its service manager so far; see :class:`NotifySocket`."""
        with self._changed:
            return [] if self._notify is None else self._notify.received.copy()

    # Waiting for the program.

    def wait_ready(self, timeout: float = TIMEOUT) -> None:
        """Wait until the program reports that it is ready, at its start or after a reload.

        :param timeout: seconds.
        :raises WaitError: it does not do so in time, or has ended.
        """
        self.wait_notified('READY', timeout)

    def wait_notified(self, name: str, timeout: float = TIMEOUT) -> dict[str, str]:
        """Wait for a notification that contains *name*, such as ``STATUS``, and return it.

        :raises WaitError: it does not come in time, or the program has ended without it.
        :raises ValueError: the program has no notify socket.
        """
        notify = self._notify
        if notify is None:
            raise ValueError('the program was started with notify=False')

        def find() -> dict[str, str] | None:
            while self._notifications_seen < len(notify.received):
                self._notifications_seen += 1
                if name in notify.received[self._notifications_seen - 1]:
                    return notify.received[self._notifications_seen - 1]
            return None

        return self._wait_until(find, f'{name} was not notified', timeout)

    def wait_line(
        self, pattern: str | re.Pattern[str], timeout: float = TIMEOUT
    ) -> re.Match[str]:
        """Wait for a line, on either stream, in which *pattern* is found.

        :param pattern: a regular expression.
        :param timeout: seconds.
        :returns: the match; the line is its ``string``.
        :raises WaitError: it does not come in time, or the program has ended without it.
        """
        expression = re.compile(pattern)

        def find() -> re.Match[str] | None:
            while self._lines_seen < len(self._lines):
                self._lines_seen += 1
                match = expression.search(self._lines[self._lines_seen - 1])
                if match:
                    return match
            return None

        return self._wait_until(find, f'no line with {expression.pattern!r}', timeout)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait until the program ends. All its output is in :attr:`lines` then.

        :param timeout: seconds.
        :returns: its exit status, or ``-n`` if signal n killed it.
        :raises WaitError: it does not end in time.
        """
        self._wait_until(lambda: self._exited, 'it did not end', timeout)
        return self._status()

    # What the test does to the program.

    def signal(self, signum: int | str) -> None:
        """Send a signal.

        :param signum: its number or its name, such as ``'TERM'``.
        """
        os.kill(self.pid, signal_number(signum))

    def stop(self, signum: int | str = 'TERM', timeout: float = TIMEOUT) -> int:
        """Send a signal, and wait until the program has ended; see :meth:`wait`."""
        self.signal(signum)
        return self.wait(timeout)

    def __str__(self) -> str:
        with self._changed:
            return self._description()

    # The thread that reads.

    def _watch(self) -> None:
        for name, pipe in (('stdout', self._process.stdout), ('stderr', self._process.stderr)):
            assert pipe is not None
            self._streams[name] = stream = _Stream(pipe, self._lines)
            self._selector.register(pipe, selectors.EVENT_READ, stream.read)
        self._selector.register(self._exit, selectors.EVENT_READ, self._note_exit)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: True)
        if self._notify is not None:
            self._selector.register(self._notify, selectors.EVENT_READ, self._take_notification)

    def _collect(self) -> None:
        """Read whatever comes. A callback returns False at the end of its source."""
        while not self._closing:
            ready = self._selector.select()
            with self._changed:
                for key, _ in ready:
                    if not _has_more(key.data):
                        self._selector.unregister(key.fileobj)
                # What was written to stderr before a line on stdout is there when that is.
                _has_more(self._streams['stderr'].read)
                self._changed.notify_all()

    def _take_notification(self) -> bool:
        assert self._notify is not None
        self._notify.take()
        return True

    def _note_exit(self) -> bool:
        # First read what it wrote and sent before it ended, so that nothing is missed.
        for stream in self._streams.values():
            stream.drain()
        if self._notify is not None:
            _until_blocked(self._take_notification)
        self._exited = True
        return False

    # Waiting, and describing a failure.

    def _wait_until(self, find: Callable[[], T | None], failure: str, timeout: float) -> T:
        found: T | None = None

        def happened() -> bool:
            nonlocal found
            found = find()
            return bool(found) or self._exited

        with self._changed:
            self._changed.wait_for(happened, timeout)
            if found:
                return found
            within = '' if self._exited else f' within {timeout:g} s'
            raise WaitError(f'{failure}{within}\n{self._description()}')

    def _description(self) -> str:
        state = f'ended with status {self._status()}' if self._exited else 'still running'
        lines = [f'pid {self.pid}, {state}: {shlex.join(self._argv)}', *self._lines]
        if self._notify is not None:
            lines.extend(f'notified: {each}' for each in self._notify.received)
        return '\n    '.join(lines)

    def _status(self) -> int:
        # It stays a zombie, so that its process ID and its group cannot be reused.
        result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        status: int = result.si_status
        return status if result.si_code == os.CLD_EXITED else -status

    def _close_descriptors(self) -> None:
        self._selector.close()
        if self._notify is not None:
            self._notify.close()


class Daemon:
    """A program that detaches, from entering the ``with`` to leaving it.

    Entering runs the command to its end, which must succeed, and finds the daemon by its
    pidfile. Leaving kills the daemon if it is still running.

    :param argv: the command and its arguments.
    :param pidfile: the path of the daemon's pidfile, as in its configuration.
    :param timeout: seconds that the command may take.
    :param options: ``env``, ``cwd``, ``user`` and further arguments of :class:`Program`.
    :ivar int pid: the process ID of the daemon.
    :ivar list lines: the output of the command.
    :raises WaitError: on entering, if the command failed or left no daemon behind.
    """

    pid: int

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        pidfile: str | os.PathLike[str],
        *,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> None:
        self._command = Program(argv, notify=False, **options)
        self._pidfile = os.fspath(pidfile)
        self._timeout = timeout
        self._descriptor = -1
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        if probe(self._pidfile)[0] == 'running':
            raise WaitError(f'pidfile {self._pidfile}: a daemon is already running')
        try:
            with self._command as command:
                status = command.wait(self._timeout)
                self.lines = command.lines
                if status:
                    raise WaitError(f'no daemon was started\n{command}')
            self._find()
        except BaseException:
            self._kill_half_started()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        os.close(self._descriptor)

    @property
    def is_running(self) -> bool:
        """Whether the daemon is still running."""
        return not self._ends(0)

    def signal(self, signum: int | str) -> None:
        """Send a signal; see :meth:`Program.signal`.

        :raises ProcessLookupError: the daemon has ended.
        """
        if not self.is_running:
            # Until init(1) reaps it, the kernel would accept the signal.
            raise ProcessLookupError(f'the daemon, pid {self.pid}, has ended')
        signal.pidfd_send_signal(self._descriptor, signal_number(signum))

    def wait(self, timeout: float = TIMEOUT) -> None:
        """Wait until the daemon ends. Only init(1) knows its exit status.

        :raises WaitError: it does not end in time.
        """
        if not self._ends(timeout):
            raise WaitError(f'the daemon, pid {self.pid}, did not end within {timeout:g} s')

    def stop(self, signum: int | str = 'TERM', timeout: float = TIMEOUT) -> None:
        """Send a signal, and wait until the daemon has ended."""
        self.signal(signum)
        self.wait(timeout)

    def _find(self) -> None:
        """Open a pidfd of the process that has locked the pidfile."""
        state, pid = probe(self._pidfile)
        if state != 'running' or pid is None:
            raise WaitError(
                f'pidfile {self._pidfile}: it does not belong to a running daemon ({state})\n'
                + '\n'.join(self.lines)
            )
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        if probe(self._pidfile) != ('running', pid):
            # It ended in between, and its process ID may have been reused.
            os.close(self._descriptor)
            self._descriptor = -1
            raise WaitError(f'the daemon, pid {pid}, ended at once')

    def _kill_half_started(self) -> None:
        """Kill a daemon that exists although the command failed, or was too slow."""
        try:
            if self._descriptor < 0:
                self._find()
            self._kill()
            os.close(self._descriptor)
        except (WaitError, ProcessLookupError):
            pass

    def _kill(self) -> None:
        try:
            self.signal(signal.SIGKILL)
        except ProcessLookupError:
            return
        self.wait()

    def _ends(self, timeout: float) -> bool:
        return bool(select.select([self._descriptor], [], [], max(timeout, 0.0))[0])


class _Stream:
    """The lines that are read from a pipe.

    :param pipe: the pipe; it becomes non-blocking.
    :param all_lines: a list that gets each line in addition to :attr:`lines`.
    """

    def __init__(self, pipe: Any, all_lines: list[str]) -> None:
        self.lines: list[str] = []
        self._all_lines = all_lines
        self._pipe = pipe
        self._rest = b''
        os.set_blocking(pipe.fileno(), False)

    def read(self) -> bool:
        """Read what is available, and return False at the end.

        :raises BlockingIOError: nothing is available.
        """
        chunk = os.read(self._pipe.fileno(), CHUNK)
        *whole, self._rest = (self._rest + chunk).split(b'\n')
        if not chunk and self._rest:
            whole, self._rest = [self._rest], b''
        for line in whole:
            text = line.decode(errors='backslashreplace')
            self.lines.append(text)
            self._all_lines.append(text)
        return bool(chunk)

    def drain(self) -> None:
        """Read everything that is available."""
        _until_blocked(self.read)

    def close(self) -> None:
        self._pipe.close()


def _has_more(read: Callable[[], bool]) -> bool:
    try:
        return read()
    except BlockingIOError:  # _note_exit() has read it to the end, because the program has ended
        return True


def _until_blocked(read: Callable[[], bool]) -> None:
    try:
        while read():
            pass
    except BlockingIOError:
        pass


def _environment(
    changes: Mapping[str, str | None], notify: NotifySocket | None
) -> dict[str, str]:
    environ: dict[str, str | None] = {**os.environ, **dict.fromkeys(MANAGED)}
    if notify is not None:
        environ.update(notify.environ)
    environ.update(changes)
    return {name: value for name, value in environ.items() if value is not None}


def _identity(user: str | int | None) -> dict[str, Any]:
    """Return the arguments that make Popen run a process as a user, with that user's groups."""
    if user is None:
        return {}
    account = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {'user': account.pw_uid, 'group': account.pw_gid, 'extra_groups': groups}


def signal_number(signum: int | str) -> signal.Signals:
    """Return the signal of a number or name, ``'TERM'`` or ``'SIGTERM'``.

    :raises ValueError: there is no such signal.
    """
    if isinstance(signum, int):
        return signal.Signals(signum)
    name = 'SIG' + signum.upper().removeprefix('SIG')
    if name not in signal.Signals.__members__:
        raise ValueError(f'no signal is called {signum!r}')
    return signal.Signals[name]


def _kill_session(leader: int) -> None:
    """Kill all processes of a session, whose *leader* has not been waited for yet.

    Workers under a supervisor have process groups of their own.
    """
    os.kill(leader, signal.SIGKILL)  # first, so that it starts no others
    for entry in os.listdir('/proc'):
        try:
            with open(f'/proc/{entry}/stat', 'rb') as file:
                session = int(file.read().rpartition(b')')[2].split()[3])
            if session == leader:
                os.kill(int(entry), signal.SIGKILL)
        except (OSError, ValueError):  # it has ended, or is no process
            continue
