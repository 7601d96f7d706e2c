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
from tests.model.trial import ADVANCED_CONFIG, Trial
from tests.model.verdict import UNDONE, WRONG, Verdict

SEEDS, MESSAGES = 10, 10_000
QUICK_SEEDS, QUICK_MESSAGES = 1, 1000


def measure(workshop: Workshop, quick: bool) -> Table:
    """Try each of some random seeds; MODEL_SEED in the environment is for one of your own."""
    seeds, messages = (QUICK_SEEDS, QUICK_MESSAGES) if quick else (SEEDS, MESSAGES)
    own = os.environ.get('MODEL_SEED')
    chosen = [int(own)] if own else random.SystemRandom().sample(range(10**6), seeds)
    table = Table(f'{len(chosen)} seeds of {messages} messages, random outcomes and faults',
                  ['faults', 'runs', 'dead', 'twice', 'allowed', 'undone', 's'])
    counts: Counter[str] = Counter()
    ends = left = beyond = 0
    for seed in chosen:
        began = time.monotonic()
        verdict, faults = _try(workshop, seed, messages)
        table.row(f'seed {seed}', faults, sum(map(len, verdict.runs.values())), verdict.dead,
                  verdict.duplicates, verdict.allowed, verdict.counts[UNDONE],
                  time.monotonic() - began)
        counts += verdict.counts
        ends, left = ends + len(verdict.ends), left + len(verdict.queued)
        beyond += max(verdict.duplicates - verdict.allowed, 0)
    for kind in WRONG:
        table.bar(kind, counts[kind], 0)
    table.bar('duplicates beyond those allowed', beyond, 0)
    table.bar('programs that ended by themselves', ends, 0)
    table.bar('left in the queues', left, 0)
    return table


def _try(workshop: Workshop, seed: int, messages: int) -> tuple[Verdict, int]:
    """One seed; what is wrong is printed at once, with the history of the first such message."""
    folder = os.path.join(workshop.directory, f'model-{seed}')
    os.mkdir(folder)
    with Broker(advanced_config=ADVANCED_CONFIG) as broker:
        trial = Trial(folder, broker, seed, messages)
        trial.run()
    verdict = Verdict(trial)
    shutil.rmtree(folder)
    if not verdict.is_right:
        print(f'\n{verdict}', flush=True)
    return verdict, len(trial.faults.done)
