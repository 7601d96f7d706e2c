"""Messages a second of two processes whose handler does nothing, beside other frameworks' two."""

from __future__ import annotations

from benchmarks.crews import COMMANDS, Crews
from benchmarks.programs import Workshop
from benchmarks.tables import Table, distribution, interleave, paired_ratio

ROUNDS = 3
PROCESSES = 2
MESSAGES = {'clihelper': 150_000, 'celery': 10_000, 'dramatiq': 10_000, 'FastStream': 20_000}
TIMES = 3.0
"""how many times as many messages as each of the others"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume what is in a queue, in turns."""
    crews = Crews(workshop)

    def rate(name: str) -> float:
        queue = crews.queue(name)
        crews.fill(name, queue, MESSAGES[name])
        with crews.run(name, queue, PROCESSES) as crew:
            result = crew.rate(PROCESSES, MESSAGES[name])
        crews.streams.delete(queue)
        return result

    samples = interleave(list(COMMANDS), 1 if quick else ROUNDS, rate)
    table = distribution(f'{PROCESSES} processes, messages a second', samples, 'clihelper')
    for name in COMMANDS:
        if name != 'clihelper':
            table.bar(f'{name} over clihelper, 1/{TIMES:g}',
                      paired_ratio(samples, name, 'clihelper'), 1 / TIMES)
    return table
