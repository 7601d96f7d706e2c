"""A message that ends its worker by a segmentation fault, among a thousand good ones."""

from __future__ import annotations

import time

from benchmarks.programs import PATIENCE, Workshop
from benchmarks.tables import Table
from faults.crew import Crew

GOOD, FATAL = 1000, 500
ATTEMPTS = 5
WORKERS = 4


def measure(workshop: Workshop, quick: bool) -> Table:
    """Wait until it is a dead letter, and all others are handled."""
    more = f'retry: {{attempts: {ATTEMPTS}}}'
    with Crew(workshop, WORKERS, 'crashing', more, fatal=FATAL) as crew:
        began = time.monotonic()
        crew.publish(GOOD + 1)
        while len(crew.runs(ended=True)) < GOOD or not crew.left()[1]:
            if time.monotonic() > began + PATIENCE:
                break
            time.sleep(0.05)
        seconds = time.monotonic() - began
        crew.program.terminate()
        begun, ended, (queued, dead) = crew.runs(False), crew.runs(True), crew.left()
    table = Table(f'One message of {GOOD + 1} ends its worker, {WORKERS} workers, '
                  f'{ATTEMPTS} attempts', ['count'])
    table.row('seconds', seconds)
    table.row('runs of the fatal one', begun[FATAL])
    table.row('duplicates', sum(ended.values()) - len(ended))
    table.bar('runs of the fatal one, off by', abs(begun[FATAL] - ATTEMPTS), 0)
    table.bar('good ones not handled', GOOD - len(ended), 0)
    table.bar('dead letters besides it', abs(dead - 1), 0)
    table.bar('left in the queue', queued, 0)
    return table
