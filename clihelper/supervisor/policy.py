"""What a supervisor decides, without doing it: delays, limits, and words for an end."""

from __future__ import annotations

import signal

from clihelper.backoff import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEALTHY = 60.0
"""seconds of a worker's life after which its death is no sign of a fault that lasts"""

FIRST_DELAY = 0.1
"""seconds before a worker is started again that ended before it was ready"""

NEVER_READY = 3
"""workers that end in a row before they were ready: then the service ends"""


class RestartBackoff:
    """How long to wait before a worker is started again.

    The first time there is no delay; then it doubles, with jitter, from 0.1 s to 1 s. That is
    little because one worker's delay is work undone, and a start costs but some milliseconds.

    :param uniform: the source of the jitter.
    """

    def __init__(self, uniform: Callable[[float, float], float] | None = None) -> None:
        self._backoff = Backoff(uniform=uniform)
        self._is_first = True

    def next(self, lived: float = 0.0) -> float:
        """The seconds to wait, after a worker that lived for *lived* seconds."""
        if lived >= HEALTHY:
            self._is_first = True
        if self._is_first:
            self._is_first = False
            self._backoff.reset()
            return 0.0
        return self._backoff.next()


class StartFailures:
    """Counts the workers that end in a row without having been ready."""

    def __init__(self) -> None:
        self._count = 0

    def ready(self) -> None:
        """A worker is ready."""
        self._count = 0

    def failed(self) -> bool:
        """One has ended before it was ready; True if these are too many."""
        self._count += 1
        return self._count >= NEVER_READY


def describe(status: int) -> str:
    """How a process ended, in words.

    :param status: as :func:`os.waitstatus_to_exitcode` has it: ``-n`` is for signal n.
    """
    if status >= 0:
        return f'status {status}'
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f'signal {-status}'
    return f'{name} (out of memory?)' if -status == signal.SIGKILL else name


def exit_status(status: int) -> int:
    """The status with which the service ends because a worker ended so; never 0."""
    return 128 - status if status < 0 else status or 1


def counted(number: int, noun: str) -> str:
    """So many of them, in words: ``1 worker``, ``2 workers``."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
