"""Process 1 of a container: it reaps orphans, and passes signals on to the program.

Who is process 1 becomes the parent of every process whose own parent has died. A program cannot
tell such a one from a child of its own, whose status somebody in it may be waiting for; so the
program is another process, and this one waits for them all.
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
    """Each child that has ended, and how: as :func:`os.waitstatus_to_exitcode` has it."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def fork(signals: Signals) -> None:
    """Leave the program to a child of this process, in which this returns.

    Its signals have their default effects there. Process 1 passes on those that it gets, and ends
    with the status of the child, or 128 + n if signal n killed it.
    """
    blocked = (*HANDLED, signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    child = os.fork()
    if child:
        signals.urgent = None
        signals.take_over((signal.SIGCHLD,))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if child:
        # What is registered to be done at the program's end is the child's to do.
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
