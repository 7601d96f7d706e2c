"""How long a call waits for the broker: until its deadline, or until a moment after a stop."""

from __future__ import annotations

import time

from clihelper.process.signals import wait_readable, wait_writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clihelper.process.signals import Signals

POLL = 0.05
"""seconds between two polls of a transport that has no descriptor"""

LAST_MOMENT = 1.0
"""seconds that a broker has to answer after a stop has been requested: a healthy one needs less"""


class BrokerTimeout(TimeoutError):
    """The broker has not answered in time.

    :ivar bool stopped: whether the time was cut short by a stop.
    """

    def __init__(self, text: str, stopped: bool) -> None:
        super().__init__(text)
        self.stopped = stopped


class BrokerWait:
    """Waits for a broker during a call from a user's hook.

    A stop does not interrupt the call, since work in progress should be finished; but a silent
    broker must not delay the stop for long.

    :param signals: the signal pipe.
    :param is_running: returns whether no stop has been requested.
    """

    def __init__(self, signals: Signals, is_running: Callable[[], bool]) -> None:
        self._signals = signals
        self._is_running = is_running
        self._last: float | None = None
        self._deadline = 0.0

    def wait(self, descriptor: int | None, deadline: float, *, write: bool = False) -> None:
        """Wait until the descriptor is readable, or writable; it may return earlier.

        :param deadline: by the monotonic clock.
        :raises BrokerTimeout: the time is over.
        """
        now = time.monotonic()
        if deadline != self._deadline:
            self._deadline, self._last = deadline, None
        if self._last is None and not self._is_running():
            self._last = now + LAST_MOMENT
        end = deadline if self._last is None else min(deadline, self._last)
        if now >= end:
            stopped = end != deadline
            raise BrokerTimeout(f'no answer{" before the stop" * stopped}', stopped)
        descriptors = () if descriptor is None else (descriptor,)
        pipe: tuple[int, ...] = (self._signals.fileno(),)
        left = end - now
        if self._signals.arrived or self._last is not None:
            # The pipe stays readable until the loop reads it: a further signal would not show.
            pipe, left = (), min(left, LAST_MOMENT)
        if descriptor is None:
            left = min(left, POLL)
        if write:
            wait_writable(descriptors, pipe, left)
        else:
            wait_readable((*descriptors, *pipe), left)
