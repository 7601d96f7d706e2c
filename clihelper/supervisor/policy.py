"""What a supervisor decides, without doing it: delays, limits, and words for an end."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEALTHY = 60.0
"""seconds of a worker's life after which its death is no sign of a fault that lasts"""

NEVER_READY = 3
"""workers that end in a row before they were ready: then the service ends"""

JITTER = 0.2
"""by which part of itself a limit may be lower, so that workers are not replaced all at once"""


class Backoff:
    """How long to wait before a worker is started again.

    The first time there is no delay; then it doubles, with jitter, up to a cap. The cap is low
    because one worker's delay is work undone, and a start costs but some milliseconds.

    :param first: seconds of the first delay that is one.
    :param cap: seconds that no delay exceeds.
    :param uniform: the source of the jitter; by default :func:`random.uniform`.
    """

    FIRST, CAP = 0.1, 1.0

    def __init__(
        self,
        first: float = FIRST,
        cap: float = CAP,
        uniform: Callable[[float, float], float] | None = None,
    ) -> None:
        self._first = first
        self._cap = cap
        self._uniform = uniform or _uniform
        self._failures = 0

    def next(self, lived: float = 0.0) -> float:
        """The seconds to wait, after a worker that lived for *lived* seconds."""
        if lived >= HEALTHY:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        delay = min(self._first * 2.0 ** min(self._failures - 2, 30), self._cap)
        return self._uniform(delay / 2, delay)


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


def jittered(
    limit: float | None, uniform: Callable[[float, float], float] | None = None
) -> float | None:
    """*limit*, or up to :data:`JITTER` of it less; None stays None."""
    if limit is None:
        return None
    return (uniform or _uniform)(limit * (1 - JITTER), limit)


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


def _uniform(low: float, high: float) -> float:
    from random import uniform  # when something has failed, or a limit is set

    return uniform(low, high)
