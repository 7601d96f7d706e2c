"""Memory and descriptors over a million messages, and over a thousand reconnects.

Connections that are gone wait for Python's garbage collection, so memory goes up and down. What is
compared is the least of the first half with the least of the second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from benchmarks.programs import Program, Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table
from tests.proxy import Proxy

MESSAGES, RECONNECTS = 1_000_000, 1000
STEPS = 20
"""The first of them fills whatever caches there are, and does not count"""

PAUSE = 0.01
"""seconds between two attempts at cutting the connection, which may be up by then or not"""

LEAK = 1.0
"""MiB"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Do both."""
    few = 20 if quick else 1
    messages, reconnects = MESSAGES // few, RECONNECTS // few
    table = Table('A consumer in the long run: MiB and descriptors, least of each half',
                  ['RSS', 'RSS', 'fds', 'fds'])
    for what, steps in ((f'{messages} messages', _consume(workshop, messages // STEPS)),
                        (f'{reconnects} reconnects', _reconnect(workshop, reconnects // STEPS))):
        first, last = _least(steps[1:STEPS // 2]), _least(steps[STEPS // 2:])
        table.row(what, first[0], last[0], first[1], last[1])
        table.bar(f'{what}, MiB more', last[0] - first[0], LEAK)
        table.bar(f'{what}, descriptors more', last[1] - first[1], 0)
    return table


def _consume(workshop: Workshop, count: int) -> list[tuple[float, int]]:
    streams = Streams(workshop)
    queue = streams.queue()

    def step() -> None:
        streams.pour(queue, count, *HUNDRED)
        while workshop.count(queue):
            time.sleep(0.1)

    with streams.run('clihelper', queue, count=MESSAGES * 2) as program:
        return [_usage_after(program, step) for _ in range(STEPS)]


def _reconnect(workshop: Workshop, count: int) -> list[tuple[float, int]]:
    streams = Streams(workshop)
    queue = streams.queue()
    with Proxy(workshop.broker.port) as proxy:
        configuration = workshop.consumer(queue, 10, url=proxy.url)
        with workshop.run(f'clihelper_reconnecting -f -c {configuration}') as program:

            def step() -> None:
                wanted = proxy.connects + count
                while proxy.connects < wanted:
                    proxy.cut()
                    time.sleep(PAUSE)
                streams.publish(queue, HUNDRED[0])
                program.event()

            return [_usage_after(program, step) for _ in range(STEPS)]


def _least(steps: list[tuple[float, int]]) -> tuple[float, int]:
    return min(memory for memory, _ in steps), min(descriptors for _, descriptors in steps)


def _usage_after(program: Program, step: Callable[[], None]) -> tuple[float, int]:
    """Resident memory in MiB, and the number of descriptors, after that."""
    step()
    return program.resident()[0], len(os.listdir(f'/proc/{program.pid}/fd'))
