"""``myapp -c FILE -f --reload``: the program starts anew when its source or configuration changes.

::

    started --> running -- changed --> stopped --> started
                   |                                  ^
                   '-- ended by itself --> changed ---'

The process that was started only watches files, and starts another one for the work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig

from clihelper.errors import Error, UsageError, one_line
from clihelper.process.signals import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from clihelper.process.signals import Signals

WATCHED_BY = 'CLIHELPER_WATCHED_BY'
"""the environment variable with the pid of the process that watches, for its child"""

QUIET = 0.03
"""seconds without a change until a program is started anew: an editor writes several times"""

LAST = 0.3
"""seconds after the first change when it is started anew in any case"""

STOP, ABANDON = 2.0, 2.0
"""seconds that a restart gives a program to stop, and then to stop at once"""

CHANGES = ('created', 'modified', 'moved', 'deleted')
"""the events of watchdog that are changes; it also has some for what is only read"""

IGNORED_FOLDERS = ('site-packages', 'dist-packages', '__pycache__')


PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent has ended"""


def is_watched() -> bool:
    """Return whether this process is the one that does the work; then it ends with the other."""
    if os.environ.get(WATCHED_BY) != str(os.getppid()):
        return False
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return True


class Restarter:
    """Starts the program again and again, until a signal ends it.

    :param signals: the signal pipe, installed.
    :param configuration: the absolute path of the configuration.
    :param say: prints a line for the user.
    """

    def __init__(
        self, signals: Signals, configuration: str, say: Callable[[str], None]
    ) -> None:
        self._signals = signals
        self._say = say
        self._changes = Changes(configuration)
        self._child: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._is_stopping = False
        self._status = 0

    def run(self) -> int:
        """Run it until a signal ends it.

        :returns: the exit status of the program's last process.
        :raises clihelper.errors.Error: watchdog is missing, or cannot watch the files.
        """
        self._signals.urgent = None
        with self._changes:
            self._start()
            while not self._is_stopping:
                self._wait()
        self._end(None)
        return self._status

    def _wait(self) -> None:
        """Wait for a signal, a change or the end of the program, and act on it."""
        ready = wait_readable(
            (self._signals.fileno(), self._changes.fileno(), *self._descriptors()), None)
        self._serve_signals()
        if self._is_stopping:
            return
        if self._changes.fileno() in ready:
            changed = self._changes.settle()
            self._say(f'{changed} has changed: starts anew')
            self._end(STOP)
            if not self._is_stopping:
                self._start()
        elif self._pidfd in ready:
            self._reap()
            self._say(f'ended with status {self._status}: waits for the next change')

    def _descriptors(self) -> tuple[int, ...]:
        return () if self._child is None else (self._pidfd,)

    def _serve_signals(self) -> None:
        for signum in self._signals.read():
            if signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
                self._is_stopping = True
            elif self._child is not None:
                self._child.send_signal(signum)

    def _start(self) -> None:
        # What it imports is not cached: the cache knows the time of a file only to the second.
        environment = {WATCHED_BY: str(os.getpid()), 'PYTHONDONTWRITEBYTECODE': '1'}
        self._child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]], env={**os.environ, **environment})
        self._pidfd = os.pidfd_open(self._child.pid)

    def _end(self, seconds: float | None) -> None:
        """End the program, the first time gracefully; a signal meanwhile hastens its end.

        TERM is what is sent for an INT, too: a terminal has sent that to the program already, and
        two of them would end it at once.

        :param seconds: that it may take; None: as long as its own deadline lets it.
        """
        steps = ((signal.SIGTERM, seconds), (signal.SIGQUIT, ABANDON), (signal.SIGKILL, None))
        for signum, longest in steps:
            if self._child is None:
                return
            self._child.send_signal(signum)
            descriptors = (self._signals.fileno(), self._pidfd)
            if self._pidfd in wait_readable(descriptors, longest):
                self._reap()
            self._serve_signals()
        self._reap()

    def _reap(self) -> None:
        if self._child is None:
            return
        status = self._child.wait()
        self._status = status if status >= 0 else 128 - status
        os.close(self._pidfd)
        self._child, self._pidfd = None, -1


class Changes:
    """The changes of the program's files, from a thread of watchdog's.

    :param configuration: the absolute path of the configuration.
    """

    def __init__(self, configuration: str) -> None:
        self._files = {os.path.realpath(configuration), configuration}
        self._folders: set[str] = {os.path.dirname(each) for each in self._files}
        for path in _sources():
            self._files.add(path)
            self._folders.add(os.path.dirname(path))
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._changed = ''
        self._observer: Any = None

    def fileno(self) -> int:
        """Return the descriptor that is readable when something has changed."""
        return self._event

    def settle(self) -> str:
        """Wait until nothing changes any more for a moment; return what has changed."""
        for _ in range(int(LAST / QUIET)):
            os.eventfd_read(self._event)
            if not wait_readable((self._event,), QUIET):
                break
        return os.path.relpath(self._changed)

    def __enter__(self) -> Changes:
        try:
            from watchdog.observers import Observer
        except ImportError:
            raise UsageError('--reload needs watchdog: install it with pip, or python3-watchdog'
                             ' of Debian') from None
        self._observer = Observer()
        try:
            for folder in sorted(filter(os.path.isdir, self._folders)):
                self._observer.schedule(self, folder)
            self._observer.start()
        except OSError as error:
            raise Error(f'--reload: files cannot be watched: {one_line(str(error))}') from None
        return self

    def __exit__(self, *_: object) -> None:
        self._observer.stop()
        self._observer.join()
        os.close(self._event)

    def dispatch(self, event: Any) -> None:
        """Note an event; watchdog calls this in its thread."""
        if event.is_directory or event.event_type not in CHANGES:
            return
        for path in filter(None, (event.src_path, getattr(event, 'dest_path', ''))):
            name = os.fsdecode(path)
            if name.endswith('.py') or name in self._files:
                self._changed = name
                os.eventfd_write(self._event, 1)


def _sources() -> Iterator[str]:
    """Yield the files of the program's own modules, and those beside them in its packages."""
    libraries = tuple(
        os.path.join(path, '')
        for path in {sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib'),
                     os.path.dirname(os.path.dirname(os.path.abspath(__file__)))})
    for module in list(sys.modules.values()):
        path = getattr(module, '__file__', None)
        if not isinstance(path, str) or any(each in path for each in IGNORED_FOLDERS):
            continue
        path = os.path.abspath(path)
        if not path.startswith(libraries):
            yield path
            if os.path.basename(path) == '__init__.py':
                yield from _below(os.path.dirname(path))


def _below(package: str) -> Iterator[str]:
    """Yield the modules in the folders below that of a package."""
    for folder, folders, names in os.walk(package):
        folders[:] = [
            each for each in folders if each not in IGNORED_FOLDERS and not each.startswith('.')]
        yield from (os.path.join(folder, name) for name in names if name.endswith('.py'))
