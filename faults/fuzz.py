"""Random deliveries to a consumer, a good message behind each: what becomes of them, by kind."""

from __future__ import annotations

import os
import random
from collections import Counter

from benchmarks.programs import Workshop
from benchmarks.tables import Table
from tests.fuzzing import DEAD, EMPTY, HANDLED, REJECTED, Fuzz, Outcome

DELIVERIES, QUICK_DELIVERIES = 20_000, 1000
KINDS = ('classic', 'quorum')
"""the types of the queues, each with the same share; that of the second has a ledger, too"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Try random deliveries; FUZZ_SEED in the environment is for those of your own."""
    count = (QUICK_DELIVERIES if quick else DELIVERIES) // len(KINDS)
    seed = int(os.environ.get('FUZZ_SEED') or random.SystemRandom().randrange(10**6))
    outcomes = []
    for number, kind in enumerate(KINDS):
        folder = os.path.join(workshop.directory, f'fuzz-{kind}')
        os.mkdir(folder)
        port = workshop.broker.port
        fuzz = Fuzz(folder, port, f'fuzz-{kind}', seed + number, kind, ledger=number == 1)
        outcomes.append(fuzz.run(count))
        if outcomes[-1].faults:
            print(outcomes[-1])
    return _table(outcomes, count * len(KINDS), seed)


def _table(outcomes: list[Outcome], count: int, seed: int) -> Table:
    rows: dict[str, Counter[str]] = {}
    bare = 0
    for outcome in outcomes:
        for made in outcome.deliveries:
            is_bare = made.number in outcome.through_bare
            bare += is_bare
            for what, kind in zip(('properties', 'body'), made.kinds, strict=True):
                row = rows.setdefault(f'{what}: {kind}', Counter())
                row.update(('all', outcome.ends[made.number]))
                row['bare'] += is_bare
    total = sum(len(outcome.deliveries) for outcome in outcomes)
    table = Table(
        f'{total} random deliveries, {bare} of them not through RabbitMQ but through a broker that'
        f' looks into nothing, FUZZ_SEED={seed}',
        ['all', 'bare', 'handled', 'dead', 'rejected', 'empty'],
    )
    for name, row in sorted(rows.items()):
        table.row(name, *(row[each] for each in ('all', 'bare', HANDLED, DEAD, REJECTED, EMPTY)))
    table.bar('deliveries without a good message handled behind them', count - total, 0)
    table.bar('lost, dead-lettered twice, left unsettled, connections lost',
              sum(len(outcome.faults) for outcome in outcomes), 0)  # fmt: skip
    return table
