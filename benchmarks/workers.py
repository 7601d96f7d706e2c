"""Messages a second of two workers against one, with a handler that sleeps and one that computes.

The broker needs CPU time on the same cores.
"""

from __future__ import annotations

import statistics

from benchmarks.crews import Crews
from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED
from benchmarks.tables import Table

ROUNDS = 3
HANDLERS = {'1 ms sleep': ({'work': 0.001}, 1.95), '200 us CPU': ({'spin': 0.0002}, 1.7)}
"""What a handler does, and how many times as many messages two workers are to handle"""

SECONDS = 4.0


def measure(workshop: Workshop, quick: bool) -> Table:
    """Take turns, and compare the medians."""
    rounds = 1 if quick else ROUNDS
    crews = Crews(workshop)
    table = Table(f'Workers, messages a second; medians of {rounds} rounds',
                  ['1 worker', '2 workers', 'ratio'])
    for handler, (environment, limit) in HANDLERS.items():
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for processes, values in rates.items():
                values.append(_rate(crews, processes, environment))
        one, two = (statistics.median(values) for values in rates.values())
        table.row(handler, one, two, f'{two / one:.2f}x')
        table.bar(f'{handler}: 1 worker over 2, 1/{limit}', one / two, 1 / limit)
    return table


def _rate(crews: Crews, processes: int, environment: dict[str, float]) -> float:
    queue = crews.queue('clihelper')
    messages = int(SECONDS * processes / sum(environment.values()))
    crews.streams.fill(queue, messages, *HUNDRED)
    with crews.run('clihelper', queue, processes, **environment) as crew:
        rate = crew.rate(processes, messages)
    crews.streams.delete(queue)
    return rate
