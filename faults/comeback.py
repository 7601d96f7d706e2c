"""How soon messages are handled again when the broker is back.

The time runs from when the broker first answers a client until the handler gets a message. Half of
the restarts are in order (TERM), half are crashes (KILL).
"""

from __future__ import annotations

import statistics
import threading
import time

import amqp

from benchmarks.programs import Program, Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table, percentile

RESTARTS, QUICK_RESTARTS = 20, 2
SOON = 1.0
PAUSE = 0.005
"""seconds between two attempts to reach the broker"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Restart the broker, many times."""
    restarts = QUICK_RESTARTS if quick else RESTARTS
    queue = Streams(workshop).queue()
    with Streams(workshop).run('clihelper', queue) as program:
        Streams(workshop).publish(queue, HUNDRED[0])
        program.event()
        times = [_restart(workshop, program, queue, number % 2 == 0)
                 for number in range(restarts)]
    table = Table(f'Seconds to the first message after a restart of the broker, {restarts} times',
                  ['median', 'min', 'p95', 'max'])
    p95 = percentile(times, 95)
    table.row('clihelper', statistics.median(times), min(times), p95, max(times))
    table.bar('p95', p95, SOON)
    return table


def _restart(workshop: Workshop, program: Program, queue: str, gently: bool) -> float:
    broker = workshop.broker
    if gently:
        broker.stop()
    else:
        broker.kill()
    stopped = time.monotonic()
    starting = threading.Thread(target=broker.start)
    starting.start()
    answers, connection = _connect(broker.port)
    connection.channel().basic_publish(
        amqp.Message(HUNDRED[0], delivery_mode=2), routing_key=queue)
    while (handled := program.event()) < stopped:
        pass  # it came twice: the broker was stopped before the acknowledgement
    connection.close()
    starting.join()
    return max(handled - answers, 0.0)


def _connect(port: int) -> tuple[float, amqp.Connection]:
    """When the broker first answered, and the connection."""
    while True:
        connection = amqp.Connection(f'127.0.0.1:{port}', connect_timeout=5)
        try:
            connection.connect()
        except (OSError, amqp.AMQPError):
            connection.collect()
            time.sleep(PAUSE)
        else:
            return time.monotonic(), connection
