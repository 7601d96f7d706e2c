"""Messages a second, and CPU time a message, of programs that handle many messages at once.

Each message is handled by a task of asyncio. A handler that sleeps stands for one that waits for a
database: then the sleep bounds the rate, and CPU time tells the programs apart. The bare parser is
asyncio and nothing else: what a framework adds is what it takes beyond that.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.programs import Workshop
from benchmarks.stream import JSON, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 5
OURS, BARE, ALONE = 'clihelper coroutines', 'bare parser', 'tasks alone'
PIKA, AIO_PIKA, FASTSTREAM = 'pika coroutines', 'aio-pika', 'FastStream coroutines'
COUNT, SLOW = 40_000, {AIO_PIKA: 10_000, FASTSTREAM: 5_000}


class Case(NamedTuple):
    """What the handlers do, and the bars.

    :ivar sleep: seconds; with *is_random* any time up to it.
    :ivar at_once: handlers that run at the same time, which is the prefetch.
    :ivar names: the programs.
    :ivar cpu: for a peer the most that clihelper's CPU time may be of its.
    :ivar rate: for a peer the least that clihelper's messages a second must be of its.
    """

    title: str
    sleep: float
    at_once: int
    names: tuple[str, ...]
    cpu: Mapping[str, float]
    rate: Mapping[str, float]
    is_random: bool = False


CASES = (
    Case('no sleep', 0.0, 100, (OURS, BARE, ALONE, PIKA, AIO_PIKA, FASTSTREAM),
         cpu={BARE: 1.5, AIO_PIKA: 0.13, FASTSTREAM: 0.08, PIKA: 0.45},
         rate={AIO_PIKA: 4.0, PIKA: 1.8}),
    Case('10 ms', 0.01, 100, (OURS, BARE, ALONE, PIKA, AIO_PIKA, FASTSTREAM),
         cpu={AIO_PIKA: 0.22, PIKA: 0.65}, rate={BARE: 0.95}),
    Case('0 to 20 ms', 0.02, 100, (OURS, BARE, ALONE, AIO_PIKA),
         cpu={}, rate={BARE: 0.95}, is_random=True),
    Case('100 ms, 1,000 at once', 0.1, 1000, (OURS, BARE, ALONE, AIO_PIKA),
         cpu={}, rate={BARE: 0.95}),
)


class Runs:
    """One case, by each of its programs in turn.

    :ivar rate: messages a second.
    :ivar cpu: microseconds of CPU time a message.
    """

    def __init__(self, streams: Streams, case: Case, quick: bool) -> None:
        self._streams = streams
        self._case = case
        self._quick = quick
        self.cpu: Samples = {name: [] for name in case.names}
        self.rate = interleave(case.names, 1 if quick else ROUNDS, self._run)
        for values in self.cpu.values():
            del values[0]  # of the round that does not count

    def _run(self, name: str) -> float:
        case = self._case
        count = SLOW.get(name, COUNT) // (4 if self._quick else 1)
        queue = self._streams.queue()
        if name != ALONE:
            self._streams.fill(queue, count + 4 * case.at_once, *JSON)
        random = {'random': 1} if case.is_random else {}
        with self._streams.run(name, queue, prefetch=case.at_once, count=count,
                               sleep=case.sleep, **random) as program:
            began, cpu_before, ended, cpu_after = (program.event() for _ in range(4))
        self._streams.delete(queue)
        self.cpu[name].append((cpu_after - cpu_before) / count * 1e6)
        return count / (ended - began)


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume JSON bodies in each of the cases."""
    streams = Streams(workshop)
    table = Table('Coroutines, 100 at once; ratio to the bare parser',
                  ['messages/s', 'ratio', 'CPU us', 'ratio'])
    for case in CASES:
        runs = Runs(streams, case, quick)
        for name in case.names:
            table.row(
                f'{name}, {case.title}', statistics.median(runs.rate[name]),
                f'{paired_ratio(runs.rate, name, BARE):.2f}x', statistics.median(runs.cpu[name]),
                f'{paired_ratio(runs.cpu, name, BARE):.2f}x')
        for peer, limit in case.cpu.items():
            table.bar(f'{case.title}: CPU over {peer}', paired_ratio(runs.cpu, OURS, peer), limit)
        for peer, least in case.rate.items():
            table.bar(f'{case.title}: {peer}, messages/s over clihelper: 1/{least:g}',
                      paired_ratio(runs.rate, peer, OURS), 1 / least)
    return table
