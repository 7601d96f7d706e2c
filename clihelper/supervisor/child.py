"""A worker as it sees itself: what it tells the supervisor, and how it learns of its death.

What it tells are the lines of sd_notify(3), through a pipe: ``READY=1``, ``STATUS=...``. Other
lines in the pipe are tracebacks, which faulthandler writes when the process crashes.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys

from clihelper.process.systemd import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from clihelper.process.scoreboard import Slot

LOGGER = logging.getLogger('clihelper.supervisor')

LONGEST_LINE = 1024
"""bytes of a line for the supervisor; short enough to be written to a pipe as a whole"""


class WorkerChannel(Notifier):
    """A worker's place among the workers. The life cycle takes it for its service manager.

    :param number: of the worker, from 1.
    :param hand: its slot in the shared memory.
    :param writer: the pipe to the supervisor.
    :param lifeline: a pipe that only the supervisor can write to: it ends when that does.
    :param watchdog: seconds within which the loop has to come round; None: nobody watches.
    """

    __slots__ = ('_lifeline', '_watchdog', '_writer', 'slot', 'number')

    def __init__(
        self, number: int, slot: Slot, writer: int, lifeline: int, watchdog: float | None
    ) -> None:
        super().__init__()
        self.number = number
        self.slot = slot
        self._writer = writer
        self._lifeline = lifeline
        self._watchdog = watchdog
        os.set_blocking(writer, False)

    @property
    def enabled(self) -> bool:
        """There is somebody to tell."""
        return True

    @property
    def watchdog_interval(self) -> float | None:
        """The seconds within which to call :meth:`watchdog`."""
        return self._watchdog

    def watchdog(self) -> bool:
        """The loop makes progress."""
        self.slot.heartbeat()
        return True

    def stopping(self, status: str = '') -> bool:
        """The worker has begun to stop; say so if that is because the supervisor is gone."""
        if self._is_orphan():
            LOGGER.warning('the supervisor has died: worker %d stops', self.number)
        return super().stopping(status)

    def explain(self, line: str) -> None:
        """Tell why this worker is about to end."""
        self._send(f'WHY={line}')

    def retiring(self) -> bool:
        """This worker is about to stop, and another is to take its place."""
        return self._send('RETIRING=1')

    def left(self) -> None:
        """This worker has ended of its own accord, and none is to take its place."""
        self._send('LEFT=1')

    def prepare(self, max_messages: float | None) -> None:
        """Have a crash leave a traceback, and a TERM come when the supervisor dies.

        :param max_messages: after how many this worker is to be replaced.
        """
        import faulthandler

        self.slot.claim()
        if max_messages is not None:
            self.slot.limit = max_messages

        faulthandler.enable(self._writer)  # the pipe takes it, from C, whoever holds the GIL
        _signal_at_end(self._lifeline, signal.SIGTERM)
        if self._is_orphan():
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_orphan(self) -> bool:
        poll = select.poll()
        poll.register(self._lifeline, 0)  # only its end
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
    """Have the kernel send *signum* to this process when the pipe ends: O_ASYNC of fcntl(2).

    So it reaches the process wherever it waits, a loop of the user's own included.
    """
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signum)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)


def forget_exit_handlers() -> None:
    """Just after the fork: what is to be done at the program's end is the supervisor's to do.

    A temporary folder that the program has made, for example, is there for all.
    """
    import atexit
    import weakref

    atexit._clear()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    # So that those which this process will make are called at its end.
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def leave(status: int) -> NoReturn:
    """End this process as the interpreter would: threads, exit handlers, logs, streams."""
    import atexit
    import threading

    from clihelper.logs.setup import stop_listeners

    for step in (
        threading._shutdown,  # type: ignore[attr-defined]
        atexit._run_exitfuncs,
        stop_listeners,
        logging.shutdown,
        *(stream.flush for stream in (sys.stdout, sys.stderr) if stream is not None),
    ):
        try:
            step()
        except Exception as error:
            LOGGER.debug('at the end: %s', error)
    os._exit(status)
