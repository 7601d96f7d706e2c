"""The signals of a process, as numbers read from a pipe.

The interpreter's C handler writes each signal's number to the pipe (``signal.set_wakeup_fd``), a
loop waits on the pipe together with its own work, and reads the numbers when it has nothing in
hand. So a signal never interrupts anything, and no work is done in a handler. There are two
exceptions, both decided by who owns the loop and not here: :attr:`Signals.urgent` sees each
signal at once and may raise, and :attr:`Signals.deliver` is called where nobody reads the pipe.
"""

from __future__ import annotations

import _thread
import atexit
import os
import select
import signal
import sys
import time
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""The signals that a controller answers to."""

FD_SETSIZE = 1024
"""select(2) takes no descriptor of this number or above."""

LONGEST_WAIT = 86400.0
"""seconds; a longer time-out overflows in some system calls, so it is waited for in parts."""


class Interrupted(BaseException):
    """A signal has come while :meth:`Signals.interrupting`; its number is in the pipe."""


class Signals:
    """The signal pipe. One for each process; :meth:`install` again after a fork.

    :ivar urgent: called for each signal at once, in the main thread, with the number and the
        interrupted frame. What it raises is raised wherever the main thread is.
    :ivar bool arrived: whether a signal has come since the pipe was read, for a loop that is too
        busy to look into the pipe each time round.
    :ivar deliver: called like :attr:`urgent` and after it, where nobody reads the pipe; None
        while somebody does.
    """

    def __init__(self) -> None:
        self.urgent: Callable[[int, FrameType | None], None] | None = None
        self.deliver: Callable[[int, FrameType | None], None] | None = None
        self.arrived = False
        self._reader = self._writer = -1
        self._previous: dict[int, Any] = {}
        self._handled: frozenset[int] = frozenset(HANDLED)
        self._owner = 0
        self._interrupting = False
        self._masks: dict[int, set[int]] = {}

    def install(self) -> None:
        """Open the pipe and take over the :data:`HANDLED` signals."""
        self._close()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._owner = os.getpid()
        # A full pipe is harmless: the numbers in it have not been read yet, and coalesce.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if not self._previous:
            os.register_at_fork(
                before=self._block, after_in_parent=self._unblock, after_in_child=self._forget)
            atexit.register(self._ignore)
        self.take_over(HANDLED)

    def take_over(self, signums: Iterable[int]) -> None:
        """Take over these, too; until a fork, whose child gets them back as they were."""
        for signum in signums:
            previous = signal.signal(signum, self._handle)
            self._previous.setdefault(signum, previous)
        self._handled = self._handled.union(signums)

    def uninstall(self) -> None:
        """Give the signals back to whoever had them before."""
        if self._owner == os.getpid():
            signal.set_wakeup_fd(-1)
            self._restore()
            self._close()

    def fileno(self) -> int:
        """The descriptor that is readable while a signal waits to be read."""
        return self._reader

    def read(self) -> list[int]:
        """Take the signals out of the pipe: each that came, once, in the order of coming."""
        self.arrived = False
        numbers = b''
        try:
            while chunk := os.read(self._reader, 4096):
                numbers += chunk
        except BlockingIOError:
            pass
        # A handler that the program put in the place of ours has dealt with its signal.
        return [n for n in dict.fromkeys(numbers) if n in self._handled and self._is_ours(n)]

    def put_back(self, numbers: list[int]) -> None:
        """Put signals into the pipe again, for somebody else to read."""
        if numbers and self._owner:
            self.arrived = True
            os.write(self._writer, bytes(numbers))

    def wait(self, seconds: float | None) -> bool:
        """Wait until a signal comes, for at most *seconds*; True if one did."""
        return bool(wait_readable((self._reader,), seconds))

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which the caller reads the pipe, so that nothing is delivered."""
        deliver, self.deliver = self.deliver, None
        try:
            yield
        finally:
            self.deliver = deliver
            if deliver is not None:
                # What came while the caller read, and it did not read: nobody else would.
                for signum in self.read():
                    deliver(signum, None)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A context for a blocking call that nothing is lost with: a signal ends it.

        :raises Interrupted: in it, when a signal comes, or waits to be read.
        """
        self._interrupting = True
        try:
            if self.wait(0):
                raise Interrupted
            yield
        finally:
            self._interrupting = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.arrived = True
        if self.urgent is not None:
            self.urgent(signum, frame)
        if self._interrupting:
            self._interrupting = False
            raise Interrupted
        if self.deliver is not None:
            self.read()
            self.deliver(signum, frame)

    def _is_ours(self, signum: int) -> bool:
        return signal.getsignal(signum) == self._handle

    def _block(self) -> None:
        """Before a fork: a signal to the child waits until the child has forgotten our pipe."""
        self._masks[_thread.get_ident()] = signal.pthread_sigmask(
            signal.SIG_BLOCK, self._handled)

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(_thread.get_ident()))

    def _forget(self) -> None:
        """In a forked child: its signals are its own, and must not be written to our pipe."""
        if self._owner:
            signal.set_wakeup_fd(-1)
            self._restore()
            self._close()
            self._handled = frozenset(HANDLED)
            self.urgent = self.deliver = None
        self._unblock()

    def _ignore(self) -> None:
        """At exit: the interpreter would give signals back to the system, whose way is to kill."""
        if self._owner == os.getpid():
            for signum in self._handled:
                if self._is_ours(signum):
                    signal.signal(signum, signal.SIG_IGN)

    def _restore(self) -> None:
        for signum, previous in self._previous.items():
            if self._is_ours(signum):
                signal.signal(signum, signal.SIG_DFL if previous is None else previous)

    def _close(self) -> None:
        if self._owner:
            os.close(self._reader)
            os.close(self._writer)
            self._reader = self._writer = -1
            self._owner = 0


def wait_readable(descriptors: tuple[int, ...], seconds: float | None) -> list[int]:
    """Wait until one of the *descriptors* is readable, for at most *seconds* (None: for ever).

    :returns: those that are readable; empty at the time-out.
    """
    return _wait(descriptors, (), seconds)


def wait_writable(
    descriptors: tuple[int, ...], readable: tuple[int, ...], seconds: float | None
) -> list[int]:
    """Wait until one of the *descriptors* can be written to, or one of the others be read.

    :returns: those that are ready; empty at the time-out.
    """
    return _wait(readable, descriptors, seconds)


def _wait(
    readable: tuple[int, ...], writable: tuple[int, ...], seconds: float | None
) -> list[int]:
    """Wait for any of them.

    select(2) is used while the numbers allow it, because its time-outs are exact to the
    microsecond where those of poll(2) are rounded up to the next millisecond.
    """
    end = None if seconds is None else time.monotonic() + seconds
    for part in _parts(end):
        if max((*readable, *writable), default=0) < FD_SETSIZE:
            inputs, outputs, _ = select.select(readable, writable, (), part)
            ready = [*inputs, *outputs]
        else:
            poll = select.poll()
            for descriptor in readable:
                poll.register(descriptor, select.POLLIN)
            for descriptor in writable:
                poll.register(descriptor, select.POLLOUT)
            ready = [fd for fd, _ in poll.poll(None if part is None else part * 1000)]
        if ready:
            return ready
    return []


def _parts(end: float | None) -> Iterator[float | None]:
    while end is None:
        yield None
    while True:
        left = end - time.monotonic()
        yield min(max(left, 0.0), LONGEST_WAIT)
        if left <= LONGEST_WAIT:
            return


def running_event_loop() -> Any | None:
    """The asyncio event loop that runs in this thread, if asyncio is in use and one does."""
    asyncio = sys.modules.get('asyncio')
    try:
        return asyncio.get_running_loop() if asyncio else None
    except (RuntimeError, AttributeError):  # none runs; asyncio is only just being imported
        return None


def call_back_in(frame: FrameType, call: Callable[[], object]) -> bool:
    """Have *call* called as soon as the main thread is back in *frame*, which it was called from.

    For a signal handler that has interrupted what must not be entered again. The interpreter's
    tracing does it: only this waits for code that is not ours, and knows when it has returned.

    :returns: False where a debugger traces already: then nothing will be called.
    """
    if sys.gettrace() is not None:
        return sys.gettrace() is _trace_nothing

    def back(*_: object) -> None:
        sys.settrace(None)
        frame.f_trace = None
        call()

    frame.f_trace = back
    sys.settrace(_trace_nothing)
    return True


def _trace_nothing(frame: FrameType, event: str, argument: object) -> None:
    """No function that is called meanwhile is traced."""
