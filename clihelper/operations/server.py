"""The process that answers for a daemon: see :mod:`clihelper.operations.web`.

::

    daemon --- fork ---> keeper --- fork ---> server
                           ^                    |
                           '------ has ended ---'

The daemon itself serves nothing, so neither disturbs the other: a handler that holds the
interpreter's lock, or a client that asks without end. The keeper starts the server again when that
has ended; the daemon could not always, as it may have threads by then. Both end with the daemon,
however that ends, and ignore the signals that stop it: until then they answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import warnings

from clihelper.backoff import Backoff, when
from clihelper.errors import UnavailableForNow
from clihelper.logs.setup import close_handlers
from clihelper.process import title
from clihelper.process.signals import HANDLED, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from socket import socket
    from typing import Any

    from clihelper.process.statistics import Statistics

LOGGER = logging.getLogger('clihelper')

PATIENCE = 2.0
"""seconds that the keeper has to end"""

LONGEST_DELAY = 5.0
"""seconds at most before the server is started again"""

HEALTHY = 60.0
"""seconds after which the end of a server no longer indicates a permanent fault"""


class MetricsServer:
    """The keeper and the server, as the daemon sees them.

    :param appname: the application's name.
    :param statistics: what is served.
    :param sockets: listening sockets.
    :param names: the names under which it may be asked.
    :param facts: what the status says besides its report.
    :param configure_logging: opens the logs, for a line that the keeper writes.
    """

    def __init__(
        self, appname: str, statistics: Statistics, sockets: Sequence[socket],
        names: Collection[str], facts: dict[str, Any], configure_logging: Callable[[], None],
    ) -> None:
        self._appname = appname
        self._statistics = statistics
        self._sockets = sockets
        self._names = names
        self._facts = facts
        self._configure_logging = configure_logging
        self._owner = os.getpid()

    def start(self) -> None:
        """Fork the keeper. This process must not have threads, but those of log listeners.

        :raises UnavailableForNow: there is no process or descriptor left.
        """
        try:
            self._daemon = os.pidfd_open(self._owner)
            self._ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._pid = _fork(self._keep)
            self._keeper = _pidfd(self._pid)
        except OSError as error:
            raise UnavailableForNow(f'Daemon.metrics: {error.strerror}') from error

    def end(self) -> None:
        """End both, and wait until they have ended: their address is free then."""
        if os.getpid() != self._owner:
            return
        os.eventfd_write(self._ending, 1)
        if not wait_readable((self._keeper,), PATIENCE):
            signal.pidfd_send_signal(self._keeper, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # process 1 has reaped it
            os.waitpid(self._pid, 0)
        for descriptor in (self._daemon, self._ending, self._keeper):
            os.close(descriptor)

    # In the keeper.

    def _keep(self) -> None:
        title.set_title(f'{self._appname}: metrics keeper')
        close_handlers()
        self._close_others()
        endings = self._daemon, self._ending
        backoff = Backoff(cap=LONGEST_DELAY)
        while not wait_readable(endings, 0):
            began = time.monotonic()
            try:
                how = self._run_server(endings)
            except OSError as error:
                how = f'could not be started: {error.strerror}'
            if not how:
                return
            if time.monotonic() > began + HEALTHY:
                backoff.reset()
            delay = backoff.next()
            self._report(f'the process for metrics {how}; another is started {when(delay)}')
            wait_readable(endings, delay)

    def _run_server(self, endings: tuple[int, int]) -> str:
        """Return in words how a server has ended; empty if the daemon has.

        :raises OSError: there is no process or descriptor left.
        """
        pid = _fork(self._serve)
        server = _pidfd(pid)
        try:
            ended = wait_readable((*endings, server), None)
            if server not in ended:
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return f'has ended: {_words(status)}' if server in ended else ''
        finally:
            os.close(server)

    def _report(self, line: str) -> None:
        """Log a line, without keeping a log file open that may be rotated."""
        with contextlib.suppress(Exception):
            self._configure_logging()
            LOGGER.warning('%s', line)
        close_handlers()

    def _close_others(self) -> None:
        """Close what this process has inherited and does not need.

        Among it are the locks of the pidfile and of the state, the sockets of ``Daemon.listen``,
        and the pipe to the command that waits for the daemon.
        """
        needed = self._daemon, self._ending, *(each.fileno() for each in self._sockets)
        first = 3
        # Without /proc/self/fd, which belongs to root where the user has been changed.
        for number in (*sorted(needed), os.sysconf('SC_OPEN_MAX')):
            os.closerange(first, number)
            first = number + 1

    # In the server.

    def _serve(self) -> None:
        title.set_title(f'{self._appname}: metrics')
        logging.disable()  # of what clients do
        from clihelper.operations import web

        web.run(self._statistics, self._sockets, self._names, self._facts,
                (self._daemon, self._ending))


def _fork(work: Callable[[], None]) -> int:
    """Fork a process that does some work and ends. This returns in the parent only."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        with warnings.catch_warnings():
            # Listeners of log handlers are stopped meanwhile, but Python counts them from 3.12 on.
            warnings.simplefilter('ignore', DeprecationWarning)
            pid = os.fork()
        if not pid:
            _work(work)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(work: Callable[[], None]) -> None:
    status = 1
    try:
        for signum in HANDLED:
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        work()
        status = 0
    finally:
        os._exit(status)


def _pidfd(pid: int) -> int:
    """Open a child of this process; kill it if that fails."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _words(status: int) -> str:
    """Describe how a process ended, by its :func:`os.waitstatus_to_exitcode`."""
    return f'status {status}' if status >= 0 else f'signal {-status}'
