"""A publisher whose every message the broker has confirmed, whatever becomes of the broker."""

from __future__ import annotations

import time
from typing import Any

import amqp

from benchmarks.stream import frames

BATCH = 200
PAUSE = 0.1
"""seconds between two attempts to connect"""


class Publisher:
    """Publishes numbers, from 0 on, as eight bytes each, persistent.

    It shares nothing with clihelper but py-amqp.

    :param port: of the broker.
    :ivar int republished: how many were sent again, because a connection was lost before the
        broker had confirmed them.
    """

    def __init__(self, port: int, queue: str) -> None:
        self._address = f'127.0.0.1:{port}'
        self._queue = queue
        self._connection: Any = None
        self._channel: Any = None
        self._first = self._sent = self._confirmed = 0
        self._early: set[int] = set()
        self.republished = 0

    @property
    def next(self) -> int:
        """The first number that is not confirmed; all before it are."""
        return self._first + self._confirmed

    def publish(self, last: int) -> None:
        """Publish up to a few hundred numbers below *last*, or try to connect."""
        try:
            if self._connection is None:
                self._connect()
            self._send(min(BATCH, last - self.next))
        except (OSError, amqp.AMQPError):
            self.close()
            time.sleep(PAUSE)

    def close(self) -> None:
        """Leave the connection: what is not confirmed will be sent again."""
        if self._connection is not None:
            self._connection.collect()
            self._connection = None
        self.republished += self._sent - self._confirmed
        self._first, self._sent, self._confirmed = self.next, 0, 0
        self._early.clear()

    def _connect(self) -> None:
        connection = amqp.Connection(
            self._address, connect_timeout=2, read_timeout=10, write_timeout=10)
        try:
            connection.connect()
            self._channel = channel = connection.channel()
            channel.queue_declare(self._queue, durable=True, auto_delete=False)
            channel.confirm_select()
            channel.events['basic_ack'].add(self._acknowledged)
        except BaseException:
            connection.collect()
            raise
        self._connection = connection

    def _send(self, count: int) -> None:
        """Send that many numbers, and wait until all are confirmed."""
        first = self.next
        self._sent += count
        self._connection.transport.write(b''.join(
            frames(self._channel, self._queue, number.to_bytes(8, 'big'), delivery_mode=2)
            for number in range(first, first + count)))
        while self._confirmed < self._sent:
            self._connection.drain_events(timeout=10)

    def _acknowledged(self, tag: int, multiple: bool) -> None:
        """Confirmations may come in any order."""
        if multiple:
            self._confirmed = max(self._confirmed, tag)
        else:
            self._early.add(tag)
        while self._confirmed + 1 in self._early:
            self._confirmed += 1
            self._early.discard(self._confirmed)
