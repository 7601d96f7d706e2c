"""The deadline of a stop, and the bare threads that enforce it.

A :class:`threading.Thread` takes locks that the main thread may hold when a signal handler starts
it; a thread of :mod:`_thread` takes no locks.
"""

from __future__ import annotations

import _thread
import signal
import time

from clihelper.process.signals import LONGEST_WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Deadline:
    """Ensures that a stop ends, by interrupting the main thread when the time is over.

    :param last_resort: called in a bare thread with the number of a signal, if the main thread
        has not ended :data:`GRACE` seconds after its interruption; it ends the process.
    :ivar bool expired: whether the time is over; the main thread then receives a TERM.
    """

    GRACE = 5.0
    """seconds between the interruption of the main thread and the last resort"""

    def __init__(self, last_resort: Callable[[int], None]) -> None:
        self.expired = False
        self._last_resort = last_resort
        self._lock: _thread.LockType | None = None

    def arm(self, seconds: float) -> None:
        """Start the clock, unless it is running. May be called in a signal handler."""
        if self._lock is None:
            self._start(self._watch, seconds)

    def force(self, signum: int) -> None:
        """Allow the main thread, which was interrupted, no more than :data:`GRACE`."""
        self._start(self._insist, signum)

    def disarm(self) -> None:
        """Stop the clock."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _start(self, watch: Callable[..., None], argument: float) -> None:
        lock = self._lock
        if lock is None:
            self._lock = lock = _thread.allocate_lock()
            lock.acquire()
        start_thread(watch, lock, argument)

    def _watch(self, lock: _thread.LockType, seconds: float) -> None:
        if not _released(lock, seconds):
            self.expired = True
            kill_main_thread(signal.SIGTERM)
            self._insist(lock, signal.SIGTERM)

    def _insist(self, lock: _thread.LockType, signum: int) -> None:
        if not _released(lock, self.GRACE):
            self._last_resort(signum)


def kill_main_thread(signum: int) -> None:
    """Interrupt the main thread by a signal: a blocking call in it ends with EINTR."""
    import threading

    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, signum)


def signal_later(
    signum: int, seconds: float, is_due: Callable[[], bool] | None = None
) -> None:
    """Send *signum* to the main thread after *seconds*. May be called in a signal handler.

    :param is_due: returns whether the signal is still due; it is sent again, after twice as long
        each time, until this is false. One signal is not always enough: if it arrives when the
        main thread is just about to wait in a system call, it does not end that wait. By default
        it is sent once.
    """

    def wait_and_send() -> None:
        pause = seconds
        time.sleep(pause)
        while is_due is None or is_due():
            kill_main_thread(signum)
            if is_due is None:
                return
            pause *= 2
            time.sleep(pause)

    start_thread(wait_and_send)


def start_thread(function: Callable[..., object], *arguments: object) -> None:
    """Start a bare thread, and return when it is running. May be called in a signal handler.

    CPython 3.11.2 crashes if it exits while a thread is just about to begin.
    """
    begun = _thread.allocate_lock()
    begun.acquire()

    def run() -> None:
        begun.release()
        function(*arguments)

    _thread.start_new_thread(run, ())
    begun.acquire()


def _released(lock: _thread.LockType, seconds: float) -> bool:
    """Return whether *lock* is released within *seconds*; other waiting threads learn it too."""
    if lock.acquire(timeout=min(seconds, LONGEST_WAIT)):
        lock.release()
        return True
    return False
