"""Queues in partitions: all messages with one key are in one of them, which one worker consumes.

The queue ``orders`` in four partitions is ``orders.0`` to ``orders.3``. What is published to it
by name goes to the partition ``crc32(key) % 4``. What it gets by its bindings goes through an
exchange of its own, ``orders.partitions``, which chooses the partition by the hash of the routing
key.
"""

from __future__ import annotations

import itertools
import socket
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Options = Mapping[str, Any]

HASH_EXCHANGE = 'x-consistent-hash'
"""The type of the exchange, of RabbitMQ's plugin ``rabbitmq_consistent_hash_exchange``."""

MODULUS_EXCHANGE = 'x-modulus-hash'
"""What takes its place without the plugin: RabbitMQ 4.3 and later have it built in."""

SUFFIX = '.partitions'
"""The suffix that makes the name of the exchange from that of the queue."""

WEIGHT = '1'
"""The routing key of a partition's binding: all get the same share."""

SINGLE_ACTIVE = {'x-single-active-consumer': True}
"""The argument with which the broker sends a queue's messages to one consumer at a time
(https://www.rabbitmq.com/docs/consumers#single-active-consumer)"""

PARTITION_KEY = 'partition_key'

PRIORITY = 'x-priority'
SPREAD = 128
"""The priority of consumers in their own share; below it, priorities differ by machine. A quorum
queue of RabbitMQ 4.0 or later hands over to a consumer with a higher priority."""


def name_of(queue: str, number: int) -> str:
    """The name of a partition."""
    return f'{queue}.{number}'


class Partitions:
    """Routes what is published to a partitioned queue by its name.

    :param queues: ``AMQP.queues``.
    """

    def __init__(self, queues: Mapping[str, Options]) -> None:
        self._counts: dict[str, int] = {
            each['name']: each['partitions'] for each in queues.values() if 'partitions' in each
        }
        self._turns = itertools.count()

    def names(self, queue: str) -> list[str]:
        """The names of a queue's partitions; of a queue without partitions, its own."""
        if queue not in self._counts:
            return [queue]
        return [name_of(queue, number) for number in range(self._counts[queue])]

    def route(self, exchange: str, routing_key: str, properties: Options) -> tuple[str, Options]:
        """Choose the partition of a message that is being published.

        Without a ``partition_key`` each has its turn.

        :returns: the routing key and the properties to publish it with.
        :raises ValueError: it has a ``partition_key`` and is not published to such a queue.
        """
        count = None if exchange else self._counts.get(routing_key)
        key = None
        if PARTITION_KEY in properties:
            key = properties[PARTITION_KEY]
            if count is None:
                where = f'exchange {exchange!r}' if exchange else f'queue {routing_key!r}'
                raise ValueError(f'{PARTITION_KEY}: {where} is no queue of AMQP.queues that has'
                                 ' partitions')  # fmt: skip
            properties = {name: properties[name] for name in properties if name != PARTITION_KEY}
        if count is None:
            return routing_key, properties
        number = next(self._turns) if key is None else _checksum(key)
        return name_of(routing_key, number % count), properties


NO_PARTITIONS = Partitions({})


def _checksum(key: Any) -> int:
    """The same number for the same key in each program, on each machine."""
    return crc32(key if isinstance(key, bytes) else str(key).encode())


class Expansion:
    """What is declared for one partitioned queue.

    :param label: its key in ``AMQP.queues``.
    :param options: its options.
    :param bindings: its bindings, in the long form.
    :ivar exchange: the name of the exchange that spreads what the bindings bring; '': none do.
    """

    def __init__(self, label: str, options: Options, bindings: list[Options]) -> None:
        self.label = label
        self.name: str = options['name']
        self.count: int = options['partitions']
        self.bindings = bindings
        self.exchange = self.name + SUFFIX if bindings else ''
        self._options = options

    @property
    def exchange_options(self) -> Options:
        return {'type': HASH_EXCHANGE, 'durable': True, 'auto_delete': False, 'arguments': {}}

    def queues(self) -> Iterator[tuple[str, Options]]:
        """Yield label and options of each partition."""
        binding: Options = {'exchange': self.exchange, 'routing_key': WEIGHT, 'arguments': {}}
        options = {
            name: value for name, value in self._options.items()
            if name not in ('exchange', 'partitions')
        }  # fmt: skip
        for number in range(self.count):
            yield name_of(self.label, number), {
                **options,
                'name': name_of(self.name, number),
                'routing_keys': [],
                'bindings': [binding] if self.exchange else [],
                'arguments': {**SINGLE_ACTIVE, **options['arguments']},
                'partition': number,
                'partition_of': self.name,
            }


class Share:
    """Which partitions a worker should be the first to consume.

    Each worker consumes all of them. The broker sends the messages of each to the consumer that
    came first, and if that is gone to the next one. So each worker begins with the partitions of
    its share, and some time later stands by for the others.

    :param worker: the worker's number, from 1.
    :param workers: how many there are.
    """

    def __init__(self, worker: int, workers: int) -> None:
        self._worker = worker
        self._workers = workers
        self._machine = socket.gethostname()

    def has(self, options: Options) -> bool:
        """Whether a queue is of this share; one without partitions is of everyone's."""
        number: int | None = options.get('partition')
        return number is None or number % self._workers == (self._worker - 1) % self._workers

    def arguments(self, options: Options) -> Options:
        """Arguments of ``basic.consume`` for a partition: those of its share come first, and of
        several machines, one that differs by partition."""
        if 'partition' not in options:
            return {}
        by_machine = _checksum(f'{self._machine} {options["name"]}') % SPREAD
        return {PRIORITY: by_machine + (SPREAD if self.has(options) else 0)}
