"""How soon a consumer finds out that its broker is not there any more, though nothing says so.

``silent`` is a peer whose kernel still takes what is sent; with ``packets dropped`` there is
nobody who does. The heartbeat is 10 s.
"""

from __future__ import annotations

import time

from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table
from tests.proxy import Proxy

HEARTBEAT, QUICK_HEARTBEAT = 10, 1


def measure(workshop: Workshop, quick: bool) -> Table:
    """Lose the broker in both ways."""
    heartbeat = QUICK_HEARTBEAT if quick else HEARTBEAT
    table = Table(f'A broker that is gone without a word, heartbeat {heartbeat} s',
                  ['found, s', 'drop, ms'])
    for name, lose in (('silent', Proxy.swallow), ('packets dropped', Proxy.vanish)):
        with Proxy(workshop.broker.port) as proxy:
            streams = Streams(workshop)
            queue = streams.queue()
            streams.publish(queue, HUNDRED[0])
            configuration = workshop.consumer(queue, heartbeat, url=proxy.url)
            with workshop.run(f'clihelper_dropping -f -c {configuration}') as program:
                program.event()
                lost = time.monotonic()
                lose(proxy)
                found, dropped = program.event() - lost, program.event() - lost
        milliseconds = (dropped - found) * 1000
        table.row(name, found, milliseconds)
        table.bar(f'{name}, found after seconds', found, 2 * heartbeat + 1)
        table.bar(f'{name}, dropped after more milliseconds', milliseconds, 10)
    return table
