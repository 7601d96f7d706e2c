"""Messages a second, and CPU time a message, of one process that consumes a full queue.

All of them have a prefetch of 100, acknowledge, and do nothing else with a message. The broker
needs CPU time, too: on two cores it is the limit of the fastest, and then CPU time a message is
the figure that says more.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED, PREFETCH, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 7
FAST, MIDDLING, SLOW = 100_000, 40_000, 10_000
"""How many messages, so that each program takes a second or two"""

COUNTS = {
    'clihelper': FAST, 'clihelper Struct': FAST, 'clihelper handlers': FAST,
    'C, an ack per 100': FAST, 'C': FAST, 'pika': MIDDLING, 'ConsumerMixin': MIDDLING,
    'aio-pika': SLOW, 'FastStream': SLOW,
}

OF_BODIES = ('clihelper Struct', 'clihelper handlers')
"""the programs of another table: see bodies.py"""

FASTER = {'ConsumerMixin': 3.0, 'pika': 1.7, 'C, an ack per 100': 0.8}
LESS_CPU = {'ConsumerMixin': 0.12, 'pika': 0.30, 'C, an ack per 100': 3}


class Throughput:
    """Messages of one kind, consumed by several programs that take turns.

    :param names: of the programs.
    :param message: body and properties.
    """

    def __init__(self, workshop: Workshop, names: Sequence[str],
                 message: tuple[bytes, Mapping[str, Any]], quick: bool) -> None:
        self._streams = Streams(workshop)
        self._message = message
        self.cpu: Samples = {name: [] for name in names}
        """microseconds a message"""
        self.rate = interleave(names, 1 if quick else ROUNDS, self._rate)
        """messages a second"""
        for name in names:
            del self.cpu[name][0]  # of the round that does not count

    def table(self, what: str) -> Table:
        """The table, without bars."""
        rounds = len(self.rate['clihelper'])
        table = Table(f'Throughput, {what}; medians of {rounds} rounds, ratio to ConsumerMixin',
                      ['messages/s', 'ratio', 'CPU us', 'ratio'])
        for name, rates in self.rate.items():
            table.row(
                name, statistics.median(rates), self._ratio(self.rate, name),
                statistics.median(self.cpu[name]), self._ratio(self.cpu, name))
        return table

    def at_least(self, table: Table, peer: str, limit: float) -> None:
        """Add the bar that clihelper handles *limit* times as many messages a second."""
        table.bar(f'{peer}, messages/s over clihelper: 1/{limit}',
                  paired_ratio(self.rate, peer, 'clihelper'), 1 / limit)

    def at_most(self, table: Table, peer: str, limit: float) -> None:
        """Add the bar that clihelper takes *limit* times the CPU time of *peer*."""
        table.bar(f'clihelper, CPU over {peer}', paired_ratio(self.cpu, 'clihelper', peer), limit)

    def _ratio(self, samples: Samples, name: str) -> str:
        return f'{paired_ratio(samples, name, "ConsumerMixin"):.2f}x'

    def _rate(self, name: str) -> float:
        count, queue = COUNTS[name], self._streams.queue()
        self._streams.fill(queue, count + 2 * PREFETCH, *self._message)
        with self._streams.run(name, queue, count=count) as program:
            began, cpu_before, ended, cpu_after = (program.event() for _ in range(4))
        self._streams.delete(queue)
        self.cpu[name].append((cpu_after - cpu_before) / count * 1e6)
        return count / (ended - began)


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume 100-byte bodies, with every peer."""
    names = [name for name in COUNTS if name not in OF_BODIES]
    runs = Throughput(workshop, names, HUNDRED, quick)
    table = runs.table('100-byte bodies')
    for peer, limit in FASTER.items():
        runs.at_least(table, peer, limit)
    for peer, limit in LESS_CPU.items():
        runs.at_most(table, peer, limit)
    return table
