"""From publishing a message to its handler, one message at a time.

The time runs from before the publisher writes to its socket until the handler looks at the clock,
which is one for all processes. The next message is published when the last one was handled.
"""

from __future__ import annotations

import statistics

from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio, percentile

ROUNDS, MESSAGES, WARM_UP = 5, 1000, 200
PEERS = ('kombu Consumer', 'pika', 'aio-pika', 'FastStream')
NAMES = ('clihelper', *PEERS, 'C')


class Latency:
    """The programs, which take turns."""

    def __init__(self, workshop: Workshop, quick: bool) -> None:
        self._streams = Streams(workshop)
        self.p99: Samples = {name: [] for name in NAMES}
        self.p50 = interleave(NAMES, 1 if quick else ROUNDS, self._p50)
        for values in self.p99.values():
            del values[0]  # of the round that does not count

    def _p50(self, name: str) -> float:
        queue = self._streams.queue()
        with self._streams.run(name, queue) as program:
            times = []
            for _ in range(WARM_UP + MESSAGES):
                sent = self._streams.publish(queue, HUNDRED[0])
                times.append((program.event() - sent) * 1e6)
        self._streams.delete(queue)
        del times[:WARM_UP]
        self.p99[name].append(percentile(times, 99))
        return percentile(times, 50)


def measure(workshop: Workshop, quick: bool) -> Table:
    """Publish to each of them."""
    runs = Latency(workshop, quick)
    table = Table(f'Publish to handler, us; medians of {len(runs.p50["C"])} rounds of {MESSAGES}',
                  ['p50', 'p99'])
    for name in NAMES:
        table.row(name, statistics.median(runs.p50[name]), statistics.median(runs.p99[name]))
    for peer in PEERS:
        table.bar(f'clihelper, p50 over {peer}', paired_ratio(runs.p50, 'clihelper', peer), 1)
        table.bar(f'clihelper, p99 over {peer}', paired_ratio(runs.p99, 'clihelper', peer), 1)
    return table
