"""How often a consumer connects to a broker that is there, and does not let it consume.

Another one has the queue for itself, from the start or after a while, or the queue is gone and the
program is not to declare it.
"""

from __future__ import annotations

import time

from benchmarks.programs import LOGGING, Program, Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table
from tests.proxy import Proxy

SECONDS, QUICK_SECONDS = 20, 5
MOST = 15
"""connections in the first 20 s"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Refuse in each of the ways, and count connections."""
    seconds = QUICK_SECONDS if quick else SECONDS
    table = Table(f'Connections in {seconds} s to a broker that refuses', ['number'])
    for name, refuse in (('exclusive use, from the start', _from_the_start),
                         ('exclusive use, after consuming', _after_consuming),
                         ('no such queue, after consuming', _without_queue)):
        with Proxy(workshop.broker.port) as proxy:
            number = refuse(workshop, proxy, seconds)
        table.row(name, number)
        table.bar(name, number, MOST)
    return table


def _from_the_start(workshop: Workshop, proxy: Proxy, seconds: float) -> int:
    streams = Streams(workshop)
    queue = streams.queue()
    streams.channel.basic_consume(queue, exclusive=True)
    with _consumer(workshop, proxy, queue):
        proxy.wait_connects(1)
        return _connections(proxy, seconds) + 1


def _after_consuming(workshop: Workshop, proxy: Proxy, seconds: float) -> int:
    streams = Streams(workshop)
    queue = streams.queue()
    streams.publish(queue, HUNDRED[0])
    with _consumer(workshop, proxy, queue) as program:
        program.event()
        proxy.swallow()  # while the other one takes the queue
        workshop.broker.ctl('close_all_user_connections', 'guest', 'refused')
        streams = Streams(workshop)
        streams.channel.basic_consume(queue, exclusive=True)
        proxy.resume()
        proxy.cut()
        return _connections(proxy, seconds)


def _without_queue(workshop: Workshop, proxy: Proxy, seconds: float) -> int:
    streams = Streams(workshop)
    queue = streams.queue()
    streams.channel.queue_declare(f'{queue}.dead', durable=True, auto_delete=False)
    streams.publish(queue, HUNDRED[0])
    with _consumer(workshop, proxy, queue, 'declare: false\n  retry: {attempts: 1}') as program:
        program.event()
        streams.channel.queue_delete(queue)
        return _connections(proxy, seconds)


def _consumer(workshop: Workshop, proxy: Proxy, queue: str, more: str = '') -> Program:
    path = workshop.configuration(
        queue, f'AMQP:\n  url: {proxy.url}\n  queues: {{{queue}: {{durable: true}}}}\n  {more}\n'
        f'{LOGGING}')
    return workshop.run(f'clihelper_dropping -f -c {path}')


def _connections(proxy: Proxy, seconds: float) -> int:
    """How many are made in so many seconds from now on."""
    before = proxy.connects
    time.sleep(seconds)
    return proxy.connects - before
