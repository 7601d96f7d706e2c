"""The decisions of a supervisor: delays, limits, and descriptions of how a process ended."""

from __future__ import annotations

import signal

from clihelper.backoff import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEALTHY = 60.0
"""seconds after which a worker's death no longer indicates a permanent fault"""

FIRST_DELAY = 0.1
"""seconds before a worker that ended before it was ready is started again"""

NEVER_READY = 3
"""workers that end in a row before they were ready, after which the service ends"""


class RestartBackoff:
    """How long to wait before a worker is started again.

    The first time there is no delay; then it doubles, with jitter, from 0.1 s to 1 s. These
    delays are short because a missing worker leaves work undone, and because a start takes only
    a few milliseconds.

    :param uniform: the source of the jitter.
    """

    def __init__(self, uniform: Callable[[float, float], float] | None = None) -> None:
        self._backoff = Backoff(uniform=uniform)
        self._is_first = True

    def next(self, lived: float = 0.0) -> float:
        """Return the seconds to wait, after a worker that lived for *lived* seconds."""
        if lived >= HEALTHY:
            self._is_first = True
        if self._is_first:
            self._is_first = False
            self._backoff.reset()
            return 0.0
        return self._backoff.next()


class StartFailures:
    """Counts the workers in a row that end before they were ready."""

    def __init__(self) -> None:
        self._count = 0

    def ready(self) -> None:
        """Reset the count: a worker is ready."""
        self._count = 0

    def failed(self) -> bool:
        """Count a worker that ended before it was ready; return whether there are too many."""
        self._count += 1
        return self._count >= NEVER_READY


def describe(status: int) -> str:
    """Describe how a process ended.

    :param status: as from :func:`os.waitstatus_to_exitcode`: ``-n`` stands for signal n.
    """
    if status >= 0:
        return f'status {status}'
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f'signal {-status}'
    return f'{name} (out of memory?)' if -status == signal.SIGKILL else name


def exit_status(status: int) -> int:
    """Return the service's exit status for the *status* of the worker that ends it; never 0."""
    return 128 - status if status < 0 else status or 1
