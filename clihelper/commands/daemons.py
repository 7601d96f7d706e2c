"""Finding a daemon by the lock of its pidfile, and holding on to it; never by a process's name."""

from __future__ import annotations

import os
import time

from clihelper.errors import ConfigurationError, Error, NotPermitted, UsageError
from clihelper.process.pidfile import probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Collection, Sequence
    from typing import Any

    from clihelper.commands.arguments import Arguments

OPTIONS = {'-c': 'config', '--config': 'config', '--pidfile': 'pidfile'}
"""What names a daemon, besides its NAME"""

OPTIONS_HELP = """\
  NAME              the name of the program; its pidfile is looked for in $RUNTIME_DIRECTORY,
                    $XDG_RUNTIME_DIR (not by root), /run/NAME and /run
  -c, --config FILE the configuration that it was started with, which says where the pidfile is;
                    with a NAME, if Daemon.pidfile is not in it or has %(app)s
  --pidfile FILE    the pidfile itself"""

STARTING = 2.0
"""seconds to wait for the number of a daemon that has just locked its pidfile"""

_NAP = 0.01  # seconds; a daemon writes its number some milliseconds after it has the lock

# The states of a pidfile, from the one that tells most.
_TELLING = ('running', 'died', 'unknown', 'stopped')


class Found:
    """What there is of a daemon.

    :ivar label: what was asked for: the name, or the pidfile.
    :ivar path: its pidfile.
    :ivar state: ``running``, ``died``, ``stopped`` or ``unknown``, as the pidfile's lock says.
    :ivar pid: the number in the pidfile, if there is one.
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
        if self.state == 'unknown':
            text += ': it is no pidfile, or may not be read'
        return text if self.label == self.path else f'{text} ({self.path})'


def parse(argv: Sequence[str], *, command: str, values: Collection[str] = (),
          flags: Collection[str] = ()) -> Arguments:
    """The words after a subcommand that is about one daemon.

    :raises UsageError: they are wrong, or name none.
    """
    from clihelper.commands import arguments

    options = {**OPTIONS, **{name: name for name in values}}
    found = arguments.parse(argv, command=command, values=options, flags=flags, max_names=1)
    name = found.names[0] if found.names else ''
    if '/' in name:
        raise UsageError(f'{command}: no name: {name!r} (--pidfile takes a path, and so does -c)')
    if ('pidfile' in found.values) + bool(name or 'config' in found.values) != 1:
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
    candidates = [Found(name, path, stop_timeout) for path in _default_places(name)]
    return min(candidates, key=lambda found: _TELLING.index(found.state))


def _configured(shown: str, name: str) -> tuple[str, float]:
    """The pidfile of a configuration, empty if it has its default place; and the time to stop."""
    from clihelper.config import expand_pidfile, load_daemon

    daemon: dict[str, Any] = load_daemon(os.path.abspath(shown), shown=shown)
    path = daemon.get('pidfile', '')
    if path is None:
        raise ConfigurationError(f'{shown}: Daemon.pidfile is null: its daemon cannot be found')
    if not name and (not path or expand_pidfile(path, '') != expand_pidfile(path, 'name')):
        raise ConfigurationError(f'{shown}: Daemon.pidfile depends on the name of the program:'
                                 ' give that too')
    if path:
        default = '/' if os.geteuid() == 0 else os.getcwd()
        path = os.path.join(daemon.get('working_directory', default), expand_pidfile(path, name))
    return path, daemon['stop_timeout']


def _default_places(name: str) -> list[str]:
    """Where the pidfile of a program may be that was not told where."""
    folders = [os.environ.get('RUNTIME_DIRECTORY', '').partition(':')[0]]
    if os.geteuid() != 0:
        folders.append(os.environ.get('XDG_RUNTIME_DIR', ''))
    folders += [f'/run/{name}', '/run']
    return [os.path.join(folder, f'{name}.pid') for folder in folders if folder]


class LockedDaemon:
    """A daemon that runs, and can be signalled without ever hitting another process.

    Its process is held by a pidfd, and was seen to hold the lock after that was opened: so
    neither a number that was reused nor one that somebody wrote into the file can lead astray.

    :param found: a daemon whose state is ``running``.
    :raises ProcessLookupError: it has ended meanwhile.
    :raises NotPermitted: its pidfile may not be read.
    :raises Error: the process whose number is in the file does not hold the lock.
    """

    def __init__(self, found: Found) -> None:
        self.path = found.path
        self.pid = 0
        self._process = self._lock = -1
        end = time.monotonic() + STARTING
        while not self._take_hold():
            if time.monotonic() > end:
                raise Error(f'{self.path}: locked, but not by the process whose number it has')
            time.sleep(_NAP)

    def __enter__(self) -> LockedDaemon:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._process)
        os.close(self._lock)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal.

        :raises ProcessLookupError: it has ended.
        :raises NotPermitted: it is another user's.
        """
        import signal

        try:
            signal.pidfd_send_signal(self._process, signum)
        except PermissionError:
            raise NotPermitted(f'{self.path}: pid {self.pid} is not yours to signal') from None

    def wait(self, timeout: float) -> bool:
        """Wait until it is gone: the process, and whoever else holds the lock.

        :returns: whether it is.
        """
        import select

        end = time.monotonic() + timeout
        if not select.select([self._process], (), (), timeout)[0]:
            return False
        state, pid = probe(self.path)
        # With another number it is another daemon, which was started at once.
        if state != 'running' or pid not in (None, self.pid):
            return True
        return _wait_unlocked(self._lock, end - time.monotonic())

    def _take_hold(self) -> bool:
        """Open process and lock, and see that they belong together; False: not yet."""
        state, pid = probe(self.path)
        if state != 'running':
            raise ProcessLookupError(f'{self.path}: {state}')
        if not pid:
            return False
        lock = process = -1
        try:
            lock = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            process = os.pidfd_open(pid)
            taken = _holds(pid, lock) and probe(self.path) == ('running', pid)
        except OSError:  # it is gone, and so may be its successor
            taken = False
        if taken:
            self.pid, self._process, self._lock = pid, process, lock
            return True
        for descriptor in (lock, process):
            if descriptor >= 0:
                os.close(descriptor)
        return False


def _holds(pid: int, lock: int) -> bool:
    """Whether a process has the file of a descriptor open and locked: see proc_pid_fdinfo(5).

    Where that may not be looked at, it is taken for true.
    """
    ours = os.fstat(lock)
    try:
        numbers = os.listdir(f'/proc/{pid}/fd')
    except PermissionError:
        return True
    for number in numbers:
        try:
            if not os.path.samestat(os.stat(f'/proc/{pid}/fd/{number}'), ours):
                continue
            with open(f'/proc/{pid}/fdinfo/{number}') as file:
                if 'FLOCK' in file.read():
                    return True
        except PermissionError:
            return True
        except OSError:  # it was closed meanwhile
            continue
    return False


def _wait_unlocked(lock: int, timeout: float) -> bool:
    """Wait until nobody holds the lock; the workers of a daemon may do so for longer than it."""
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
