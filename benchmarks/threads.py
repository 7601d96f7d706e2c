"""Messages a second, and CPU time a message, with 32 threads whose handlers sleep for 10 ms."""

from __future__ import annotations

import statistics

from benchmarks.programs import Workshop
from benchmarks.stream import JSON, PREFETCH, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 5
NAMES = ('clihelper threads', 'pool alone', 'kombu threads')
COUNT, THREADS, SLEEP = 6_000, 32, 0.01


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume JSON bodies, with a pool alone and with kombu's consumer beside it."""
    streams = Streams(workshop)
    cpu: Samples = {name: [] for name in NAMES}

    def rate(name: str) -> float:
        count, queue = COUNT // (4 if quick else 1), streams.queue()
        if name != 'pool alone':
            streams.fill(queue, count + 4 * PREFETCH, *JSON)
        more = f'  threads: {THREADS}\n' if name == NAMES[0] else ''
        with streams.run(name, queue, more=more, count=count, sleep=SLEEP,
                         threads=THREADS) as program:
            began, cpu_before, ended, cpu_after = (program.event() for _ in range(4))
        streams.delete(queue)
        cpu[name].append((cpu_after - cpu_before) / count * 1e6)
        return count / (ended - began)

    rates = interleave(NAMES, 1 if quick else ROUNDS, rate)
    table = Table('Threads, 32 at once, 10 ms each; ratio to kombu with a pool',
                  ['messages/s', 'ratio', 'CPU us', 'ratio'])
    for name in NAMES:
        del cpu[name][0]  # of the round that does not count
    for name in NAMES:
        table.row(name, statistics.median(rates[name]),
                  f'{paired_ratio(rates, name, NAMES[2]):.2f}x', statistics.median(cpu[name]),
                  f'{paired_ratio(cpu, name, NAMES[2]):.2f}x')
    table.bar('pool alone, messages/s over clihelper',
              paired_ratio(rates, 'pool alone', NAMES[0]), 1 / 0.95)
    table.bar('CPU over kombu with a pool', paired_ratio(cpu, NAMES[0], NAMES[2]), 0.4)
    return table
