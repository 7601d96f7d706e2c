"""The interval loop: it calls ``_process`` at once, and then every wake interval."""

from __future__ import annotations

import logging
import time

from clihelper.loops import Loop, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper')


class Grid:
    """Deadlines at fixed intervals on the monotonic clock, so that nothing drifts.

    :param start: the time of the first deadline, in seconds of ``time.monotonic``.
    """

    def __init__(self, start: float) -> None:
        self.due = start

    def advance(self, now: float, interval: float) -> int:
        """Move to the first deadline after *now*.

        :param interval: seconds from one deadline to the next.
        :returns: how many deadlines were missed.
        """
        missed = max(int((now - self.due) // interval), 0)
        self.due += (missed + 1) * interval
        return missed

    def restart(self, now: float, delay: float) -> None:
        """Set the next deadline to *delay* seconds after *now*."""
        self.due = now + delay


class Ticks:
    """When ``_process`` is due: on a grid, or after a delay that the subclass chooses each time.

    :param host: the life cycle, which knows the interval.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._grid = Grid(time.monotonic())
        self._overran = False
        self._began = 0.0

    @property
    def due(self) -> float:
        """When ``_process`` is to be called next, in seconds of ``time.monotonic``."""
        return self._grid.due

    def resume(self) -> None:
        """Return to the grid after a pause, without a burst of the calls that were missed."""
        now = time.monotonic()
        if self.due < now:
            self._grid.advance(now, self._host.wake_interval)

    def begin(self) -> None:
        """Note that ``_process`` is about to be called."""
        self._began = time.monotonic()

    def done(self) -> None:
        """Decide when ``_process`` is due again, now that it has ended."""
        now = time.monotonic()
        self._host.statistics.ticks.run(now - self._began)
        interval = self._host.wake_interval
        if self._host.decides_each_delay:
            self._grid.restart(now, interval)
            return
        missed = self._grid.advance(now, interval)
        if missed and not self._overran:
            self._overran = True
            LOGGER.warning(
                '_process overran its interval of %g s; calls skipped: %d', interval, missed
            )


class IntervalLoop(Loop):
    """Calls ``_process``, then sleeps until the next call is due or a signal arrives."""

    def run(self) -> None:
        host = self._host
        ticks = Ticks(host)
        host.ready()
        while self.goes_on():
            host.active()
            ticks.begin()
            host.process()
            ticks.done()
            self._sleep_until(ticks)

    def _sleep_until(self, ticks: Ticks) -> None:
        host = self._host
        host.serve_signals()
        host.sleeping()
        wait_until(host, self.goes_on, ticks.due)
