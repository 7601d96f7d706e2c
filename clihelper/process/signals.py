"""The signals of a process, as numbers read from a pipe.

The interpreter's C handler writes each signal's number to the pipe (``signal.set_wakeup_fd``). A
loop waits on the pipe together with its own work, and reads the numbers between two pieces of
work. So a signal never interrupts anything, and no work is done in a handler. There are two
exceptions, both decided by the owner of the loop and not here: :attr:`Signals.urgent` sees each
signal at once and may raise, and :attr:`Signals.deliver` is called while nobody reads the pipe.

The program may lend the wake-up descriptor to other code, as asyncio's ``add_signal_handler``
does; then the handler writes the number.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal takes ten times as long
import _thread
import atexit
import errno
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
"""The signals that a controller handles."""

TIMERS = (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
"""the signals of setitimer(2)"""

FD_SETSIZE = 1024
"""select(2) does not accept descriptors of this number or above."""

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)

TERMINAL = '/dev/tty'
"""the controlling terminal of a process, if it has one: tty(4)"""

SETTLING = 0.05
"""seconds within which a terminal is gone after a HUP: when the leader of a session ends, the
kernel sends the signal just before it takes the terminal away"""

LONGEST_WAIT = 86400.0
"""seconds; longer timeouts overflow in some system calls, so they are split into parts."""


class Interrupted(BaseException):
    """A signal arrived during :meth:`Signals.interrupting`; its number is in the pipe."""


class Signals:
    """The signal pipe. Each process has one; call :meth:`install` again after a fork.

    :ivar urgent: called for each signal at once, in the main thread, with the number and the
        interrupted frame. An exception that it raises interrupts the main thread.
    :ivar bool arrived: whether a signal has arrived since the pipe was read, for loops that are
        too busy to look into the pipe on each iteration.
    :ivar deliver: called like :attr:`urgent` and after it, while nobody reads the pipe; otherwise
        None.
    :ivar bool hung_up: whether a HUP came because the terminal is gone, and so became a TERM.
    """

    def __init__(self) -> None:
        self.urgent: Callable[[int, FrameType | None], None] | None = None
        self.deliver: Callable[[int, FrameType | None], None] | None = None
        self.arrived = self.hung_up = False
        self._reader = self._writer = -1
        self._previous: dict[int, Any] = {}
        self._handled: frozenset[int] = frozenset(HANDLED)
        self._owner = 0
        self._interrupting = False
        self._masks: dict[int, set[int]] = {}
        self._has_terminal = False

    def install(self) -> None:
        """Open the pipe and take over the :data:`HANDLED` signals."""
        self._close()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._owner = os.getpid()
        # A full pipe is harmless: the numbers in it are still unread, and repeated ones coalesce.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if not self._previous:
            os.register_at_fork(
                before=self._block, after_in_parent=self._unblock, after_in_child=self._forget)
            atexit.register(self._ignore)
        self.take_over(HANDLED)

    def take_over(self, signums: Iterable[int]) -> None:
        """Take over these signals as well; in a forked child they are restored."""
        for signum in signums:
            previous = signal.signal(signum, self._handle)
            self._previous.setdefault(signum, previous)
        self._handled = self._handled.union(signums)

    def is_reset(self, signum: int) -> bool:
        """Return whether other code has reset the signal to its default."""
        return _signal.getsignal(signum) in _DEFAULTS

    def retake(self) -> None:
        """Take over again what other code has reset: signals, and the wake-up descriptor.

        asyncio does so with a signal for which ``add_signal_handler`` was called, when its loop is
        closed. What the program has set to something else is left alone.
        """
        self._claim()
        for signum in self._handled:
            if self.is_reset(signum):
                signal.signal(signum, self._handle)

    def follow_terminal(self) -> None:
        """Treat a HUP as a TERM from now on if it comes because the terminal is gone.

        This has no effect if there is no terminal, or if HUP was ignored before, as nohup(1)
        arranges it.
        """
        ignored = self._previous.get(signal.SIGHUP) == signal.SIG_IGN
        self._has_terminal = not ignored and _has_terminal()

    def describe(self, signum: int) -> str:
        """Return the name of a signal, as it was sent."""
        if self.hung_up and signum == signal.SIGTERM:
            return 'SIGHUP, because the terminal is gone'
        return signal.Signals(signum).name

    def uninstall(self) -> None:
        """Restore the previous handlers of the signals."""
        if self._owner == os.getpid():
            signal.set_wakeup_fd(-1)
            self._restore()
            self._close()

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are unread signals."""
        return self._reader

    def read(self) -> list[int]:
        """Take the signals out of the pipe: each one once, in the order of arrival."""
        self.arrived = False
        numbers = b''
        try:
            while chunk := os.read(self._reader, 4096):
                numbers += chunk
        except BlockingIOError:
            pass
        # A signal whose handler the program has replaced was handled there.
        ours = [n for n in dict.fromkeys(numbers) if n in self._handled and self._is_ours(n)]
        if self._has_terminal and signal.SIGHUP in ours:
            if not self._is_hung_up():
                time.sleep(SETTLING)
            ours = list(dict.fromkeys(map(self._in_effect, ours)))
        return ours

    def put_back(self, numbers: list[int]) -> None:
        """Put signals back into the pipe, for other code to read."""
        if numbers and self._owner:
            self.arrived = True
            os.write(self._writer, bytes(numbers))

    def wait(self, seconds: float | None) -> bool:
        """Wait until a signal arrives, for at most *seconds*; return whether one did."""
        return bool(wait_readable((self._reader,), seconds))

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which the caller reads the pipe, so that :attr:`deliver` is not called."""
        deliver, self.deliver = self.deliver, None
        try:
            yield
        finally:
            self.deliver = deliver
            if deliver is not None:
                # Signals that the caller did not read before it left: nobody else would read them.
                for signum in self.read():
                    deliver(signum, None)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A context for a blocking call that a signal may safely end.

        :raises Interrupted: in the context, if a signal arrives or is unread.
        """
        self._interrupting = True
        try:
            if self.wait(0):
                raise Interrupted
            yield
        finally:
            self._interrupting = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._note(signum)
        signum = self._in_effect(signum)
        self.arrived = True
        if self.urgent is not None:
            self.urgent(signum, frame)
        if self._interrupting:
            self._interrupting = False
            raise Interrupted
        if self.deliver is not None:
            self.read()
            self.deliver(signum, frame)

    def _note(self, signum: int) -> None:
        """Write the number into the pipe, unless the interpreter has done so."""
        if self._claim():
            return
        try:
            os.write(self._writer, bytes((signum,)))
        except BlockingIOError:  # it is full of numbers that are still unread
            pass

    def _claim(self) -> bool:
        """Have signals written to the pipe, unless other code has them written elsewhere.

        :returns: whether they were written to the pipe before.
        """
        other = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if other not in (-1, self._writer):
            try:
                signal.set_wakeup_fd(other)
            except (OSError, ValueError):  # it was closed
                pass
        return other == self._writer

    def _in_effect(self, signum: int) -> int:
        """Return the signal as which this one is handled."""
        if signum == signal.SIGHUP and self._is_hung_up():
            self.hung_up = True
            return signal.SIGTERM
        return signum

    def _is_hung_up(self) -> bool:
        return self._has_terminal and not _has_terminal()

    def _is_ours(self, signum: int) -> bool:
        return signal.getsignal(signum) == self._handle

    def _block(self) -> None:
        """Block signals before a fork, until the child has closed its copy of the pipe."""
        self._masks[_thread.get_ident()] = signal.pthread_sigmask(
            signal.SIG_BLOCK, self._handled)

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(_thread.get_ident()))

    def _forget(self) -> None:
        """Detach a forked child from the pipe: its signals must not be written to the parent's."""
        if self._owner:
            signal.set_wakeup_fd(-1)
            self._restore()
            self._close()
            self._handled = frozenset(HANDLED)
            self.urgent = self.deliver = None
        self._unblock()

    def _ignore(self) -> None:
        """Ignore signals at exit, when the interpreter restores defaults, which would kill."""
        if self._owner == os.getpid():
            for signum in self._handled:
                if self._is_ours(signum):
                    signal.signal(signum, signal.SIG_IGN)
            for signum in TIMERS:  # which the program may have left running
                if callable(_signal.getsignal(signum)):
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


