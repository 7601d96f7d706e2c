"""The deadline of a stop, and the bare threads that enforce it.

A :class:`threading.Thread` takes locks that the main thread may hold when a signal handler starts
it; a thread of :mod:`_thread` takes no locks.
"""

from __future__ import annotations

import _thread
import signal
import sys
import time

from clihelper.process.signals import LONGEST_WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Ending(Protocol):
        """Ends a process whose main thread does not. All methods are called in bare threads."""

        def unblock(self) -> bool:
            """Discard output that nobody reads; return whether any was blocked."""

        def report(self, signum: int) -> None:
            """Report that the process ends at once; this may have to wait for a lock."""

        def end(self, signum: int) -> None:
            """End the process with status 128 + *signum*."""


NEVER = float('inf')

LAST_WORDS = 1.0
"""seconds for reporting that the process ends at once, before it does"""

BLOCKED_WORDS = 0.1
"""the same where nobody reads what is reported"""

UNBLOCKING = 0.1
"""seconds between two looks for blocked output, while the main thread should be ending"""


class Deadline:
    """Ensures that a stop ends. When the time is over, the main thread is interrupted.

    The process is ended :data:`GRACE` seconds later. When the life cycle is over, it is ended at
    the deadline itself: the main thread may then be where the interpreter ignores exceptions.

    :param ending: ends the process.
    :param interrupts: whether the main thread is interrupted; otherwise the process is ended at
        the deadline.
    :ivar bool expired: whether the time is over; the main thread then receives a TERM.
    """

    GRACE = 5.0
    """seconds between the interruption of the main thread and the end of the process"""

    def __init__(self, ending: Ending, *, interrupts: bool = True) -> None:
        self.expired = False
        self._ending = ending
        self._clock: _Clock | None = None
        self._is_last = not interrupts

    def arm(self, seconds: float, signum: int = signal.SIGTERM) -> None:
        """Let the time be over after *seconds*, unless it is over earlier already.

        :param signum: the signal by which the process then ends. May be called in its handler.
        """
        clock = self._start()
        due = time.monotonic() + seconds
        if clock.due is not None and due < clock.due:
            clock.signum = signum
            clock.set(due)

    def force(self, signum: int) -> bool:
        """End the process: within :data:`GRACE`, or at once when the life cycle is over.

        :param signum: the signal that stops it. May be called in its handler.
        :returns: whether the handler should interrupt the main thread.
        """
        clock = self._start()
        clock.signum, clock.insists = signum, True
        clock.set(time.monotonic() + (0.0 if self._is_last else self.GRACE))
        return not self._is_last

    def disarm(self) -> None:
        """Stop the clock."""
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.set(None)

    def outlive(self) -> None:
        """Do not interrupt the main thread any more: its life cycle is over.

        The threads are started if they are not running: from Python 3.12 on, none can be started
        while the interpreter shuts down.
        """
        self._is_last = True
        self._start()

    def _start(self) -> _Clock:
        if self._clock is None:
            self._clock = _Clock()
            start_thread(self._watch, self._clock)
            start_thread(self._report, self._clock)
        return self._clock

    def _watch(self, clock: _Clock) -> None:
        """Wait until the time is over, and act."""
        while clock.wait():
            if clock.is_overdue and (clock.insists or self._is_last):
                # Who was blocked is not woken: the process might end with another status.
                clock.let_report(BLOCKED_WORDS if self._unblock() else LAST_WORDS)
                self._ending.end(clock.signum)
                return
            if clock.is_overdue:
                clock.insist(self.GRACE)
                self.expired = True
                kill_main_thread(signal.SIGTERM)
            if clock.insists and self._unblock():
                signal_threads(signal.SIGTERM)
        clock.let_report(0)

    def _report(self, clock: _Clock) -> None:
        """Report the end: not in the first thread, since whatever reports may be blocked."""
        if clock.wait_to_report():
            try:
                self._ending.report(clock.signum)
            finally:
                clock.reported()

    def _unblock(self) -> bool:
        try:
            return self._ending.unblock()
        except Exception:  # a handler of the program's own; the deadline must hold all the same
            return False


class _Clock:
    """What the two threads of a deadline share with the main thread.

    :ivar due: the end of the time, by the monotonic clock; None: the deadline was disarmed.
    :ivar insists: whether the process ends then, as the main thread was interrupted before.
    """

    def __init__(self) -> None:
        self.due: float | None = NEVER
        self.signum: int = signal.SIGTERM
        self.insists = False
        self._bell, self._begin, self._done = _held_lock(), _held_lock(), _held_lock()

    def set(self, due: float | None) -> None:
        self.due = due
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            pass

    def insist(self, seconds: float) -> None:
        self.insists = True
        self.due = time.monotonic() + seconds

    def wait(self) -> bool:
        """Wait until the time is over or something has changed; False: it was disarmed."""
        due = self.due
        if due is not None:
            left = min(due - time.monotonic(), UNBLOCKING if self.insists else LONGEST_WAIT)
            self._bell.acquire(timeout=max(left, 0.0))
        return self.due is not None

    @property
    def is_overdue(self) -> bool:
        return self.due is not None and time.monotonic() >= self.due

    def let_report(self, patience: float) -> None:
        self._begin.release()
        self._done.acquire(timeout=patience)

    def wait_to_report(self) -> bool:
        self._begin.acquire()
        return self.due is not None

    def reported(self) -> None:
        self._done.release()


def kill_main_thread(signum: int) -> None:
    """Interrupt the main thread by a signal: a blocking call in it ends with EINTR."""
    import threading

    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, signum)


def signal_threads(signum: int) -> None:
    """Interrupt every thread but this one, by a signal that the process handles.

    In all of them but the main thread, Python then begins the interrupted system call again.
    """
    for ident in sys._current_frames().keys() - {_thread.get_ident()}:
        signal.pthread_kill(ident, signum)


def discard_if_stuck(ending: Ending, is_stuck: Callable[[], bool]) -> None:
    """Let a main thread go on that is stuck in output. May be called in a signal handler.

    :param is_stuck: returns whether it is; it is called after a second, in a bare thread.
    """

    def look() -> None:
        time.sleep(LAST_WORDS)
        if is_stuck() and ending.unblock():
            signal_threads(signal.SIGTERM)

    start_thread(look)


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


def _held_lock() -> _thread.LockType:
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock
