"""A worker's view of itself: its reports to the supervisor, whose death it also notices.

It reports with the lines of sd_notify(3), through a pipe: ``READY=1``, ``STATUS=...``. Other
lines in the pipe are tracebacks, which faulthandler writes when the process crashes.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys

from clihelper.errors import StopNow
from clihelper.process.systemd import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import NoReturn

    from clihelper.process.scoreboard import Slot
    from clihelper.process.statistics import ProcessStatistics

LOGGER = logging.getLogger('clihelper.supervisor')

LONGEST_LINE = 1024
"""bytes of a line for the supervisor; short enough to be written to a pipe atomically"""


class WorkerChannel(Notifier):
    """A worker's connection to the supervisor, used by the life cycle as the service manager.

    :param number: the worker's number, from 1.
    :param slot: its slot in the shared memory.
    :param statistics: where it records what it does.
    :param writer: the pipe to the supervisor.
    :param lifeline: a pipe that only the supervisor can write to: it closes when that ends.
    :param control: the connection by which the supervisor asks; None: it does not.
    :param watchdog: seconds within which the loop must show progress; None: there is no watchdog.
    """

    __slots__ = ('_lifeline', '_watchdog', '_writer', 'control', 'slot', 'statistics', 'number')

    def __init__(
        self, number: int, slot: Slot, statistics: ProcessStatistics, writer: int, lifeline: int,
        watchdog: float | None, control: socket | None = None,
    ) -> None:
        super().__init__()
        self.number = number
        self.control = control
        self.slot = slot
        self.statistics = statistics
        self._writer = writer
        self._lifeline = lifeline
        self._watchdog = watchdog
        os.set_blocking(writer, False)

    @property
    def enabled(self) -> bool:
        """True: the supervisor is always there to report to."""
        return True

    @property
    def watchdog_interval(self) -> float | None:
        """The seconds within which to call :meth:`watchdog`."""
        return self._watchdog

    def watchdog(self) -> bool:
        """Record that the loop makes progress."""
        self.slot.heartbeat()
        return True

    def stopping(self, status: str = '') -> bool:
        """Report that the worker has begun to stop; log it if the supervisor has died."""
        if self._is_orphan():
            LOGGER.warning('the supervisor has died: worker %d stops', self.number)
        return super().stopping(status)

    @property
    def service_stops(self) -> bool:
        """Whether the supervisor ends, too; otherwise another worker serves on."""
        return self.slot.is_stopping or self._is_orphan()

    def explain(self, line: str) -> None:
        """Report why this worker is about to end."""
        self._send(f'WHY={line}')

    def retiring(self) -> bool:
        """Report that this worker is about to stop and must be replaced."""
        return self._send('RETIRING=1')

    def left(self) -> None:
        """Report that this worker has ended of its own accord and must not be replaced."""
        self._send('LEFT=1')

    def finished(self) -> None:
        """Report that the exit handlers were called: nothing is left behind by accident."""
        self._send('FINISHED=1')

    def prepare(self, max_messages: float | None) -> None:
        """Make a crash leave a traceback, and arrange for a TERM if the supervisor dies.

        :param max_messages: the number of messages after which this worker is replaced.
        """
        import faulthandler

        self.slot.claim()
        if max_messages is not None:
            self.slot.limit = max_messages

        faulthandler.enable(self._writer)  # written to the pipe from C, whoever holds the GIL
        _signal_at_end(self._lifeline, signal.SIGTERM)
        if self._is_orphan():
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_orphan(self) -> bool:
        poll = select.poll()
        poll.register(self._lifeline, 0)  # only wait for its end
        return bool(poll.poll(0))

    def _send(self, *lines: str) -> bool:
        data = b''.join(
            line.encode(errors='replace')[:LONGEST_LINE] + b'\n' for line in lines
        )
        try:
            os.write(self._writer, data)
        except OSError:  # the pipe is full, or the supervisor is gone
            return False
        return True


def _signal_at_end(descriptor: int, signum: int) -> None:
    """Make the kernel send *signum* to this process when the pipe ends: O_ASYNC of fcntl(2).

    So it reaches the process wherever it waits, even in a loop of the user's own.
    """
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signum)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)


def forget_exit_handlers() -> None:
    """Remove, just after the fork, the exit handlers that only the supervisor must run.

    A temporary folder that the program has made, for example, is shared by all processes.
    """
    import atexit
    import weakref

    atexit._clear()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    # So that the finalizers which this process will make are called at its end.
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    if 'multiprocessing.util' in sys.modules:
        _begin_multiprocessing_anew()


def _begin_multiprocessing_anew() -> None:
    """Forget the supervisor's children, and have this process end its own daemonic ones.

    As multiprocessing itself does in a process that it has forked.
    """
    import atexit
    from multiprocessing import process, util

    process._children.clear()  # type: ignore[attr-defined]
    util._finalizer_registry.clear()  # type: ignore[attr-defined]
    atexit.register(util._exit_function)  # type: ignore[attr-defined]


def leave(status: int, finished: Callable[[], None]) -> NoReturn:
    """End this process as the interpreter would: threads, exit handlers, logs, streams.

    :param status: the exit status; that of a stop at once if one comes meanwhile, since a thread
        or an exit handler may hang.
    :param finished: called when all of that is done.
    """
    import atexit
    import threading

    from clihelper.logs.setup import stop_all_listeners

    for step in (
        threading._shutdown,  # type: ignore[attr-defined]
        atexit._run_exitfuncs,
        stop_all_listeners,
        logging.shutdown,
        *(stream.flush for stream in (sys.stdout, sys.stderr) if stream is not None),
        finished,
    ):
        try:
            step()
        except StopNow as stop:  # the deadline, or a QUIT
            status = stop.status
        except BaseException as error:
            LOGGER.debug('at the end: %s', error)
    os._exit(status)
