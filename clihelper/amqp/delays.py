"""Where a message waits that is published with a delay: in a queue of the broker's, until a TTL.

As for retries, there is one such queue for each step of a coarse scale of delays. It is called
``<queue>.delay.<seconds>s``, is declared when it is needed, and is deleted when it was not used
for some days after its last message was due.
"""

from __future__ import annotations

import math
import time

from clihelper.amqp.composing import seconds as checked_seconds
from clihelper.amqp.connection import Lost
from clihelper.amqp.declarer import Declarer
from clihelper.amqp.publisher import UNROUTABLE, PublishError
from clihelper.amqp.retries import DECLARED, YOUNG, step
from clihelper.amqp.topology import declare_lasting, waiting_options
from clihelper.amqp.waiting import BrokerTimeout
from clihelper.config.schema import LONGEST_NAME, is_short_string
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from clihelper.amqp.connection import Connection

LONGEST = 30 * 24 * 3600
"""the longest delay in seconds, as for retries: RabbitMQ keeps no queue much longer"""

WHERE = 'delay'
"""what errors of the broker are about"""


def check(exchange: str, queue: str, delay: float, properties: Mapping[str, Any]) -> int:
    """The step of the scale that a delay is rounded up to, in milliseconds.

    :raises TypeError: *delay* is not a number.
    :raises ValueError: it is negative or too long, the message is for an exchange, or it would
        expire before it is due.
    """
    checked_seconds('delay', delay, LONGEST)
    if exchange:
        raise ValueError(f'delay: only for a queue by its name, not for exchange {exchange!r}')
    if properties.get('expiration') is not None:
        raise ValueError('delay: a message that waits cannot have an expiration as well')
    milliseconds = step(delay)
    if not is_short_string(name_of(queue, milliseconds)):
        raise ValueError(f'delay: the name of the queue is too long: {queue[:LONGEST_NAME]!r}')
    return milliseconds


def name_of(queue: str, milliseconds: int) -> str:
    """The name of the queue in which messages for *queue* wait."""
    return f'{queue}.delay.{milliseconds / 1000:g}s'


class DelayQueues:
    """The queues in which messages wait.

    :param declares: ``AMQP.declare``: whether they are declared; otherwise they must exist.
    """

    def __init__(self, declares: bool = True) -> None:
        self._declares = declares
        self._declared: dict[str, float] = {}
        self._ready: dict[str, float] = {}

    def reset(self) -> None:
        """Forget which queues are declared: there is a new connection."""
        self._declared.clear()

    def is_declared(self, name: str) -> bool:
        """Whether a queue is known to exist, and will for a while."""
        return time.monotonic() - self._declared.get(name, -math.inf) <= DECLARED

    def pause(self, name: str) -> float:
        """The seconds for which nothing should be published to it yet."""
        now = time.monotonic()
        return max(self._ready.get(name, now) - now, 0.0)

    def declare(
        self, connection: Connection, queue: str, milliseconds: int, mandatory: bool
    ) -> None:
        """Declare, or verify, the queue in which messages for *queue* wait.

        :param connection: an open connection; what is done waits for its answers.
        :param mandatory: whether *queue* has to exist.
        :raises PublishError: the broker has no such queues, or refuses this one; or *queue* does
            not exist.
        :raises Lost: the connection is lost.
        """
        if not connection.expires:
            raise PublishError('delay: only RabbitMQ has queues in which messages wait',
                               refused=True)  # fmt: skip
        try:
            self._declare(connection, queue, milliseconds, mandatory)
        except Error as error:
            raise PublishError(str(error), refused=True, failed=[(0, str(error))]) from error

    def _declare(
        self, connection: Connection, queue: str, milliseconds: int, mandatory: bool
    ) -> None:
        name, options = name_of(queue, milliseconds), waiting_options(queue, milliseconds)
        declarer = Declarer(connection.channel(), connection.refusals)
        with connection.guard():
            exists = declarer.has_queue(WHERE, queue)
            if mandatory and not exists:
                raise PublishError(
                    f"exchange '', routing key {queue!r}: {UNROUTABLE}",
                    unroutable=True, failed=[(0, UNROUTABLE)],
                )  # fmt: skip
            if self._declares:
                is_new = not name.isascii() or not declarer.has_queue(WHERE, name)
                declare_lasting(declarer, WHERE, name, options)
            else:
                is_new = False
                declarer.queue('delay, with AMQP.declare: false', name, options, False)
            declarer.channel.close()
        now = time.monotonic()
        if exists:
            self._declared[name] = now
        if is_new:
            self._ready[name] = now + YOUNG

    def prepare(
        self, connection: Connection, queue: str, milliseconds: int, mandatory: bool
    ) -> str:
        """Make sure that messages can wait; returns the name of the queue to publish to.

        :raises PublishError: see :meth:`declare`; or the connection is lost.
        """
        name = name_of(queue, milliseconds)
        try:
            if not self.is_declared(name):
                self.declare(connection, queue, milliseconds, mandatory)
            if self.pause(name):
                self._wait(connection, name)
        except Lost as lost:
            connection.drop_unless_refused(lost)
            text = str(lost)
            raise PublishError(text, stopped=lost.stopped, failed=[(0, text)]) from lost
        return name

    def _wait(self, connection: Connection, name: str) -> None:
        """Wait until a new queue is safe; a stop shortens that."""
        deadline = time.monotonic() + self.pause(name)
        try:
            while True:
                if not connection.drain():
                    connection.wait(deadline)
        except Lost as lost:
            if not isinstance(lost.__cause__, BrokerTimeout | TimeoutError):
                raise
