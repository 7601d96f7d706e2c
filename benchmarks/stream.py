"""Queues full of messages, and the programs that consume them as fast as they can."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import amqp

from benchmarks.programs import Program, Workshop

PREFETCH = 100

HUNDRED, JSON, FOUR_KIB = (
    (b'x' * 100, {'content_type': 'application/data', 'content_encoding': 'binary'}),
    (b'{"order_id": 1234567, "customer": "Ada Lovelace", "amount": 17.25, "items": '
     b'["tea", "milk", "sugar"]}', {'content_type': 'application/json',
                                    'content_encoding': 'utf-8'}),
    (b'x' * 4096, {'content_type': 'application/data', 'content_encoding': 'binary'}),
)
"""Bodies, and the properties that kombu's publisher gives them"""

COMMANDS = {
    'clihelper': 'clihelper_stream -f -c {}',
    'ConsumerMixin': 'mixin_stream',
    'kombu Consumer': 'kombu_stream',
    'pika': 'pika_stream',
    'C, an ack per 100': 'librabbitmq_stream 100',
    'C': 'librabbitmq_stream 1',
    'aio-pika': 'aio_pika_stream',
    'FastStream': 'faststream_stream',
    'clihelper Struct': 'clihelper_struct -f -c {}',
    'clihelper handlers': 'clihelper_handlers -f -c {}',
    'clihelper coroutines': 'clihelper_coroutines -f -c {}',
    'bare parser': 'bare_parser',
    'tasks alone': 'tasks_alone',
    'FastStream coroutines': 'faststream_coroutines',
    'pika coroutines': 'pika_coroutines',
    'clihelper threads': 'clihelper_threads -f -c {}',
    'pool alone': 'pool_alone',
    'kombu threads': 'kombu_threads',
    'clihelper batches': 'clihelper_batches -f -c {}',
    'kombu batches': 'kombu_batches',
}
"""Of each program in ``peers/`` that consumes what is in a queue"""

BATCH = 1000


class Streams:
    """Gives each program that it starts a new queue.

    :param workshop: what to start them with.
    """

    _numbers = itertools.count()

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        address = urlsplit(workshop.url)
        self._port = address.port
        # A broker that is busy may not read for longer than py-amqp's one second.
        self._connection = amqp.Connection(
            f'{address.hostname}:{address.port}',
            socket_settings={socket.TCP_USER_TIMEOUT: 60_000})
        self._connection.connect()
        self.channel = self._connection.channel()

    def queue(self) -> str:
        """A new queue, durable as those of all programs."""
        name = f'stream-{next(self._numbers)}'
        self.channel.queue_declare(name, durable=True, auto_delete=False)
        return name

    def fill(self, queue: str, count: int, body: bytes, properties: Mapping[str, Any]) -> None:
        """Put at least that many messages there, and return when they are."""
        there = self.pour(queue, count, body, properties)
        while there < count:
            there = self.pour(queue, 0, body, properties)

    def pour(self, queue: str, count: int, body: bytes, properties: Mapping[str, Any]) -> int:
        """Publish at least that many messages; returns how many are in the queue then.

        The frames are made once and sent many times, which no client does as quickly.
        """
        data = frames(self.channel, queue, body, delivery_mode=1, **properties) * BATCH
        for _ in range(0, count, BATCH):
            self._connection.transport.write(data)
        return int(self.channel.queue_declare(queue, passive=True).message_count)

    def counts(self, queue: str) -> tuple[int, int]:
        """How many messages are ready in a queue, and how many consumers it has."""
        declared = self.channel.queue_declare(queue, passive=True)
        return int(declared.message_count), int(declared.consumer_count)

    def publish(self, queue: str, body: bytes) -> float:
        """Publish one message; returns the time just before."""
        sent = time.monotonic()
        self.channel.basic_publish(
            amqp.Message(body, content_type='application/data', content_encoding='binary'),
            routing_key=queue)
        return sent

    def delete(self, queue: str) -> None:
        """Delete a queue, and what is in it."""
        self.channel.queue_delete(queue)

    def run(self, name: str, queue: str, url: str | None = None, more: str = '',
            prefetch: int = PREFETCH, **environment: object) -> Program:
        """Start one of :data:`COMMANDS`; *more*: lines of clihelper's AMQP section."""
        url = url or self._workshop.url
        configuration = self._workshop.consumer(queue, 10, prefetch, url, more)
        return self._workshop.run(
            COMMANDS[name].format(configuration), url=url, port=urlsplit(url).port, queue=queue,
            prefetch=prefetch, heartbeat=10, **environment)


def frames(channel: Any, queue: str, body: bytes, **properties: Any) -> bytes:
    """The frames of a message, as the broker gets them: AMQP 0-9-1, section 4.2.3."""
    message = amqp.Message(body, **properties)
    method = b'\0\x3c\0\x28\0\0\0%c%s\0' % (len(queue), queue.encode())  # basic.publish
    header = b'\0\x3c\0\0%s%s' % (len(body).to_bytes(8, 'big'), message._serialize_properties())
    number = channel.channel_id.to_bytes(2, 'big')
    return b''.join(
        b'%c%s%s%s\xce' % (kind, number, len(payload).to_bytes(4, 'big'), payload)
        for kind, payload in enumerate((method, header, body), 1))
