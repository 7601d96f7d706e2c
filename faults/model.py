"""Random outcomes of messages among random faults, and what has become of each message.

The plan of each message is a function of its number and of a seed; see ``tests/model``.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter

from benchmarks.programs import Workshop
from benchmarks.tables import Table
from tests.broker import Broker
from tests.model.faults import KINDS
from tests.model.trial import ADVANCED_CONFIG, Trial
from tests.model.verdict import ACCUSED, LOST, TWICE, UNDONE, WRONG, Verdict

SEEDS, MESSAGES = 10, 10_000
QUICK_SEEDS, QUICK_MESSAGES = 1, 1000

APART = 30
"""messages between two faults"""

FEWEST = 200
"""faults under 10,000 messages, with each kind among them"""

MEANT = {
    'lost': 'messages lost', 'twice': 'dead-lettered twice', 'accused': 'accused of a crash',
    'others': 'dead for no reason, dropped, handled or run too often',
    'left': 'left in the queues',
}
"""Columns with a bar, in words"""

COLUMNS = ('lost', 'twice', 'accused', 'others', 'left', 'again', 'allowed', 'undone', 'dead',
           'runs', 'faults', 's')


def measure(workshop: Workshop, quick: bool) -> Table:
    """Try each of some random seeds.

    MODEL_SEED in the environment has others, as ``1 2 3``; with MODEL_KIND the programs handle
    several messages at a time, in ``threads`` (8) or ``coroutines`` (100).
    """
    seeds, messages = (QUICK_SEEDS, QUICK_MESSAGES) if quick else (SEEDS, MESSAGES)
    chosen = ([int(seed) for seed in os.environ.get('MODEL_SEED', '').split()]
              or random.SystemRandom().sample(range(10**6), seeds))
    table = Table(f'{len(chosen)} seeds of {messages} messages, random outcomes and faults',
                  COLUMNS)
    total: Counter[str] = Counter()
    for seed in chosen:
        figures = _try(workshop, seed, messages)
        table.row(f'seed {seed}', *(figures[column] for column in COLUMNS))
        print(f'seed {seed}: ' + ', '.join(f'{column} {figures[column]}' for column in COLUMNS),
              flush=True)
        total += figures
    table.row('all', *(total[column] for column in COLUMNS))
    for column in ('lost', 'twice', 'accused', 'others', 'left'):
        table.bar(MEANT[column], total[column], 0)
    table.bar('duplicates beyond those allowed', total['beyond'], 0)
    table.bar('programs that ended by themselves', total['ends'], 0)
    if not quick:
        table.bar(f'seeds with fewer than {FEWEST} faults, or not of each kind', total['mild'], 0)
    return table


def _try(workshop: Workshop, seed: int, messages: int) -> Counter[str]:
    """The figures of one seed; what is wrong is printed, with the history of a message."""
    began = time.monotonic()
    folder = os.path.join(workshop.directory, f'model-{seed}')
    os.mkdir(folder)
    with Broker(advanced_config=ADVANCED_CONFIG) as broker:
        trial = Trial(folder, broker, seed, messages, apart=APART)
        trial.run()
    verdict = Verdict(trial)
    shutil.rmtree(folder)
    if not verdict.is_right or verdict.queued:
        print(f'\n{verdict}', flush=True)
    counts, faults = verdict.counts, trial.faults.counts
    return Counter({
        'lost': counts[LOST], 'twice': counts[TWICE], 'accused': counts[ACCUSED],
        'others': sum(counts[kind] for kind in WRONG if kind not in (LOST, TWICE, ACCUSED)),
        'left': len(verdict.queued), 'undone': counts[UNDONE], 'dead': verdict.dead,
        'again': verdict.duplicates, 'allowed': verdict.allowed,
        'beyond': max(verdict.duplicates - verdict.allowed, 0),
        'runs': sum(map(len, verdict.runs.values())), 'ends': len(verdict.ends),
        'faults': faults.total(), 'mild': faults.total() < FEWEST or len(faults) < len(KINDS),
        's': round(time.monotonic() - began),
    })
