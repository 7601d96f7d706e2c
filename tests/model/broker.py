"""The queues of the model test, and its own connection to the broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import amqp
from amqp.exceptions import MessageNacked

from tests.model.kind import UNSETTLED, WORKERS
from tests.model.plan import QUEUES

LIMIT = 20
"""deliveries in vain, after which a quorum queue drops a message"""

MOST, MOST_DEAD = 60 + WORKERS * UNSETTLED, 2
"""messages that a queue, and a queue of dead letters, takes; what is published then is refused"""

PATIENCE = 60
"""seconds for an answer; what was taken from a queue, and is given up for late, would be lost"""

LOST = (OSError, amqp.AMQPError)


class Found(NamedTuple):
    """A message that was taken from a queue.

    :ivar reason: why it is there, as the program or the broker says.
    :ivar returned: how often it has been delivered in vain, if the queue counts that.
    """

    number: int
    queue: str
    when: float
    reason: str = ''
    attempts: int = 0
    returned: int = 0


def arguments_of(queue: str) -> dict[str, Any]:
    """The arguments with which a queue of the plan is declared."""
    arguments: dict[str, Any] = {
        'x-max-length': MOST,
        'x-overflow': 'reject-publish',
        'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': f'{queue}.rejected',
    }
    if queue.endswith('quorum'):
        return {'x-queue-type': 'quorum', 'x-delivery-limit': LIMIT,
                'x-dead-letter-strategy': 'at-least-once', **arguments}
    return {'x-queue-type': 'classic', **arguments}


class Link:
    """A connection that is made when it is needed, and made again when it is lost.

    :param port: of the broker.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Any = None
        self._channel: Any = None

    def close(self) -> None:
        """Leave the connection."""
        if self._connection is not None:
            self._connection.collect()
            self._connection = None

    def declare(self) -> None:
        """Declare the queues that are consumed, and those of what is rejected by hand."""
        for queue in QUEUES:
            kind = queue.rpartition('-')[2]
            self._open().queue_declare(
                queue, durable=True, auto_delete=False, arguments=arguments_of(queue))
            self._open().queue_declare(
                f'{queue}.rejected', durable=True, auto_delete=False,
                arguments={'x-queue-type': kind})

    def depth(self, queue: str) -> int:
        """How many messages are ready in the queue.

        :raises OSError, amqp.AMQPError: the broker does not answer.
        """
        return int(self._do('queue_declare', queue, passive=True).message_count)

    def publish(self, queue: str, number: int) -> bool:
        """Publish a number; False if the queue is full.

        :raises OSError, amqp.AMQPError: it is not known whether the broker has it.
        """
        message = amqp.Message(b'%d' % number, content_type='text/plain', delivery_mode=2)
        try:
            self._do('basic_publish_confirm', message, routing_key=queue, confirm_timeout=PATIENCE)
        except MessageNacked:
            return False
        return True

    def take(self, queue: str) -> Iterator[Found]:
        """Take one message after the other, until none is in the queue.

        :raises OSError, amqp.AMQPError: the broker does not answer.
        """
        while (message := self._do('basic_get', queue, no_ack=True)) is not None:
            yield _found(queue, message)

    def _do(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._open(), method)(*arguments, **options)
        except MessageNacked:
            raise
        except LOST:
            self.close()
            raise

    def _open(self) -> Any:
        if self._connection is None:
            connection = amqp.Connection(
                f'127.0.0.1:{self._port}', connect_timeout=PATIENCE, read_timeout=PATIENCE,
                write_timeout=PATIENCE)
            try:
                connection.connect()
                self._channel = connection.channel()
            except BaseException:
                connection.collect()
                raise
            self._connection = connection
        return self._channel


def _found(queue: str, message: Any) -> Found:
    headers = message.headers or {}
    deaths = headers.get('x-death') or []
    reason = headers.get('x-clihelper-reason') or (deaths[0]['reason'] if deaths else '')
    return Found(int(message.body), queue, time.time(), str(reason),
                 headers.get('x-clihelper-attempts', 0), headers.get('x-delivery-count', 0))
