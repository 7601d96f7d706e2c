"""A million messages for four workers, one of which is killed every 100 ms for a minute."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from benchmarks.programs import Workshop
from benchmarks.tables import Table
from faults.crew import Crew

MESSAGES, SECONDS = 1_000_000, 60.0
QUICK_MESSAGES, QUICK_SECONDS = 50_000, 5.0
WORKERS, PREFETCH = 4, 100
EVERY = 0.1
AHEAD = 5000
STALLED = 60.0
LONGEST_GAP = 2000.0
"""milliseconds without a message handled; consuming goes on when it is less. All four may be
waited with for up to 1 s each, and take their time to start on a machine that does other things"""


class Killing:
    """Publishes, and kills meanwhile.

    :ivar int kills: how many workers were killed.
    :ivar float gap: the longest time, in seconds, without a message handled.
    """

    def __init__(self, crew: Crew, messages: int, seconds: float) -> None:
        self._crew = crew
        self._messages = messages
        self.kills = 0
        self.gap = 0.0
        self._seen = 0
        self._since = time.monotonic()
        self._end = self._since + seconds
        self._due = self._since + EVERY

    def run(self) -> None:
        """Do it, and wait until all are handled."""
        while not self._is_done():
            now = time.monotonic()
            if self._due <= now < self._end:
                self._kill()
                self._due += EVERY
            if self._look(now) > self._crew.publisher.next - AHEAD:
                self._crew.publisher.publish(self._messages)
            else:
                time.sleep(0.005)

    def _kill(self) -> None:
        workers = self._crew.workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(workers), signal.SIGKILL)
                self.kills += 1

    def _look(self, now: float) -> int:
        """How many runs have been noted; and how long none was."""
        noted = self._crew.noted() // 2
        if noted != self._seen:
            if self._seen:
                self.gap = max(self.gap, now - self._since)
            self._seen, self._since = noted, now
        return noted

    def _is_done(self) -> bool:
        if time.monotonic() - self._since > STALLED:
            return True
        if self._crew.publisher.next < self._messages or self._seen < self._messages:
            return False
        return len(self._crew.runs(ended=True)) >= self._messages


def measure(workshop: Workshop, quick: bool) -> Table:
    """Do it once."""
    messages, seconds = (QUICK_MESSAGES, QUICK_SECONDS) if quick else (MESSAGES, SECONDS)
    began = time.monotonic()
    with Crew(workshop, WORKERS, 'killed', f'prefetch: {PREFETCH}') as crew:
        crew.publish(1)
        while not crew.noted():  # a service that was never ready ends if its workers do
            time.sleep(0.01)
        killing = Killing(crew, messages, seconds)
        killing.run()
        status = crew.program.terminate()
        ended, queued_dead = crew.runs(ended=True), crew.left()
    table = Table(f'{messages} messages, {WORKERS} workers, one killed each {EVERY * 1000:g} ms '
                  f'for {seconds:g} s', ['count'])
    table.row('kills', killing.kills)
    table.row('handled', sum(ended.values()))
    table.row('seconds', time.monotonic() - began)
    table.row('seconds to stop', status)
    table.bar('lost', messages - len(ended), 0)
    table.bar('duplicates', sum(ended.values()) - len(ended), killing.kills * PREFETCH)
    table.bar('left in the queue', queued_dead[0], 0)
    table.bar('dead letters', queued_dead[1], 0)
    table.bar('ms without a message handled, at most', killing.gap * 1000, LONGEST_GAP)
    return table
