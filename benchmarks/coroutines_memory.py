"""Memory of programs that have 1,000 messages in hand, each in a task of asyncio that sleeps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.coroutines import AIO_PIKA, BARE, OURS, PIKA
from benchmarks.programs import PATIENCE, Workshop
from benchmarks.stream import JSON, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 5
IN_HAND = 1000
NAMES = (OURS, BARE, PIKA, AIO_PIKA)
MOST = 1.2
"""times the memory that the bare parser takes for them"""

SETTLED = 1.0
"""seconds after which what the broker has delivered is in hand"""


class Memory:
    """The programs, which take turns.

    :ivar more: MiB of the resident set that the messages take.
    :ivar resident, proportional: MiB of the program with the messages; see proc(5).
    """

    def __init__(self, workshop: Workshop, quick: bool) -> None:
        self._streams = Streams(workshop)
        self.resident: Samples = {name: [] for name in NAMES}
        self.proportional: Samples = {name: [] for name in NAMES}
        self.more = interleave(NAMES, 1 if quick else ROUNDS, self._more)
        for name in NAMES:
            del self.resident[name][0], self.proportional[name][0]  # the round that does not count

    def _more(self, name: str) -> float:
        queue = self._streams.queue()
        with self._streams.run(name, queue, prefetch=IN_HAND, sleep=10 * PATIENCE) as program:
            self._wait_until(queue, lambda ready, consumers: consumers == 1)
            before, _ = program.resident()
            self._streams.pour(queue, IN_HAND, *JSON)
            self._wait_until(queue, lambda ready, consumers: ready == 0)
            rss, pss = program.resident()
        self._streams.delete(queue)
        self.resident[name].append(rss)
        self.proportional[name].append(pss)
        return rss - before

    def _wait_until(self, queue: str, happened: Callable[[int, int], bool]) -> None:
        """Wait for what the broker counts: messages that are ready, and consumers."""
        deadline = time.monotonic() + PATIENCE
        while not happened(*self._streams.counts(queue)):
            if time.monotonic() > deadline:
                raise RuntimeError(f'{queue}: {self._streams.counts(queue)}')
            time.sleep(0.05)
        time.sleep(SETTLED)


def measure(workshop: Workshop, quick: bool) -> Table:
    """Deliver 1,000 messages to each of them, which it keeps."""
    runs = Memory(workshop, quick)
    table = Table(f'{IN_HAND} messages in hand, MiB; medians of {len(runs.more[BARE])} rounds,'
                  ' ratio to the bare parser', ['they take', 'ratio', 'RSS', 'PSS'])
    for name in NAMES:
        table.row(name, statistics.median(runs.more[name]),
                  f'{paired_ratio(runs.more, name, BARE):.2f}x',
                  statistics.median(runs.resident[name]),
                  statistics.median(runs.proportional[name]))
    table.bar('clihelper, what they take, over the bare parser',
              paired_ratio(runs.more, OURS, BARE), MOST)
    return table
