"""The decisions of a supervisor: delays, limits, and descriptions of how a process ended."""

from __future__ import annotations

import signal

from clihelper.backoff import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEALTHY = 60.0
"""seconds after which a worker's death no longer indicates a permanent fault"""

LONGEST_START_DELAY = 3.0
"""seconds at most before a worker that did not become ready is started again"""

NEVER_READY = 3
"""workers that do not become ready, one after the other, after which the service may end"""


class RestartBackoff:
    """How long to wait before a worker is started again.

    The first time there is no delay; then it doubles, with jitter, from 0.1 s to 1 s, or to
    :data:`LONGEST_START_DELAY` for a worker that did not become ready. These delays are short
    because a missing worker leaves work undone, and because a start takes only a few
    milliseconds.

    :param uniform: the source of the jitter.
    """

    def __init__(self, uniform: Callable[[float, float], float] | None = None) -> None:
        self._backoff = Backoff(uniform=uniform)
        self._is_first = True

    def next(self, lived: float = 0.0, *, was_ready: bool = True) -> float:
        """Return the seconds to wait, after a worker that lived for *lived* seconds."""
        if not was_ready:
            self._is_first = False
            return self._backoff.next(LONGEST_START_DELAY)
        if lived >= HEALTHY:
            self._is_first = True
        if self._is_first:
            self._is_first = False
            self._backoff.reset()
            return 0.0
        return self._backoff.next()


class StartFailures:
    """Which workers cannot be started, and how many starts in a row have failed.

    :ivar dict reasons: why the start of a worker failed, by its number; it is tried again.
    """

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}
        self._count = 0

    def ready(self, number: int) -> bool:
        """Note that a worker is ready; return whether its start had failed before."""
        self._count = 0
        return self.reasons.pop(number, None) is not None

    def failed(self, number: int, why: str) -> bool:
        """Note that a worker did not become ready; return whether there are too many."""
        self.reasons[number] = why
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
