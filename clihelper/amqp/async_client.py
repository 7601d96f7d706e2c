"""What a controller on an event loop does with the broker besides consuming.

One connection serves all of it, on several channels. A thread opens it; whatever else is done with
it never waits. What is published in one turn of the loop is written together, and confirmed
together, however many coroutines wait for it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from functools import partial

from clihelper.amqp.client import NoReply, counting_failures
from clihelper.amqp.composing import compose
from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.declare_errors import DeclarationRefused
from clihelper.amqp.event_loop import EventLoopConnection
from clihelper.amqp.forwarder import LAST, USUAL, Forwarder
from clihelper.amqp.message import Fetched, Message, settle_at_once
from clihelper.amqp.partitions import NO_PARTITIONS
from clihelper.amqp.publisher import (
    CONFIRM_TIMEOUT,
    UNROUTABLE,
    WINDOW,
    PendingPublish,
    Publisher,
    PublishError,
    is_refusal,
)
from clihelper.config.schema import LONGEST_NAME, is_short_string
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any, Unpack

    from clihelper.amqp.async_delays import AsyncDelayQueues
    from clihelper.amqp.property_types import Properties
    from clihelper.amqp.settlement import Outcome

LOGGER = logging.getLogger('clihelper.amqp')

CHANNELS = 64
"""The most exchanges that have a channel of their own. The broker closes the channel on which
something is published to an exchange that does not exist: that must not concern others."""

CHECK = 5.0
"""seconds between two checks for confirmations that do not come"""


class AsyncPublisher(Publisher):
    """Publishes on a channel of its own, and never waits.

    :param connection: an open connection that an event loop reads.
    :param event_loop: that loop.
    """

    waits = False

    def __init__(
        self,
        connection: Connection,
        event_loop: asyncio.AbstractEventLoop,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(connection, prepare)
        self._event_loop = event_loop
        self._futures: dict[PendingPublish, asyncio.Future[None]] = {}
        self._is_scheduled = False
        self._seen: deque[tuple[float, int]] = deque()  # times, and the last tags then
        self._checks = False

    def submit(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any],
        mandatory: bool = True,
    ) -> asyncio.Future[None]:
        """Publish one message with the next ones.

        :param mandatory: whether it is a failure if no queue gets it.
        :returns: a future that is done when the broker has confirmed it.
        :raises TypeError, ValueError: a property cannot be encoded.
        :raises PublishError: the connection is lost.
        """
        pending = self.forward(body, exchange, routing_key, properties, mandatory)
        future: asyncio.Future[None] = self._event_loop.create_future()
        if not self._confirms:
            self._forget()
            future.set_result(None)
            return future
        self._futures[pending] = future
        if not self._is_scheduled:
            self._is_scheduled = True
            self._event_loop.call_soon(self._send)
        if not self._checks:
            self._checks = True
            self._event_loop.call_later(CHECK, self._check)
        return future

    def _send(self) -> None:
        self._is_scheduled = False
        try:
            self._write()
        except Lost as lost:
            self.lose(lost)

    def lose(self, lost: Lost) -> None:
        """Report what is not confirmed: the connection, or the channel, is lost."""
        self._channel = None
        refused = len(self._futures) == 1 and is_refusal(lost)
        self._fail(list(self._futures), str(lost), unknown=not refused, refused=refused)
        self._forget()

    def loses(self) -> bool:
        """Whether the broker has closed the channel."""
        return self._channel is not None and not self._connection.has(self._channel)

    def _settled(self, pending: PendingPublish) -> None:
        future = self._futures.pop(pending, None)
        if future is None or future.done():
            return
        if pending.failure:
            future.set_exception(_failure(pending, pending.failure))
        else:
            future.set_result(None)

    def _lost(self, lost: Lost, *letters: PendingPublish, unknown: bool) -> PublishError:
        self._tally('publish_failures', len(letters))
        self.lose(lost)
        return PublishError(str(lost), unknown=unknown, failed=[(0, str(lost))])

    def _fail(self, pending: list[PendingPublish], why: str, **how: bool) -> None:
        if how.get('unknown'):
            why += '; it is unknown whether it arrives'
        self._tally('publish_failures', len(pending))
        for each in pending:
            future = self._futures.pop(each)
            if not future.done():
                future.set_exception(_failure(each, why, **how))

    def _check(self) -> None:
        """Give up what has been waiting for its confirmation for too long."""
        self._checks = bool(self._futures)
        if not self._checks:
            self._seen.clear()
            return
        now, last = time.monotonic(), 0
        while self._seen and self._seen[0][0] <= now - CONFIRM_TIMEOUT:
            last = self._seen.popleft()[1]
        late = [pending for tag, pending in self._unconfirmed.items() if tag <= last]
        # A late confirmation is ignored: the tags stay those of this channel.
        for tag in [tag for tag in self._unconfirmed if tag <= last]:
            del self._unconfirmed[tag]
        self._fail([each for each in late if each in self._futures], 'no answer', unknown=True)
        self._seen.append((now, self._delivery_tag))
        self._event_loop.call_later(CHECK, self._check)


def _failure(pending: PendingPublish, why: str, **how: bool) -> PublishError:
    return PublishError(
        f'{pending}: {why}', unroutable=why == UNROUTABLE, failed=[(pending.number, why)], **how)


class AsyncForwarder(Forwarder):
    """A forwarder that never waits, on a connection that an event loop reads.

    The connection is opened by somebody else; without it nothing is published.
    """

    waits = False
    _all_settled: asyncio.Future[None] | None = None

    def _open(self) -> None:
        if not self._connection.is_open:
            raise Unreachable('the connection for publishing is not open')

    def poll(self) -> None:
        """Report what has been settled: the event loop has read the connection."""
        self._report()

    async def wait_a_moment(self) -> None:
        """Wait for the confirmations of what has been published, as long as they usually take."""
        if self._callbacks and not self._blocked:
            self._all_settled = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._all_settled], timeout=USUAL)

    def lose(self, lost: Lost) -> None:
        """Report what was not confirmed when the connection, or the channel, was lost."""
        if self._callbacks or not self._connection.is_refusal(lost):
            self._end(lost)
        self._report()

    def _report(self) -> None:
        super()._report()
        waiting, self._all_settled = self._all_settled, None
        if self._callbacks:
            self._all_settled = waiting
        elif waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _drain(self) -> None:
        """Do nothing: the event loop reads."""

    def _wait(self, seconds: float = USUAL) -> None:
        if seconds == LAST:  # at the end, when the event loop reads no more
            super()._wait(seconds)


class AsyncClient:
    """Publishes, calls, gets and counts, in coroutines.

    :param connection: a connection that is not open yet, and waits without reading signals.
    :param event_loop: the loop that reads it.
    :param connect: makes another one, with which a thread declares queues.
    :ivar on_arrival: called after something has arrived.
    :ivar on_lost: called when the connection, or one of its channels, is lost.
    :ivar partitions: the queues that are in partitions.
    :ivar declares: ``AMQP.declare``.
    """

    partitions = NO_PARTITIONS
    declares = True

    def __init__(
        self,
        connection: Connection,
        event_loop: asyncio.AbstractEventLoop,
        connect: Callable[[], Connection],
    ) -> None:
        self._connect = connect
        self._delays: AsyncDelayQueues | None = None
        self.on_arrival: Callable[[], None] = lambda: None
        self.on_lost: Callable[[Lost], None] = lambda lost: None
        self._connection = connection
        self._event_loop = event_loop
        self._thread = threading.get_ident()
        self._link = EventLoopConnection(
            connection, event_loop, lambda: self.on_arrival(), self._on_lost, self._on_refused)
        self._opening: asyncio.Task[None] | None = None
        self._is_closed = False
        self._publishers: dict[str, AsyncPublisher] = {}
        self._caller = AsyncPublisher(connection, event_loop, self._consume_replies)
        self._replies: dict[str, asyncio.Future[Message]] = {}
        self._reply_to = ''
        self._numbers = itertools.count(1)
        self._channel: Any = None
        self._asked: asyncio.Future[Any] | None = None
        self._asking = asyncio.Lock()

    def check_thread(self) -> None:
        """Check that the caller is in the thread of the event loop.

        :raises RuntimeError: it is not.
        """
        if threading.get_ident() != self._thread:
            raise RuntimeError('this may only be called on the IOLoop; in another thread, use'
                               ' asyncio.run_coroutine_threadsafe')

    # The connection.

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as can be known."""
        return self._link.is_open

    async def open(self) -> None:
        """Make sure that the connection is open.

        :raises PublishError: no broker answers.
        """
        if self._link.is_open:
            return
        if self._is_closed:
            raise PublishError('the program is stopping', stopped=True)
        if self._opening is None:
            self._opening = self._event_loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        try:
            await self._link.open(lambda: None, any_address=True)
        except (Unreachable, Error) as error:
            raise PublishError(str(error), failed=[(0, str(error))]) from error

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # it is known to those who wait for it, if any

    def _on_lost(self, lost: Lost) -> None:
        self._connection.drop()
        if self._delays is not None:
            self._delays.reset()
        for publisher in (*self._publishers.values(), self._caller):
            publisher.lose(lost)
        self._on_answers_lost(lost)
        self.on_lost(lost)

    def _on_refused(self, lost: Lost) -> None:
        """The broker has closed one of the channels."""
        for publisher in (*self._publishers.values(), self._caller):
            if publisher.loses():
                publisher.lose(lost)
        if self._channel is not None and not self._connection.has(self._channel):
            self._on_answers_lost(lost)
        self.on_lost(lost)

    def _on_answers_lost(self, lost: Lost) -> None:
        self._channel = None
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(lost)

    def end(self) -> None:
        """Stop reading the connection, and opening it, for good."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        self._link.end()

    def close(self, *, politely: bool = True) -> None:
        """Close the connection, when the loop does not run any more."""
        self.end()
        if politely:
            self._connection.close()
        else:
            self._connection.drop()

    # Publishing.

    def publish(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        properties: Mapping[str, Any],
        *,
        mandatory: bool = True,
        delay: float = 0,
        compress: bool = False,
    ) -> asyncio.Future[None]:
        """Publish one message; see ``IOLoopController.publish``.

        :raises TypeError, ValueError: the body or a property cannot be encoded.
        """
        routing_key, properties = self.partitions.route(exchange, routing_key, properties)
        payload, full = compose(body, properties, compress)
        publisher = self._publisher(exchange)
        if delay:
            from clihelper.amqp.delays import check

            milliseconds = check(exchange, routing_key, delay, properties)
            return self._event_loop.create_task(self._publish_delayed(
                publisher, payload, routing_key, full, milliseconds, mandatory))
        if self._link.is_open:
            return publisher.submit(payload, exchange, routing_key, full, mandatory)
        return self._event_loop.create_task(
            self._publish_later(publisher, payload, exchange, routing_key, full, mandatory))

    async def _publish_later(
        self,
        publisher: AsyncPublisher,
        payload: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any],
        mandatory: bool,
    ) -> None:
        with counting_failures(self._connection):
            await self.open()
        await publisher.submit(payload, exchange, routing_key, properties, mandatory)

    async def _publish_delayed(
        self,
        publisher: AsyncPublisher,
        payload: bytes,
        queue: str,
        properties: dict[str, Any],
        milliseconds: int,
        mandatory: bool,
    ) -> None:
        if self._delays is None:
            from clihelper.amqp.async_delays import AsyncDelayQueues

            self._delays = AsyncDelayQueues(self.declares, self._connect)
        with counting_failures(self._connection):
            await self.open()
            waiting = await self._delays.prepare(queue, milliseconds, mandatory)
        try:
            await self._publish_later(publisher, payload, '', waiting, properties, True)
        except PublishError as error:
            if error.unroutable:
                self._delays.reset()  # somebody has deleted the queue in which messages wait
            raise

    def _publisher(self, exchange: str) -> AsyncPublisher:
        name = exchange if exchange in self._publishers or len(self._publishers) < CHANNELS else ''
        found = self._publishers.get(name)
        if found is None:
            found = self._publishers[name] = AsyncPublisher(self._connection, self._event_loop)
        return found

    def pipeline(self) -> AsyncPipeline:
        """Messages that are confirmed together; see ``IOLoopController.pipeline``."""
        return AsyncPipeline(self)

    # Asking.

    async def call(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        timeout: float,
        properties: Mapping[str, Any],
    ) -> Any:
        """Publish a request and await its reply; see ``IOLoopController.call``."""
        routing_key, properties = self.partitions.route(exchange, routing_key, properties)
        payload, full = compose(body, properties)
        with counting_failures(self._connection):
            await self.open()
        name = str(properties.get('correlation_id') or f'call {next(self._numbers)}')
        self._caller.prepare()
        full.update(reply_to=self._reply_to, correlation_id=name)
        reply = self._replies[name] = self._event_loop.create_future()
        try:
            await self._caller.submit(payload, exchange, routing_key, full)
            async with asyncio.timeout(timeout):
                return (await reply).body
        except TimeoutError:
            where = f'exchange {exchange!r}, routing key {routing_key!r}'
            raise NoReply(f'{where}: no answer', False) from None
        finally:
            del self._replies[name]

    def _consume_replies(self, channel: Any) -> None:
        connection = self._connection
        with connection.guard():
            self._reply_to = connection.transport.consume_replies(
                channel, connection.consumer_tag(), self._on_reply, waits=False)

    def _on_reply(self, delivery: Any) -> None:
        max_body = self._connection.max_body
        message = Fetched(delivery, self._reply_to, lambda *_: None, max_body)
        reply = self._replies.get(str(message.correlation_id))
        # A reply that arrives after its call has timed out is discarded.
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def queue_depth(self, queue: str) -> int:
        """The number of messages ready in *queue*; see ``IOLoopController.queue_depth``."""
        depth = 0
        for each in self.partitions.names(queue):
            depth += int(await self._ask(each, lambda transport: transport.ask_depth))
        return depth

    async def get(self, queue: str) -> Message | None:
        """One message from *queue*, or None if it is empty; see ``IOLoopController.get``."""
        delivery = await self._ask(queue, lambda transport: transport.ask_message)
        if delivery is None:
            return None
        return Fetched(delivery, queue, self._settle, self._connection.max_body)

    def _settle(self, message: Message, outcome: Outcome) -> None:
        if message.outcome is not None:
            return
        message.outcome = outcome
        try:
            with self._connection.guard():
                settle_at_once(message.delivery, outcome)
        except Lost as lost:
            LOGGER.warning('a message from %s was not %s: %s; it will be delivered again',
                           message, outcome.value, lost)  # fmt: skip

    async def _ask(self, queue: str, method: Callable[[Any], Callable[..., None]]) -> Any:
        """Ask for something that is answered at once.

        :raises LookupError: there is no such queue, or the name is too long for one.
        :raises ConnectionError: the broker cannot be reached, or refuses.
        """
        if not is_short_string(queue):
            raise LookupError(f'there is no queue {queue[:LONGEST_NAME]!r}...')
        async with self._asking:
            try:
                await self.open()
                with self._connection.guard():
                    transport = self._connection.transport
                    if self._channel is None or not self._connection.has(self._channel):
                        self._channel = transport.open_channel()
                    answer = self._asked = self._event_loop.create_future()
                    method(transport)(self._channel, queue, partial(_answer, answer))
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    return await answer
            except PublishError as error:
                raise ConnectionError(str(error)) from error
            except TimeoutError as error:
                self._channel = None
                raise ConnectionError(f'queue {queue!r}: no answer') from error
            except Lost as lost:
                self._channel = None
                if lost.__cause__ is not None and DeclarationRefused('', lost.__cause__).missing:
                    raise LookupError(f'there is no queue {queue!r}') from lost
                raise ConnectionError(f'queue {queue!r}: {lost}') from lost


def _answer(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


class AsyncPipeline:
    """Publishes many messages, and awaits their confirmations at the end of the ``async with``.

    At most 1,000 messages are in flight without confirmation; then the next one waits.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._unconfirmed: list[Awaitable[None]] = []

    async def publish(
        self,
        body: Any,
        exchange: str = '',
        routing_key: str = '',
        *,
        mandatory: bool = True,
        delay: float = 0,
        compress: bool = False,
        **properties: Unpack[Properties],
    ) -> None:
        """Publish a message, and wait only if too many are in flight.

        The arguments are those of ``IOLoopController.publish``.
        """
        if len(self._unconfirmed) >= WINDOW:
            await self.flush()
        self._unconfirmed.append(self._client.publish(
            body, exchange, routing_key, properties,
            mandatory=mandatory, delay=delay, compress=compress,
        ))  # fmt: skip

    async def flush(self) -> None:
        """Wait until the broker has confirmed everything published so far.

        :raises clihelper.PublishError: it has not; ``failed`` says which messages, and why.
        """
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        results = await asyncio.gather(*unconfirmed, return_exceptions=True)
        failed: list[tuple[int, PublishError]] = []
        for number, error in enumerate(results):
            if isinstance(error, PublishError):
                failed.append((number, error))
            elif error is not None:
                raise error
        if not failed:
            return
        more = f' (and {len(failed) - 1} more)' if len(failed) > 1 else ''
        raise PublishError(
            f'{failed[0][1]}{more}',
            unroutable=all(error.unroutable for _, error in failed),
            unknown=any(error.unknown for _, error in failed),
            failed=[(number, str(error)) for number, error in failed],
        )

    async def __aenter__(self) -> AsyncPipeline:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if error is None:
            await self.flush()
