"""Process 1 of a container: it reaps orphans, and passes signals on to the program.

Process 1 becomes the parent of every process whose own parent has died. A program cannot
distinguish such an orphan from a child of its own, whose status some other part of it may be
waiting for. So the program runs in another process, and process 1 waits for all of them.
"""

from __future__ import annotations

import os
import signal

from clihelper.process.signals import HANDLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.process.signals import Signals


def reap() -> Iterator[tuple[int, int]]:
    """Yield the pid of each child that has ended, and its :func:`os.waitstatus_to_exitcode`."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def fork(signals: Signals) -> None:
    """Let a child of this process run the program; this function returns in the child only.

    There the signals of :data:`~clihelper.process.signals.HANDLED` are blocked: the caller
    unblocks them when it can handle them. Process 1 passes on the signals that it receives, and
    ends with the status of the child, or 128 + n if signal n killed the child.
    """
    blocked = (*HANDLED, signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        return
    signals.urgent = None
    signals.take_over((signal.SIGCHLD,))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Whatever is registered for the program's end is left to the child.
    os._exit(_wait(child, signals))


def _wait(child: int, signals: Signals) -> int:
    while True:
        for pid, status in reap():
            if pid == child:
                return 128 - status if status < 0 else status
        signals.wait(None)
        for signum in signals.read():
            if signum != signal.SIGCHLD:
                os.kill(child, signum)
