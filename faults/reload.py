"""HUP while 5,000 messages a second flow: the workers are replaced one after the other."""

from __future__ import annotations

import os
import signal
import time

from benchmarks.programs import Workshop
from benchmarks.tables import Table
from faults.crew import Crew

RATE, BATCH = 5000, 50
WORKERS = 2
HUPS, QUICK_HUPS = 10, 3
BETWEEN = 1.0
LONGEST_GAP = 250.0


def measure(workshop: Workshop, quick: bool) -> Table:
    """Publish at that rate, and send a HUP every second."""
    hups = QUICK_HUPS if quick else HUPS
    with Crew(workshop, WORKERS, 'reloaded') as crew:
        crew.publish(1)
        while not crew.noted():
            time.sleep(0.01)
        began = time.monotonic()
        published, sent, pause = 1, 0, 0.0
        while sent < hups or time.monotonic() < began + BETWEEN * (hups + 1):
            due = began + (published - 1) / RATE
            time.sleep(max(due - time.monotonic(), 0))
            pause = max(pause, time.monotonic() - due)
            published += BATCH
            crew.publish(published)
            if sent < hups and time.monotonic() >= began + BETWEEN * (sent + 1):
                os.kill(crew.program.pid, signal.SIGHUP)
                sent += 1
        while crew.noted() < 2 * published and time.monotonic() < began + BETWEEN * hups + 30:
            time.sleep(0.05)
        crew.program.terminate()
        notes = crew.notes()
        queued, dead = crew.left()
    times = sorted(when for _, ended, when in notes if ended)
    gap = max(after - before for before, after in zip(times[1:], times[2:], strict=False))
    distinct = len({number for number, ended, _ in notes if ended})
    table = Table(f'{hups} HUPs to {WORKERS} workers while {RATE} messages/s flow', ['count'])
    table.row('handled', len(times))
    table.row('duplicates', len(times) - distinct)
    table.row('publisher late, ms', pause * 1000)
    table.bar('lost', published - distinct, 0)
    table.bar('left in the queue', queued, 0)
    table.bar('dead letters', dead, 0)
    table.bar('ms between two messages handled, at most', gap * 1000, LONGEST_GAP)
    return table
