"""A program as a process of its own: started, waited for, signalled, and always ended."""

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
"""What a service manager that runs the tests has told them, and not the program under test"""

CHUNK = 65536
"""bytes that are read from a pipe at a time"""


class Program:
    """A program in the foreground, from entering the ``with`` to leaving it.

    It is the leader of a session of its own, so a Ctrl-C that ends the tests is not for it. A
    thread reads what it writes, so it never waits for the test. What is left of the program and
    of its process group when the ``with`` is left is killed.

    Each ``wait_...`` goes on behind what ended the one before, as a reader does.

    :param argv: the program and its arguments.
    :param env: variables in addition to those of the test; None as a value removes one.
    :param cwd: the directory to start it in; by default, that of the test.
    :param user: the name or the number of the user who runs it, with the groups that it has in
        the database; takes root. By default, whoever runs the test.
    :param notify: whether the program gets a ``NOTIFY_SOCKET``, which :meth:`wait_ready` listens
        to, and because of which it does not detach.
    :param watchdog: seconds of the watchdog to ask it for; None for none.
    :param popen: further arguments of :class:`subprocess.Popen`, as ``pass_fds`` or ``stdin``,
        which is ``/dev/null`` by default.
    :ivar int pid: the number of the process.
    :ivar stdin: where to write its standard input to, if ``stdin`` is :data:`subprocess.PIPE`;
        else None.
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
        # The group is there to be killed until its leader is reaped, and nobody did that yet.
        os.killpg(self.pid, signal.SIGKILL)
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

    # What it has done.

    @property
    def lines(self) -> list[str]:
        """The lines that it has written so far, to either stream, in the order of reading."""
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
        """What it has told its service manager so far; see :class:`NotifySocket`."""
        with self._changed:
            return [] if self._notify is None else self._notify.received.copy()

    # Waiting for it.

    def wait_ready(self, timeout: float = TIMEOUT) -> None:
        """Wait until it says that it is ready, after a reload perhaps.

        :param timeout: seconds.
        :raises WaitError: it does not, or it has ended.
        """
        self.wait_notified('READY', timeout)

    def wait_notified(self, name: str, timeout: float = TIMEOUT) -> dict[str, str]:
        """Wait for a notification that has *name*, as ``STATUS``, and return it.

        :raises WaitError: it does not come in time, or the program has ended without.
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
        :raises WaitError: it does not come in time, or the program has ended without.
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
        """Wait until it ends; all that it wrote is among its lines then.

        :param timeout: seconds.
        :returns: its exit status, or ``-n`` if signal n killed it.
        :raises WaitError: it does not end.
        """
        self._wait_until(lambda: self._exited, 'it did not end', timeout)
        return self._status()

    # What the test does to it.

    def signal(self, signum: int | str) -> None:
        """Send a signal.

        :param signum: its number or its name, as ``'TERM'``.
        """
        os.kill(self.pid, signal_number(signum))

    def stop(self, signum: int | str = 'TERM', timeout: float = TIMEOUT) -> int:
        """Send a signal, and wait until it has ended; see :meth:`wait`."""
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
            self._selector.register(self._notify, selectors.EVENT_READ, self._hear)

    def _collect(self) -> None:
        """Read whatever comes. A callback that returns False has seen the end of its source."""
        while not self._closing:
            ready = self._selector.select()
            with self._changed:
                for key, _ in ready:
                    if not _goes_on(key.data):
                        self._selector.unregister(key.fileobj)
                # What was written to stderr before a line on stdout is there when that is.
                _goes_on(self._streams['stderr'].read)
                self._changed.notify_all()

    def _hear(self) -> bool:
        assert self._notify is not None
        self._notify.take()
        return True

    def _note_exit(self) -> bool:
        # What it wrote and sent before it ended is read first, so that it is not missed.
        for stream in self._streams.values():
            stream.drain()
        if self._notify is not None:
            _until_blocked(self._hear)
        self._exited = True
        return False

    # Waiting, in words.

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
        # It stays a zombie, so that its number and its group cannot be anybody else's.
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

    Entering runs the command to its end, which must be a success, and finds the daemon by its
    pidfile. Leaving kills it if it runs still.

    :param argv: the command and its arguments.
    :param pidfile: the path of the daemon's pidfile, as its configuration has it.
    :param timeout: seconds that the command may take.
    :param options: ``env``, ``cwd``, ``user`` and further arguments of :class:`Program`.
    :ivar int pid: the number of the daemon.
    :ivar list lines: what the command has written.
    :raises WaitError: on entering: the command failed, or left no daemon behind.
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
            raise WaitError(f'pidfile {self._pidfile}: a daemon runs already')
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
        """Whether it has not ended."""
        return not self._ends(0)

    def signal(self, signum: int | str) -> None:
        """Send a signal; see :meth:`Program.signal`.

        :raises ProcessLookupError: it has ended.
        """
        if not self.is_running:
            # As long as init(1) has not reaped it, the kernel would not mind.
            raise ProcessLookupError(f'the daemon, pid {self.pid}, has ended')
        signal.pidfd_send_signal(self._descriptor, signal_number(signum))

    def wait(self, timeout: float = TIMEOUT) -> None:
        """Wait until it ends. Its status is known to nobody but init(1).

        :raises WaitError: it does not end.
        """
        if not self._ends(timeout):
            raise WaitError(f'the daemon, pid {self.pid}, did not end within {timeout:g} s')

    def stop(self, signum: int | str = 'TERM', timeout: float = TIMEOUT) -> None:
        """Send a signal, and wait until it has ended."""
        self.signal(signum)
        self.wait(timeout)

    def _find(self) -> None:
        """Get hold of the process that has the pidfile locked."""
        state, pid = probe(self._pidfile)
        if state != 'running' or pid is None:
            raise WaitError(
                f'pidfile {self._pidfile}: it is of no daemon that runs ({state})\n'
                + '\n'.join(self.lines)
            )
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        if probe(self._pidfile) != ('running', pid):
            # It ended meanwhile, and its number may have become another's.
            os.close(self._descriptor)
            self._descriptor = -1
            raise WaitError(f'the daemon, pid {pid}, has ended at once')

    def _kill_half_started(self) -> None:
        """The command failed, or was too slow; that does not mean that there is no daemon."""
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
    """The lines that come out of a pipe.

    :param pipe: the pipe; reading it does not block from here on.
    :param all_lines: where each line is put besides :attr:`lines`.
    """

    def __init__(self, pipe: Any, all_lines: list[str]) -> None:
        self.lines: list[str] = []
        self._all_lines = all_lines
        self._pipe = pipe
        self._rest = b''
        os.set_blocking(pipe.fileno(), False)

    def read(self) -> bool:
        """Read what is there; False at the end. Raises BlockingIOError if nothing is there."""
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
        """Read all that is there."""
        _until_blocked(self.read)

    def close(self) -> None:
        self._pipe.close()


def _goes_on(read: Callable[[], bool]) -> bool:
    try:
        return read()
    except BlockingIOError:  # it was read to the end meanwhile, because the program has ended
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
    """What Popen is to be told so that a process is a user's and nobody else's."""
    if user is None:
        return {}
    account = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {'user': account.pw_uid, 'group': account.pw_gid, 'extra_groups': groups}


def signal_number(signum: int | str) -> signal.Signals:
    """The signal of that number or name, ``'TERM'`` or ``'SIGTERM'``.

    :raises ValueError: there is none.
    """
    if isinstance(signum, int):
        return signal.Signals(signum)
    name = 'SIG' + signum.upper().removeprefix('SIG')
    if name not in signal.Signals.__members__:
        raise ValueError(f'no signal is called {signum!r}')
    return signal.Signals[name]
