"""From TERM to the end of a consumer, whatever the broker does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table
from tests.proxy import Proxy

ROUNDS, QUICK_ROUNDS = 20, 3
SETTLED = 0.3
"""seconds until the consumer does nothing but wait"""


def _down(proxy: Proxy) -> None:
    proxy.__exit__()


BARS: dict[str, tuple[Callable[[Proxy], None], float]] = {
    'idle': (lambda proxy: None, 50),
    'broker down': (_down, 250),
    'silent broker': (Proxy.swallow, 250),
    'packets dropped': (Proxy.vanish, 250),
}
"""What is done to the connection, and how many milliseconds there are then"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Stop it in each of the states."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    table = Table(f'TERM to exit of a consumer, ms; {rounds} rounds', ['median', 'min', 'max'])
    for name, (damage, limit) in BARS.items():
        times = [_stop(workshop, damage) for _ in range(rounds)]
        table.row(name, statistics.median(times), min(times), max(times))
        table.bar(name, max(times), limit)
    return table


def _stop(workshop: Workshop, damage: Callable[[Proxy], None]) -> float:
    streams = Streams(workshop)
    queue = streams.queue()
    streams.publish(queue, HUNDRED[0])
    with Proxy(workshop.broker.port) as proxy, \
            streams.run('clihelper', queue, proxy.url) as program:
        program.event()
        time.sleep(SETTLED)
        damage(proxy)
        time.sleep(SETTLED)
        return program.terminate() * 1000
