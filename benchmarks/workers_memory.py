"""Memory of idle workers: the proportional set of all processes together, see proc(5)."""

from __future__ import annotations

import statistics
import time

from benchmarks.crews import Crews
from benchmarks.programs import Workshop
from benchmarks.tables import Table

ROUNDS = 3
WORKERS = 4
OF_CELERY, EACH_MORE = 0.55, 0.4
SETTLED = 3.0
"""seconds after all processes have handled something, or are there"""

RUNS = {'clihelper, 1': ('clihelper', 1), 'clihelper, 4': ('clihelper', WORKERS),
        'celery, 4': ('celery', WORKERS)}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Have each process handle some messages, and look when they are done."""
    rounds = 1 if quick else ROUNDS
    crews = Crews(workshop)
    samples: dict[str, list[float]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name, (program, processes) in RUNS.items():
            samples[name].append(_memory(crews, program, processes))
    table = Table(f'Idle workers, PSS of all processes, MiB; medians of {rounds} rounds',
                  ['PSS', 'min', 'max'])
    medians = {name: statistics.median(values) for name, values in samples.items()}
    for name, values in samples.items():
        table.row(name, medians[name], min(values), max(values))
    one, four, celery = medians.values()
    table.bar(f'4 workers, of celery prefork: {OF_CELERY}', four / celery, OF_CELERY)
    table.bar('each worker more, of one worker', (four - one) / (WORKERS - 1) / one, EACH_MORE)
    return table


def _memory(crews: Crews, name: str, processes: int) -> float:
    queue = crews.queue(name)
    crews.fill(name, queue, 2000)
    with crews.run(name, queue, processes, work=0.002) as crew:
        crew._wait(lambda counts: sum(counts) >= 2000 and len(counts) >= processes)
        time.sleep(SETTLED)
        total = sum(map(_proportional, crew.processes()))
    crews.streams.delete(queue)
    return total


def _proportional(pid: int) -> float:
    with open(f'/proc/{pid}/smaps_rollup') as file:
        return sum(int(line.split()[1]) for line in file if line.startswith('Pss:')) / 1024
