"""One of four workers is killed while ``_setup`` fails for 30 s, and 2,000 messages/s flow."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from benchmarks.programs import PATIENCE, Workshop
from benchmarks.tables import Table
from faults.crew import Crew

RATE, BATCH = 2000, 20
WORKERS = 4
SECONDS, QUICK_SECONDS = 30.0, 5.0
LONGEST_RETURN = 5.0
LONGEST_GAP = 250.0


def measure(workshop: Workshop, quick: bool) -> Table:
    """Do it once."""
    outage = QUICK_SECONDS if quick else SECONDS
    closed = os.path.join(workshop.directory, 'closed')
    with Crew(workshop, WORKERS, 'degraded', closed=closed) as crew:
        flow = Flow(crew)
        flow.run_until(lambda: crew.busy() == WORKERS)
        with open(closed, 'w'):
            pass
        victim = crew.workers()[0]
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        flow.run_until(lambda: time.monotonic() >= began + outage)
        others = crew.busy()
        os.unlink(closed)
        recovered = time.monotonic()
        flow.run_until(lambda: crew.busy() == WORKERS)
        returned = time.monotonic() - recovered
        end = time.monotonic() + 30
        while len(crew.runs(ended=True)) < flow.published and time.monotonic() < end:
            time.sleep(0.05)
        crew.program.terminate()
        notes, (queued, dead) = crew.notes(), crew.left()
    times = sorted(when for _, ended, when in notes if ended)
    handled = {number for number, ended, _ in notes if ended}
    during = [when for when in times if began <= when <= recovered]
    gap = max(after - before for before, after in zip(during, during[1:], strict=False))
    table = Table(f'one of {WORKERS} workers killed while _setup fails for {outage:g} s,'
                  f' {RATE} messages/s', ['count'])
    table.row('handled', len(times))
    table.row('of them in the outage', len(during))
    table.row('duplicates', len(times) - len(handled))
    table.bar('workers lost besides the one', WORKERS - 1 - others, 0)
    table.bar('lost', flow.published - len(handled), 0)
    table.bar('left in the queue', queued, 0)
    table.bar('dead letters', dead, 0)
    table.bar('ms between two messages handled in the outage, at most', gap * 1000, LONGEST_GAP)
    table.bar('seconds until all work again', returned, LONGEST_RETURN)
    return table


class Flow:
    """Publishes at an even rate.

    :ivar int published: how many are published and confirmed.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._due = time.monotonic()
        self.published = 0

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """Publish until then.

        :raises RuntimeError: it takes too long.
        """
        end = time.monotonic() + SECONDS + PATIENCE
        while not is_over():
            if time.monotonic() > end:
                raise RuntimeError(f'{self._crew.busy()} of {WORKERS} workers handle messages')
            time.sleep(max(self._due - time.monotonic(), 0))
            self.published += BATCH
            self._crew.publish(self.published)
            self._due = max(self._due + BATCH / RATE, time.monotonic() - 1)
