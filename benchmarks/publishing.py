"""Publishing 100 bytes with confirmations: one at a time, pipelined, by 100 coroutines at once.

All messages are mandatory, for a transient queue: with a durable one the disk decides how long a
confirmation takes. Pipelined means that up to 1,000 of them are unconfirmed. kombu's producer
waits for each confirmation, so it has no such row.
"""

from __future__ import annotations

import itertools
import statistics
from urllib.parse import urlsplit

import amqp

from benchmarks.programs import Workshop
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 5
OURS, OURS_ASYNC, C = 'clihelper', 'clihelper, IOLoop', 'C'
COMMANDS = {
    OURS: 'clihelper_publish -f -c {}',
    OURS_ASYNC: 'clihelper_publish_coroutines -f -c {}',
    C: 'librabbitmq_publish',
    'kombu': 'kombu_publish',
    'pika': 'pika_publish',
    'aio-pika': 'aio_pika_publish',
}
WAYS = {
    'one': (OURS, OURS_ASYNC, C, 'kombu', 'pika', 'aio-pika'),
    'pipelined': (OURS, OURS_ASYNC, C, 'pika', 'aio-pika'),
    'at once': (OURS_ASYNC, 'aio-pika'),
}
"""Who publishes in which way; the names are those of ``peers/publish.py``"""

TITLES = {'one': 'one at a time', 'pipelined': 'pipelined', 'at once': '100 coroutines'}
COUNTS = {'one': 2000, 'pipelined': 100_000, 'at once': 40_000}
SLOW = {'pika': 20_000, 'aio-pika': 10_000}

LATER_THAN_C, OF_C, CPU_OF_C, OF_GATHER = 1.35, 0.85, 2.0, 4.0


class Publishing:
    """The programs that publish in one way, which take turns.

    :ivar rate: messages a second.
    :ivar cpu: microseconds of CPU time a message.
    :ivar p50: microseconds until a message is confirmed, or 0.
    """

    _numbers = itertools.count()

    def __init__(self, workshop: Workshop, channel: amqp.Channel, way: str, quick: bool) -> None:
        self._workshop = workshop
        self._channel = channel
        self._way = way
        self._quick = quick
        self._configuration = workshop.configuration(
            'publishing', f'AMQP: {{url: "{workshop.url}", heartbeat: 0}}\n')
        names = WAYS[way]
        self.cpu: Samples = {name: [] for name in names}
        self.p50: Samples = {name: [] for name in names}
        self.rate = interleave(names, 1 if quick else ROUNDS, self._run)
        for name in names:
            del self.cpu[name][0], self.p50[name][0]  # of the round that does not count

    def _run(self, name: str) -> float:
        workshop, count = self._workshop, min(COUNTS[self._way], SLOW.get(name, COUNTS[self._way]))
        count //= 4 if self._quick else 1
        queue = f'published-{next(self._numbers)}'
        # RabbitMQ 4.3 has no transient queue that is not exclusive; publishing is not excluded.
        self._channel.queue_declare(queue, exclusive=True, auto_delete=False)
        environment = {
            'url': workshop.url, 'port': urlsplit(workshop.url).port, 'queue': queue,
            'way': self._way, 'count': count}
        with workshop.run(COMMANDS[name].format(self._configuration), **environment) as program:
            began, cpu_before, ended, cpu_after, p50 = (program.event() for _ in range(5))
        self._channel.queue_delete(queue)
        self.cpu[name].append((cpu_after - cpu_before) / count * 1e6)
        self.p50[name].append(p50 * 1e6)
        return count / (ended - began)


def measure(workshop: Workshop, quick: bool) -> Table:
    """Publish in each way."""
    rounds = 1 if quick else ROUNDS
    table = Table(f'Confirmed publishing; medians of {rounds} rounds, ratio to C, or to aio-pika',
                  ['p50, us', 'messages/s', 'ratio', 'CPU us', 'ratio'])
    address = urlsplit(workshop.url)
    with amqp.Connection(f'{address.hostname}:{address.port}') as connection:
        channel = connection.channel()
        runs = {way: Publishing(workshop, channel, way, quick) for way in WAYS}
    for way, figures in runs.items():
        base = C if C in WAYS[way] else 'aio-pika'
        for name in WAYS[way]:
            p50 = statistics.median(figures.p50[name])
            table.row(
                f'{name}, {TITLES[way]}', p50 or '', statistics.median(figures.rate[name]),
                f'{paired_ratio(figures.rate, name, base):.2f}x',
                statistics.median(figures.cpu[name]),
                f'{paired_ratio(figures.cpu, name, base):.2f}x')
    _add_bars(table, **{way.replace(' ', '_'): figures for way, figures in runs.items()})
    return table


def _add_bars(table: Table, one: Publishing, pipelined: Publishing, at_once: Publishing) -> None:
    for peer in WAYS['one'][3:]:
        table.bar(f'one at a time: p50 over {peer}', paired_ratio(one.p50, OURS, peer), 1)
    table.bar('one at a time: p50 over C', paired_ratio(one.p50, OURS, C), LATER_THAN_C)
    table.bar(f'pipelined: C, messages/s over clihelper: 1/{OF_C}',
              paired_ratio(pipelined.rate, C, OURS), 1 / OF_C)
    table.bar('pipelined: CPU over C', paired_ratio(pipelined.cpu, OURS, C), CPU_OF_C)
    table.bar(f'100 coroutines: aio-pika, messages/s over clihelper: 1/{OF_GATHER:g}',
              paired_ratio(at_once.rate, 'aio-pika', OURS_ASYNC), 1 / OF_GATHER)
