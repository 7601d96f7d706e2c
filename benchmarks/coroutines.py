"""Messages a second, and CPU time a message, of programs that handle 100 messages at once.

Each message is handled by a task of asyncio. A handler that sleeps stands for one that waits for a
database: then the sleep bounds the rate, and CPU time tells the programs apart.
"""

from __future__ import annotations

import statistics

from benchmarks.programs import Workshop
from benchmarks.stream import JSON, PREFETCH, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 5
NAMES = ('clihelper coroutines', 'tasks alone', 'pika coroutines', 'aio-pika',
         'FastStream coroutines')
COUNTS = {'aio-pika': 10_000, 'FastStream coroutines': 5_000}
COUNT = 40_000
SLEEPS = (0.0, 0.01)

#: For each sleep the most of the CPU time of a peer.
LESS_CPU = {
    0.0: {'aio-pika': 0.13, 'FastStream coroutines': 0.08, 'pika coroutines': 0.45},
    0.01: {'aio-pika': 0.22, 'pika coroutines': 0.65},
}
FASTER = {'aio-pika': 4.0, 'pika coroutines': 1.8}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume JSON bodies, without a sleep and with one of 10 ms."""
    streams = Streams(workshop)
    table = Table('Coroutines, 100 at once; ratio to aio-pika',
                  ['messages/s', 'ratio', 'CPU us', 'ratio'])
    for sleep in SLEEPS:
        cpu: Samples = {name: [] for name in NAMES}

        def rate(name: str, sleep: float = sleep, cpu: Samples = cpu) -> float:
            count = COUNTS.get(name, COUNT) // (4 if quick else 1)
            queue = streams.queue()
            if name != 'tasks alone':
                streams.fill(queue, count + 4 * PREFETCH, *JSON)
            with streams.run(name, queue, count=count, sleep=sleep) as program:
                began, cpu_before, ended, cpu_after = (program.event() for _ in range(4))
            streams.delete(queue)
            cpu[name].append((cpu_after - cpu_before) / count * 1e6)
            return count / (ended - began)

        rates = interleave(NAMES, 1 if quick else ROUNDS, rate)
        for name in NAMES:
            del cpu[name][0]  # of the round that does not count
        for name in NAMES:
            table.row(
                f'{name}, {sleep * 1000:g} ms', statistics.median(rates[name]),
                f'{paired_ratio(rates, name, "aio-pika"):.2f}x', statistics.median(cpu[name]),
                f'{paired_ratio(cpu, name, "aio-pika"):.2f}x')
        for peer, limit in LESS_CPU[sleep].items():
            table.bar(f'{sleep * 1000:g} ms: CPU over {peer}',
                      paired_ratio(cpu, NAMES[0], peer), limit)
        if not sleep:
            for peer, limit in FASTER.items():
                table.bar(f'{peer}, messages/s over clihelper: 1/{limit}',
                          paired_ratio(rates, peer, NAMES[0]), 1 / limit)
        else:
            table.bar('tasks alone, messages/s over clihelper',
                      paired_ratio(rates, 'tasks alone', NAMES[0]), 1 / 0.95)
    return table
