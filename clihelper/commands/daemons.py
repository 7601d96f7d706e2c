"""Find and hold a daemon by the lock of its pidfile; never by the name of a process."""

from __future__ import annotations

import os
import time

from clihelper.errors import ConfigurationError, Error, NotPermitted, UsageError
from clihelper.process.pidfile import holders, holds, named, probe
from clihelper.program import pidfile_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from clihelper.commands.arguments import Arguments

OPTIONS = {'-c': 'config', '--config': 'config', '--pidfile': 'pidfile'}
"""The options that identify a daemon, besides its NAME."""

OPTIONS_HELP = """\
  NAME              the name of the program; its pidfile is looked for in $RUNTIME_DIRECTORY,
                    $XDG_RUNTIME_DIR (not by root), /run/NAME and /run
  -c, --config FILE the configuration that it was started with, which says where the pidfile is;
                    needs a NAME if Daemon.pidfile is not set or contains %(app)s
  --pidfile FILE    the pidfile itself"""

STARTING = 2.0
"""Seconds to wait for the process ID of a daemon that has just locked its pidfile."""

_NAP = 0.01  # seconds; a daemon writes its process ID some milliseconds after it has the lock

# The states of a pidfile, the most informative first.
_BY_INFORMATION = ('running', 'died', 'unknown', 'stopped')


class Found:
    """A daemon's pidfile and its state.

    :ivar label: what the user gave: the name, or the pidfile.
    :ivar path: its pidfile.
    :ivar state: ``running``, ``died``, ``stopped`` or ``unknown``, according to the lock.
    :ivar pid: the process ID in the pidfile, if there is one.
    :ivar stop_timeout: ``Daemon.stop_timeout``, if the configuration was read.
    """

    def __init__(self, label: str, path: str, stop_timeout: float | None) -> None:
        self.label = label
        self.path = path
        self.stop_timeout = stop_timeout
        self.state, self.pid = probe(path)

    def __str__(self) -> str:
        text = f'{self.label}: {self.state}'
        if self.pid:
            text += f', pid {self.pid}'
        if self.state == 'running' and self.pid:
            text += _left_behind(self.path, self.pid)
        if self.state == 'unknown':
            text += ': it is not a pidfile, or may not be read'
        return text if self.label == self.path else f'{text} ({self.path})'


def parse(argv: Sequence[str], *, command: str, values: Collection[str] = (),
          flags: Collection[str] = (), pidfile_and_config: bool = False,
          own: Callable[[list[str]], int] | None = None) -> Arguments:
    """Parse the words after a subcommand that is about one daemon.

    :param pidfile_and_config: whether both may be given; then the pidfile identifies the daemon.
    :param own: returns how many of the first words are the subcommand's own, which the result has
        in ``own``, rather than the name of the daemon.
    :raises UsageError: they are wrong, or do not identify a daemon.
    """
    from clihelper.commands import arguments

    options = {**OPTIONS, **{name: name for name in values}}
    found = arguments.parse(argv, command=command, values=options, flags=flags, own=own)
    name = found.names[0] if found.names else ''
    if '/' in name:
        raise UsageError(f'{command}: not a name: {name!r} (--pidfile and -c take a path)')
    by_config = 'config' in found.values
    if pidfile_and_config and 'pidfile' in found.values:
        by_config = False
    if ('pidfile' in found.values) + bool(name or by_config) != 1:
        raise UsageError(f'{command}: expected a NAME, -c FILE or --pidfile FILE')
    return found


def find(arguments: Arguments) -> Found:
    """Find the daemon that was asked for.

    :raises Error: the configuration does not say where its pidfile is, or cannot be read.
    """
    name = arguments.names[0] if arguments.names else ''
    if 'pidfile' in arguments.values:
        path = os.path.abspath(arguments.values['pidfile'])
        return Found(path, path, None)
    stop_timeout = None
    if 'config' in arguments.values:
        path, stop_timeout = _configured(arguments.values['config'], name)
        if path:
            return Found(name or path, path, stop_timeout)
    candidates = [Found(name, path, stop_timeout) for path in _default_pidfiles(name)]
    return min(candidates, key=lambda found: _BY_INFORMATION.index(found.state))


def configured_pidfile(shown: str) -> str:
    """Return the pidfile that a configuration names without the name of its program, or ''.

    :raises ConfigurationError: there is none, or it depends on that name.
    """
    return _configured(shown, '')[0]