def _has_terminal() -> bool:
    """Return whether the process has a controlling terminal."""
    try:
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.EIO)
    return True


def wait_readable(descriptors: tuple[int, ...], seconds: float | None) -> list[int]:
    """Wait until one of the *descriptors* is readable, for at most *seconds* (None: for ever).

    :returns: those that are readable; empty on a timeout.
    """
    return _wait(descriptors, (), seconds)


def wait_writable(
    descriptors: tuple[int, ...], readable: tuple[int, ...], seconds: float | None
) -> list[int]:
    """Wait until one of the *descriptors* is writable, or one of the *readable* ones readable.

    :returns: those that are ready; empty on a timeout.
    """
    return _wait(readable, descriptors, seconds)


def _wait(
    readable: tuple[int, ...], writable: tuple[int, ...], seconds: float | None
) -> list[int]:
    """Wait until any of them is ready.

    select(2) is used if the numbers allow it, because its timeouts are exact to the microsecond
    while those of poll(2) are rounded up to the next millisecond.
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
    """Return the asyncio event loop running in this thread, or None."""
    asyncio = sys.modules.get('asyncio')
    try:
        return asyncio.get_running_loop() if asyncio else None
    except (RuntimeError, AttributeError):  # no loop is running, or asyncio is just being imported
        return None


def call_back_in(frame: FrameType, call: Callable[[], object]) -> bool:
    """Have *call* called as soon as the main thread returns to *frame*, one of its callers.

    This is for a signal handler that has interrupted code which is not reentrant. It uses the
    interpreter's tracing, the only way to know when code outside clihelper has returned.

    :returns: False if a debugger is tracing already; then *call* will not be called.
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
    """Trace none of the functions that are called until then."""
