"""Messages without a broker: the real consumer's loop, on a connection that leads nowhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import kombu.message

from clihelper.amqp.connection import Connection, Lost
from clihelper.amqp.message import Message, decode
from clihelper.amqp.publisher import Publisher, encode
from clihelper.amqp.settlement import Outcome, Unaccepted, Undecodable
from clihelper.loops.consumer import ConsumerLoop


class Published:
    """A message that was published.

    :ivar str exchange: where to.
    :ivar str routing_key: with which routing key.
    :ivar bytes raw: the body as the broker would have got it.
    :ivar dict properties: its properties, by AMQP's names: ``content_type``, ``headers``,
        ``delivery_mode`` and the others that it has.
    """

    def __init__(self, raw: bytes, properties: dict[str, Any]) -> None:
        self.exchange = ''
        self.routing_key = ''
        self.raw = raw
        self.properties = properties

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers."""
        headers: dict[str, Any] = self.properties['headers']
        return headers

    @property
    def body(self) -> Any:
        """The body as a consumer gets it; as it is in :attr:`raw` if it cannot be decoded."""
        message = Message(_delivery(self.raw, **self.properties), '', lambda *_: None)
        try:
            return decode(message, ('json', 'text', 'binary'), sys.maxsize)
        except (Unaccepted, Undecodable):
            return self.raw

    def __repr__(self) -> str:
        return (
            f'<Published exchange={self.exchange!r} routing_key={self.routing_key!r}'
            f' body={self.body!r} properties={self.properties!r}>'
        )


class Delivered:
    """What became of a message that was delivered.

    :ivar Message message: the message as ``on_message`` got it.
    :ivar outcome: the :class:`~clihelper.amqp.settlement.Outcome`.
    :ivar error: what ``on_message`` raised; None if it returned, or was not called because the
        body was not to be had.
    :ivar settling: what clihelper published on account of it: a reply, a dead letter.
    """

    def __init__(
        self, message: Message, error: BaseException | None, settling: list[Published]
    ) -> None:
        assert message.outcome is not None
        self.message = message
        self.outcome: Outcome = message.outcome
        self.error = error
        self.settling = settling

    @property
    def dead_letter(self) -> Published | None:
        """The dead letter that it has become."""
        return next((each for each in self.settling if 'x-clihelper-reason' in each.headers), None)

    @property
    def reason(self) -> str | None:
        """Why it is a dead letter: ``exception``, ``rejected``, ``undecodable``, ..."""
        return None if self.dead_letter is None else self.dead_letter.headers['x-clihelper-reason']

    @property
    def reply(self) -> Published | None:
        """The answer that was sent where its ``reply_to`` says."""
        if self.outcome is not Outcome.ACK:
            return None
        return next(
            (each for each in self.settling if each.routing_key == self.message.reply_to), None
        )

    def __repr__(self) -> str:
        details = [self.outcome.value]
        if self.reason:
            details.append(f'reason={self.reason!r}')
        if self.error is not None:
            details.append(f'error={self.error!r}')
        return f'<Delivered: {", ".join(details)}>'


class Mailbox:
    """Hands messages to a consumer's loop, one at a time, and keeps what is published.

    :param published: where to keep what the controller publishes.
    :ivar refuses: whether the controller's publishing fails.
    """

    def __init__(self, published: list[Published]) -> None:
        self.refuses = False
        self._published = published
        self._settling: list[Published] | None = None
        self._error: BaseException | None = None
        self._tag = 0
        self._channel = _Channel()
        self._loop: ConsumerLoop
        self._queues: list[str]

    def adopt(self, loop: ConsumerLoop) -> None:
        """Put a loop that has not run yet on a connection that leads here."""
        self._loop = loop
        self._queues = loop._topology.queues
        connection = _Unconnected(self._channel, self._take)
        loop._connection = connection
        loop._publisher = Publisher(connection)

    def watched(self, on_message: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The handler; what it raises is noted, and what it publishes is the controller's."""

        def handle(body: Any, message: Any) -> Any:
            settling, self._settling = self._settling, None
            try:
                return on_message(body, message)
            except BaseException as error:
                self._error = error
                raise
            finally:
                self._settling = settling

        return handle

    def message(
        self,
        body: Any,
        queue: str | None,
        exchange: str,
        routing_key: str | None,
        redelivered: bool,
        properties: dict[str, Any],
    ) -> tuple[str, Any]:
        """A message for :meth:`deliver`; see :meth:`clihelper.testing.Harness.deliver`.

        :returns: the queue that it is from, and the message as kombu would have it.
        """
        queue = self._consumed(queue)
        raw, kind = encode(body)
        self._tag += 1
        delivery = _delivery(
            raw,
            channel=self._channel,
            delivery_tag=self._tag,
            delivery_info={
                'exchange': exchange,
                'routing_key': queue if routing_key is None else routing_key,
                'redelivered': redelivered,
            },
            **{'content_type': kind, **properties},
        )
        return queue, delivery

    def deliver(self, queue: str, delivery: Any) -> Delivered:
        """Hand a message to the loop, which has it handled and settled."""
        settling: list[Published] = []
        self._error, self._settling = None, settling
        try:
            self._loop._on_delivery(queue, delivery)
            message = self._loop._deliveries.popleft()
            self._loop._handle(message)
        finally:
            self._settling = None
        return Delivered(message, self._error, settling)

    def _consumed(self, queue: str | None) -> str:
        if queue is None and len(self._queues) == 1:
            return self._queues[0]
        if queue in self._queues:
            return queue
        names = ', '.join(map(repr, self._queues)) or 'none'
        what = 'which queue is it from?' if queue is None else f'no queue {queue!r} is consumed;'
        raise ValueError(f'{what} AMQP.queues has {names}')

    def _take(self, message: Published) -> None:
        if self._settling is not None:
            self._settling.append(message)
        elif self.refuses:
            raise Lost('the test refuses it')
        else:
            self._published.append(message)


class _Unconnected(Connection):
    """A connection that is always open, to no broker."""

    def __init__(self, channel: _Channel, take: Callable[[Published], None]) -> None:
        super().__init__([], 0.0, 'test')
        self._channel = channel
        self._take = take

    @property
    def is_open(self) -> bool:
        return True

    def channel(self) -> Any:
        return self._channel

    def publish(
        self,
        channel: Any,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any],
    ) -> None:
        given = {name: value for name, value in properties.items() if value is not None}
        message = Published(body, {'headers': {}, **given})
        message.exchange = exchange
        message.routing_key = routing_key
        self._take(message)

    def drop(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Channel:
    """What is used of channels. What settles a message arrives, and has no effect."""

    no_ack_consumers = None

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        pass

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        pass


def _delivery(
    raw: bytes,
    *,
    content_type: str | None = None,
    content_encoding: str | None = None,
    headers: dict[str, Any] | None = None,
    channel: Any = None,
    delivery_tag: int = 0,
    delivery_info: dict[str, Any] | None = None,
    **properties: Any,
) -> Any:
    """A message as kombu hands it to a consumer."""
    return kombu.message.Message(
        body=raw,
        content_type=content_type,
        content_encoding=content_encoding,
        headers=headers,
        properties=properties,
        channel=channel,
        delivery_tag=delivery_tag,
        delivery_info=delivery_info,
    )
