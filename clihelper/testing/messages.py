"""Messages without a broker: the real consumer's loop, on a connection to nowhere."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import kombu.message

from clihelper.amqp.async_client import AsyncPipeline
from clihelper.amqp.client import Client, NoReply
from clihelper.amqp.composing import compose
from clihelper.amqp.connection import Connection, Lost
from clihelper.amqp.delays import check as check_delay
from clihelper.amqp.encoding import encode
from clihelper.amqp.iterators import Iterations, Messages, check
from clihelper.amqp.message import Message, decode
from clihelper.amqp.publisher import PublishError
from clihelper.amqp.retries import RetryQueues
from clihelper.amqp.settlement import REASON, Outcome, Unaccepted, Undecodable
from clihelper.amqp.settlement import delay as delay_of
from clihelper.loops import Loop
from clihelper.loops.consumer import ConsumerLoop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.amqp.partitions import Partitions
    from clihelper.loops.async_consumer import AsyncConsumerLoop


class Published:
    """A message that was published.

    :ivar str exchange: the exchange that it was published to.
    :ivar str routing_key: its routing key.
    :ivar bytes raw: the body as the broker would have got it.
    :ivar dict properties: its properties, by AMQP's names: ``content_type``, ``headers``,
        ``delivery_mode`` and any others. ``expiration`` is in milliseconds, as text.
    :ivar bool mandatory: whether it would be an error if no queue got it.
    :ivar float delay: seconds that it waits before it is in its queue.
    """

    mandatory = True
    delay = 0.0

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
        """The body as a consumer gets it; the same as :attr:`raw` if it cannot be decoded."""
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
    """What became of a delivered message.

    :ivar Message message: the message as ``on_message`` got it.
    :ivar outcome: the :class:`~clihelper.amqp.settlement.Outcome`.
    :ivar error: what ``on_message`` raised; None if it returned, or was not called because the
        body was refused or could not be decoded.
    :ivar settling: what clihelper published to settle it, such as a reply or a dead letter.
    :ivar published: what its handler published; of a batch, what that of the whole batch did.
    :ivar delay: seconds until its next run, if it waits for one; otherwise None. The queue in
        which it waits may hold it a little longer.
    """

    def __init__(
        self,
        message: Message,
        error: BaseException | None,
        settling: list[Published],
        published: list[Published],
        delay: float | None,
    ) -> None:
        assert message.outcome is not None
        self.published = published
        self.delay = delay
        self.message = message
        self.outcome: Outcome = message.outcome
        self.error = error
        self.settling = settling

    @property
    def retry(self) -> Published | None:
        """The copy that waits for the next run, in the queue named by its ``routing_key``."""
        return self.settling[-1] if self.outcome is Outcome.RETRY else None

    @property
    def dead_letter(self) -> Published | None:
        """The dead letter, if the message was dead-lettered."""
        return next((each for each in self.settling if REASON in each.headers), None)

    @property
    def reason(self) -> str | None:
        """Why it was dead-lettered: ``exception``, ``rejected``, ``undecodable``, ..."""
        return None if self.dead_letter is None else self.dead_letter.headers[REASON]

    @property
    def reply(self) -> Published | None:
        """The reply that was sent to its ``reply_to``."""
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


class Outbox:
    """Collects what a controller publishes, and answers its requests to the broker.

    :ivar published: what the controller has published.
    :ivar retried: the copies of messages that wait for their next runs.
    :ivar dead_letters: those that do not.
    :ivar refuses: whether the controller's publishing fails.
    :ivar settling: collects what is published to settle a message; None while none is settled.
    :ivar answer: replies to ``call``; None if nobody does.
    :ivar queues: the bodies that wait in the queues, by the queues' names.
    """

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.retried: list[Published] = []
        self.dead_letters: list[Published] = []
        self.refuses = False
        self.settling: list[Published] | None = None
        self.answer: Callable[[Published], Any] | None = None
        self.queues: dict[str, list[Any]] = {}

    def take(self, message: Published) -> None:
        """Keep a published message."""
        if self.settling is not None:
            self.settling.append(message)
        elif self.refuses:
            raise Lost('the test refuses it')
        else:
            self.published.append(message)

    def adopt(self, loop: Loop) -> Connection:
        """Make a loop that has not run yet publish here.

        :returns: the connection that publishes here.
        """
        connection = _Unconnected(self)
        client = _Client(self, connection)
        loop.client = client if loop.reads_signals else _AsyncClient(client)
        loop.iterations = _Iterations(self, loop)
        return connection


class _Client(Client):
    """A client that sends its requests to the test."""

    def __init__(self, outbox: Outbox, connection: Connection) -> None:
        super().__init__(connection, nullcontext, lambda: connection)
        self._outbox = outbox

    def call(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        timeout: float,
        properties: Mapping[str, Any],
    ) -> Any:
        raw, full = compose(body, properties)
        request = Published(raw, {'headers': {}, **full})
        request.exchange, request.routing_key = exchange, routing_key
        self._outbox.take(request)
        if self._outbox.answer is None:
            raise NoReply(f'{exchange!r}, {routing_key!r}: the test has no answer', False)
        raw, kind = encode(self._outbox.answer(request))
        return Published(raw, {'content_type': kind}).body

    def delay_queue(
        self,
        exchange: str,
        queue: str,
        properties: Mapping[str, Any],
        delay: float,
        mandatory: bool,
    ) -> str:
        check_delay(exchange, queue, delay, properties)
        return _Delayed(queue, delay, mandatory)

    def queue_depth(self, queue: str) -> int:
        return len(self._waiting(queue))

    def get(self, queue: str) -> Message | None:
        waiting = self._waiting(queue)
        if not waiting:
            return None
        raw, kind = encode(waiting.pop(0))
        delivery = _delivery(raw, content_type=kind, channel=_Channel(), delivery_tag=1)
        return Message(delivery, queue, _note)

    def _waiting(self, queue: str) -> list[Any]:
        if queue not in self._outbox.queues:
            raise LookupError(f'there is no queue {queue!r}')
        return self._outbox.queues[queue]


class _Delayed(str):
    """The queue for which a message waits, and how it was published."""

    __slots__ = ('delay', 'mandatory')

    def __new__(cls, queue: str, delay: float, mandatory: bool) -> Self:
        name = super().__new__(cls, queue)
        name.delay, name.mandatory = delay, mandatory
        return name

    delay: float
    mandatory: bool


class _Iterations(Iterations):
    """Opens iterations over the bodies that the test has put into queues.

    :param loop: the loop that ends them at a stop.
    """

    def __init__(self, outbox: Outbox, loop: Loop) -> None:
        super().__init__(loop.host, consumes=loop.consumes)
        self._outbox = outbox
        self._waits = not loop.reads_signals

    def messages(self, queue: str, timeout: float | None, prefetch: int | None) -> Any:
        check(timeout, prefetch)
        section = self._host.config.amqp
        if queue in section['queues']:
            self._outbox.queues.setdefault(queue, [])
        if queue not in self._outbox.queues:
            raise LookupError(f'there is no queue {queue!r}')
        iteration = _Iteration(self._outbox, queue, self._host)
        self.add(iteration)
        return _AsyncMessages(iteration) if self._waits else Messages(iteration)

    def finishing(self) -> set[asyncio.Task[Any]]:
        return set()


class _Iteration:
    """Yields what is in the queue of a test, until that is empty or the controller stops.

    A message that is not acknowledged is in the queue again when the iteration has ended.
    """

    def __init__(self, outbox: Outbox, queue: str, host: Any) -> None:
        self._outbox = outbox
        self._queue = queue
        self._host = host
        self._in_hand: tuple[Message, Any] | None = None
        self._returned: list[Any] = []
        self.has_ended = False

    @property
    def is_open(self) -> bool:
        return not self.has_ended

    def next(self) -> Message | None:
        self._settle(Outcome.ACK)
        waiting = self._outbox.queues[self._queue]
        while waiting and self._host.is_running:
            body = waiting.pop(0)
            raw, kind = encode(body)
            delivery = _delivery(raw, content_type=kind, channel=_Channel(), delivery_tag=1)
            message = Message(delivery, self._queue, _note)
            self._in_hand = message, body
            return message
        self.end(None)
        return None

    def end(self, error: BaseException | None) -> None:
        self._settle(Outcome.ACK if error is None else Outcome.RETRY)
        self._outbox.queues[self._queue][:0] = self._returned
        self._returned = []
        self.has_ended = True

    def leave(self) -> None:
        self._settle(Outcome.RETRY)
        self.end(None)

    finish = leave

    def give_up_record(self) -> None:
        pass

    def description(self) -> str:
        return ''

    def _settle(self, outcome: Outcome) -> None:
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is None:
            return
        message, body = in_hand
        _note(message, outcome)
        if message.outcome in (Outcome.RETRY, Outcome.REQUEUE):
            self._returned.append(body)


class _AsyncMessages:
    """The same for ``async for``."""

    def __init__(self, iteration: _Iteration) -> None:
        self._messages = Messages(iteration)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        await asyncio.sleep(0)
        for message in self._messages:
            return message
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._messages.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: Any) -> None:
        self._messages.__exit__(*raised)


class _AsyncClient:
    """The same for a controller on the IOLoop.

    :param client: does what is awaited here.
    """

    def __init__(self, client: _Client) -> None:
        self._client = client

    @property
    def partitions(self) -> Partitions:
        return self._client.partitions

    @partitions.setter
    def partitions(self, partitions: Partitions) -> None:
        self._client.partitions = partitions

    @property
    def declares(self) -> bool:
        return self._client.declares

    @declares.setter
    def declares(self, declares: bool) -> None:
        self._client.declares = declares

    def check_thread(self) -> None:
        pass

    def publish(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        properties: Mapping[str, Any],
        **how: Any,
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        try:
            self._client.publish(body, exchange, routing_key, properties, **how)
            future.set_result(None)
        except PublishError as error:
            future.set_exception(error)
        return future

    def pipeline(self) -> AsyncPipeline:
        return AsyncPipeline(self)  # type: ignore[arg-type]

    async def call(self, *arguments: Any) -> Any:
        return self._client.call(*arguments)

    async def queue_depth(self, queue: str) -> int:
        return self._client.queue_depth(queue)

    async def get(self, queue: str) -> Message | None:
        return self._client.get(queue)

    def end(self) -> None:
        pass

    def close(self, *, politely: bool = True) -> None:
        pass


def _note(message: Message, outcome: Outcome) -> None:
    message.outcome = message.outcome or outcome


def _copies(message: Message, settling: list[Published]) -> list[Published]:
    """Take from *settling* what was published for a message of a batch: it has the same body.

    Messages are settled in their order, so those with equal bodies find their own, too.
    """
    if message.outcome not in (Outcome.RETRY, Outcome.DEAD_LETTER):
        return []
    is_dead = message.outcome is Outcome.DEAD_LETTER
    for each in settling:
        if each.raw == message.raw and (REASON in each.headers) is is_dead:
            settling.remove(each)
            return [each]
    return []


class Mailbox:
    """Hands messages to a consumer's loop.

    :param outbox: takes what is published.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._errors: dict[Message, BaseException] = {}
        self._tag = 0
        self._channel = _Channel()
        self._loop: ConsumerLoop | AsyncConsumerLoop
        self._queues: list[str]

    def adopt(self, loop: ConsumerLoop | AsyncConsumerLoop, connection: Connection) -> None:
        """Give a loop that has not run yet a connection that leads here."""
        self._loop = loop
        self._queues = loop.queues
        if loop.reads_signals:
            loop.connect_by(connection, connection)
        else:  # where they would be declared on a connection of their own
            loop.connect_by(connection, connection, RetryQueues)  # type: ignore[call-arg]

    def watched(
        self,
        handler: Callable[..., Any],
        order_key: Callable[[Any], Any] | None = None,
    ) -> Callable[..., Any]:
        """Wrap a handler: note its exception; what it publishes is the controller's.

        :param order_key: is called first; what it raises, or an unhashable key, is a failure, too.
        """

        @contextmanager
        def handling(messages: Sequence[Message]) -> Iterator[None]:
            settling, self._outbox.settling = self._outbox.settling, None
            for message in messages:
                self._errors.pop(message, None)  # of a run with others
            try:
                yield
            except BaseException as error:
                self._errors.update(dict.fromkeys(messages, error))
                raise
            finally:
                self._outbox.settling = settling

        async def finish(answer: Any, messages: Sequence[Message]) -> Any:
            with handling(messages):
                return await answer

        def handle(*arguments: Any) -> Any:
            last = arguments[-1]
            messages = tuple(last) if isinstance(last, list) else (last,)
            with handling(messages):
                if order_key is not None:
                    hash(order_key(last))
                answer = handler(*arguments)
            awaits = inspect.iscoroutine(answer) and not self._loop.reads_signals
            return finish(answer, messages) if awaits else answer

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
        """Return a message for :meth:`deliver`; see :meth:`clihelper.testing.Harness.deliver`.

        :returns: the queue that it is from, and the message as kombu would deliver it.
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

    def deliver(self, deliveries: Sequence[tuple[str, Any]]) -> list[Delivered]:
        """Hand messages of one queue to the loop, which handles and settles them."""
        if not deliveries:
            return []
        settling: list[Published] = []
        before = len(self._outbox.published)
        self._errors, self._outbox.settling = {}, settling
        try:
            messages = self._loop.deliver(deliveries[0][0], [each for _, each in deliveries])
        finally:
            self._outbox.settling = None
        published = self._outbox.published[before:]
        found = [
            Delivered(
                message, self._errors.get(message),
                settling if len(messages) == 1 else _copies(message, settling),
                published, self._delay(message),
            )
            for message in messages
        ]
        self._outbox.retried += [each.retry for each in found if each.retry is not None]
        self._outbox.dead_letters += [
            each.dead_letter for each in found if each.dead_letter is not None]
        return found

    def _delay(self, message: Message) -> float | None:
        """Return the seconds until the next run of a message, if it waits for one."""
        if message.outcome is not Outcome.RETRY:
            return None
        schedule = self._loop.host.config.amqp['retry']
        return delay_of(self._errors.get(message, Exception()), message.attempts, schedule)

    def _consumed(self, queue: str | None) -> str:
        if queue is None and len(self._queues) == 1:
            return self._queues[0]
        for name in (queue, f'{queue}.0'):  # of a queue in partitions, the first
            if name in self._queues:
                return str(name)
        names = ', '.join(map(repr, self._queues)) or 'none'
        what = 'which queue is it from?' if queue is None else f'no queue {queue!r} is consumed;'
        raise ValueError(f'{what} AMQP.queues contains {names}')


class _Unconnected(Connection):
    """A connection that is always open, but not to a broker."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__([], 0.0, 'test')
        self._outbox = outbox

    @property
    def is_open(self) -> bool:
        return True

    @property
    def expires(self) -> bool:
        return True

    @property
    def transport(self) -> Any:
        return _Transport(self._outbox)

    def channel(self) -> Any:
        return _Channel()

    def has(self, channel: Any) -> bool:
        return True

    def drain(self) -> bool:
        return False

    @property
    def refusals(self) -> tuple[type[BaseException], ...]:
        return ()

    def drop(self) -> None:
        pass

    def close(self) -> bool:
        return True


class _Transport:
    """A transport that publishes into the test instead of to a broker."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def open_channel(self) -> Any:
        return _Channel()

    def confirm(self, channel: Any, *callbacks: Any, waits: bool = True) -> bool:
        return False

    def encode_or_publish(
        self,
        channel: Any,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any] | bytes,
        mandatory: bool = True,
    ) -> bytes:
        assert isinstance(properties, dict)  # only messages that AMQP delivers have packed ones
        given = {name: value for name, value in properties.items() if value is not None}
        message = Published(body, {'headers': {}, **given})
        message.exchange = exchange
        message.routing_key, message.mandatory = str(routing_key), mandatory
        if isinstance(routing_key, _Delayed):
            message.delay, message.mandatory = routing_key.delay, routing_key.mandatory
        self._outbox.take(message)
        return b''

    def recover(self, channel: Any) -> None:
        pass


class _Channel:
    """The part of a channel that is used. Settling a message has no effect."""

    no_ack_consumers = None

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        pass

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        pass

    def basic_recover(self, requeue: bool = False) -> None:
        pass

    def queue_declare(self, queue: str, **options: Any) -> tuple[str, int, int]:
        return queue, 0, 0

    def close(self) -> None:
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
    """Return a message as kombu hands it to a consumer."""
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
