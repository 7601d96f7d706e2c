"""Messages a second, and CPU time a message, in batches of 500 whose handler does nothing.

What is saved is the call of the handler and the settling of each message. What remains is to take
in a message and to decode its body.
"""

from __future__ import annotations

import statistics

from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 7
SIZE = 500
PREFETCH = 4 * SIZE
"""of all three: with two batches the broker waits for each acknowledgement"""
COUNTS = {'clihelper batches': 100_000, 'clihelper': 100_000, 'kombu batches': 20_000}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume 100-byte bodies in batches, one at a time, and with kombu in batches by hand."""
    streams = Streams(workshop)
    cpu: Samples = {name: [] for name in COUNTS}

    def rate(name: str) -> float:
        count, queue = COUNTS[name], streams.queue()
        streams.fill(queue, count + 2 * PREFETCH, *HUNDRED)
        more = f'  batch: {{size: {SIZE}}}\n' if name == 'clihelper batches' else ''
        with streams.run(name, queue, more=more, prefetch=PREFETCH, count=count) as program:
            began, cpu_before, ended, cpu_after = (program.event() for _ in range(4))
        streams.delete(queue)
        cpu[name].append((cpu_after - cpu_before) / count * 1e6)
        return count / (ended - began)

    names = list(COUNTS)
    rates = interleave(names, 1 if quick else ROUNDS, rate)
    table = Table(f'Batches of {SIZE}, prefetch {PREFETCH:,}, 100 bytes; ratio to one at a time',
                  ['messages/s', 'ratio', 'CPU us', 'ratio'])
    for name in names:
        del cpu[name][0]  # of the round that does not count
    for name in names:
        table.row(name, statistics.median(rates[name]),
                  f'{paired_ratio(rates, name, names[1]):.2f}x', statistics.median(cpu[name]),
                  f'{paired_ratio(cpu, name, names[1]):.2f}x')
    table.bar('one at a time, messages/s over batches: 1/1.1',
              paired_ratio(rates, names[1], names[0]), 1 / 1.1)
    table.bar('CPU over one at a time', paired_ratio(cpu, names[0], names[1]), 0.8)
    table.bar('CPU over kombu with batches', paired_ratio(cpu, names[0], names[2]), 0.12)
    return table
