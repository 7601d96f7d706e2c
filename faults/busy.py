"""A handler busy for five heartbeats: the connection is kept, and no message comes twice."""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table
from tests.proxy import Proxy

HEARTBEAT, QUICK_HEARTBEAT = 4, 1
BUSY = 5


def measure(workshop: Workshop, quick: bool) -> Table:
    """Have it work for that long, twice."""
    heartbeat = QUICK_HEARTBEAT if quick else HEARTBEAT
    streams = Streams(workshop)
    queue = streams.queue()
    with Proxy(workshop.broker.port) as proxy:
        configuration = workshop.consumer(queue, heartbeat, url=proxy.url)
        with workshop.run(f'clihelper_stream -f -c {configuration}',
                          work=BUSY * heartbeat) as program:
            for _ in range(2):
                streams.publish(queue, HUNDRED[0])
            times = [program.event(), program.event()]
            program.terminate()
            calls = len(times) + len(program.events())
        connections = proxy.connects
    table = Table(f'A handler busy for {BUSY} heartbeats of {heartbeat} s, 2 messages',
                  ['calls', 'connects'])
    table.row('clihelper', calls, connections)
    table.bar('calls of the handler', calls, 2)
    table.bar('connections', connections, 1)
    table.bar('left in the queue', workshop.count(queue), 0)
    return table