def _configured(shown: str, name: str) -> tuple[str, float]:
    """Return the pidfile of a configuration, empty for the default; and ``stop_timeout``."""
    from clihelper.config import expand_pidfile, load_daemon

    daemon: dict[str, Any] = load_daemon(os.path.abspath(shown), shown=shown)
    path = daemon.get('pidfile', '')
    if path is None:
        raise ConfigurationError(f'{shown}: Daemon.pidfile is null: its daemon cannot be found')
    if not name and (not path or expand_pidfile(path, '') != expand_pidfile(path, 'name')):
        raise ConfigurationError(f'{shown}: Daemon.pidfile depends on the name of the program:'
                                 ' give a NAME as well')
    if path:
        default = '/' if os.geteuid() == 0 else os.getcwd()
        path = os.path.join(daemon.get('working_directory', default), expand_pidfile(path, name))
    return path, daemon['stop_timeout']


def _default_pidfiles(name: str) -> list[str]:
    """Return where the pidfile of a program may be if its configuration does not say so."""
    folders = [each for each in pidfile_directories(os.geteuid() == 0) if each != '/run']
    folders += [f'/run/{name}', '/run']
    return [os.path.join(folder, f'{name}.pid') for folder in folders]


class NotHeld(Error):
    """The process whose ID is in a pidfile does not hold its lock; another one does."""

    def __init__(self, path: str) -> None:
        others = _holders(path)
        by = f': by {named(others)}' if others else ''
        super().__init__(f'{path}: locked, but not by the process whose ID it contains{by}')


class LockedDaemon:
    """A running daemon that can be signalled without ever hitting another process.

    A pidfd refers to its process, which was seen to hold the lock after the pidfd was opened. So
    neither a reused process ID nor a false one in the file can select another process.

    :param found: a daemon whose state is ``running``.
    :raises ProcessLookupError: it has ended since.
    :raises NotPermitted: its pidfile may not be read.
    :raises NotHeld: the process whose ID is in the file does not hold the lock.
    """

    def __init__(self, found: Found) -> None:
        self.path = found.path
        self.pid = 0
        self._process = self._lock = -1
        end = time.monotonic() + STARTING
        while not self._take_hold():
            if time.monotonic() > end:
                raise NotHeld(self.path)
            time.sleep(_NAP)

    def __enter__(self) -> LockedDaemon:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._process)
        os.close(self._lock)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal.

        :raises ProcessLookupError: the daemon has ended.
        :raises NotPermitted: it belongs to another user.
        """
        import signal

        try:
            signal.pidfd_send_signal(self._process, signum)
        except PermissionError:
            raise NotPermitted(f'{self.path}: pid {self.pid} is not yours to signal') from None

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, and nobody else holds the lock.

        :returns: whether that is so; False after the timeout.
        """
        import select

        end = time.monotonic() + timeout
        if not select.select([self._process], (), (), timeout)[0]:
            return False
        return wait_unlocked(self.path, self.pid, end - time.monotonic())

    def _take_hold(self) -> bool:
        """Open the process and the lock, and return whether they belong together yet."""
        state, pid = probe(self.path)
        if state != 'running':
            raise ProcessLookupError(f'{self.path}: {state}')
        if not pid:
            return False
        lock = process = -1
        try:
            lock = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            process = os.pidfd_open(pid)
            taken = holds(pid, lock) and probe(self.path) == ('running', pid)
        except OSError:  # it has ended, and so may have its successor
            taken = False
        if taken:
            self.pid, self._process, self._lock = pid, process, lock
            return True
        for descriptor in (lock, process):
            if descriptor >= 0:
                os.close(descriptor)
        return False


def wait_unlocked(path: str, pid: int | None, timeout: float) -> bool:
    """Wait until nobody holds the lock of a daemon that has ended, or another daemon does.

    Its workers may hold it for longer than it does.

    :param pid: the process ID of the daemon.
    :returns: whether that is so; False after the timeout.
    """
    lock = _open(path)
    if lock < 0:
        return True
    try:
        state, now = probe(path)
        # With another process ID it is another daemon, which was started at once.
        if state != 'running' or now not in (None, pid):
            return True
        return _lock_within(lock, timeout)
    finally:
        os.close(lock)


def _left_behind(path: str, pid: int) -> str:
    """Return what a line about a running daemon adds if only others hold its lock."""
    if os.path.exists(f'/proc/{pid}'):
        return ''
    others = _holders(path)
    return f', which has ended: the lock is held by {named(others)}' if others else ''


def _holders(path: str) -> list[int]:
    lock = _open(path)
    try:
        return [] if lock < 0 else holders(lock)
    finally:
        if lock >= 0:
            os.close(lock)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # it is gone, or may not be read
        return -1


def _lock_within(lock: int, timeout: float) -> bool:
    """Take the lock within *timeout* seconds, and drop it; return whether that was possible."""
    import fcntl
    import signal

    def overdue(signum: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, overdue)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(timeout, 0.001))
        fcntl.flock(lock, fcntl.LOCK_SH)
        fcntl.flock(lock, fcntl.LOCK_UN)
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True
