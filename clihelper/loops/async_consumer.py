"""The AMQP loop on Tornado's IOLoop: many messages at a time, each handled by a task.

::

    connecting, declaring (in a thread) --> consuming --> stopped
        ^                                       |
        '------------ lost (any error) ---------'
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from clihelper.amqp import context, exception_text
from clihelper.amqp.async_client import AsyncClient, AsyncForwarder
from clihelper.amqp.client import publishing_connection
from clihelper.amqp.concurrency import ConcurrentProcessor
from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.event_loop import EventLoopConnection
from clihelper.amqp.ordering import OrderedConcurrentProcessor
from clihelper.amqp.publisher import PublishError
from clihelper.amqp.retries import AsyncRetryQueues, RetryQueues
from clihelper.amqp.subscription import Subscription
from clihelper.errors import Error, counted
from clihelper.loops import processor_class
from clihelper.loops.ioloop import TornadoLoop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.amqp.processing import Reply
    from clihelper.config import Config
    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper.amqp')

REOPEN = 1.0
"""seconds between attempts to open the connection for publishing, besides those to publish"""


class AsyncConsumerLoop(TornadoLoop):
    """Consumes every queue of the ``AMQP`` section, and runs the IOLoop."""

    consumes = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        section = host.config.amqp
        self.connect_by(
            Connection.of(section, host.appname),
            publishing_connection(host, polled=True, waits=False),
        )
        self._timeout: float | None = section['handler_timeout']
        self._consuming: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[Lost] | None = None
        self._scheduled = False
        self._due: asyncio.TimerHandle | None = None
        self._reopening: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._ended = False

    def connect_by(
        self,
        connection: Connection,
        copies: Connection,
        retry_queues: Callable[..., RetryQueues] | None = None,
    ) -> None:
        """Consume on one connection, and publish on another.

        :param retry_queues: makes what knows the queues in which messages wait for their next
            run; by default, one that declares them in a thread.
        """
        self._forwarder = AsyncForwarder(copies)
        section = self._host.config.amqp
        connect = partial(publishing_connection, self._host, waits=False)
        retry_queues = retry_queues or partial(
            AsyncRetryQueues, event_loop=self._event_loop, connect=connect
        )
        kind, most = ConcurrentProcessor, section['concurrency'] or section['prefetch']
        if self._host.handles_batches:
            from clihelper.amqp.batch_processing import BatchProcessor, batches_at_once

            kind, most = BatchProcessor, batches_at_once(section)
        elif self._host.order_key is not None:
            kind = OrderedConcurrentProcessor
        make_processor = partial(
            processor_class(kind, section), most=most, retry_queues=retry_queues)
        self._subscription = Subscription(
            self._host, connection, self._forwarder, make_processor)
        self._processor: ConcurrentProcessor = self._subscription.processor  # type: ignore[assignment]
        context.begin(self._host.worker)
        self._link = EventLoopConnection(
            connection, self._event_loop, self._schedule, self._on_lost)
        if self._client is None:
            client = self.client = AsyncClient(copies, self._event_loop, connect)
            client.on_arrival = self._on_confirmations
            client.on_lost = self._on_publishing_lost

    @property
    def queues(self) -> list[str]:
        """The labels of the queues to consume."""
        return self._subscription.queues

    @classmethod
    def preload(cls, config: Config) -> None:
        """Import what connections and settling messages need; see ``ConsumerLoop.preload``."""
        import json  # noqa: F401

        exception_text.preload()
        Connection.of(config.amqp, '')

    # Consuming.

    def _begin(self) -> None:
        self._host.watchers.add(self._schedule)
        if self._timeout is not None:
            self._note_turns(self._timeout)
        self._consuming = self._event_loop.create_task(self._consume())
        self._consuming.add_done_callback(self._end_consuming)

    def _end_consuming(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _consume(self) -> None:
        """Consume until a stop, whatever happens to the broker."""
        subscription = self._subscription
        while self.goes_on():
            self._lost = self._event_loop.create_future()
            subscription.announce_attempt()
            try:
                # Both at once, so that no message that fails has to wait for the second.
                publishing = self._event_loop.create_task(self._open_for_publishing())
                await self._link.open(subscription.subscribe)
                await publishing
                subscription.begin()
                self._host.ready()
                self._schedule()
                raise await self._lost
            except (Lost, Unreachable, Error) as error:
                self._link.stop_reading()
                subscription.drop()
                await asyncio.sleep(subscription.report_outage(error))

    def _on_lost(self, lost: Lost) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(lost)

    def _schedule(self) -> None:
        """Have :meth:`_go_on` called in the next turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._event_loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Do what is due, start handlers, and send acknowledgements."""
        self._scheduled = False
        if not self._link.is_open:
            return
        processor = self._processor
        gates = processor.gates
        try:
            if gates.changes[0] != gates.seen:
                gates.look()
            while processor.due <= time.monotonic():
                processor.do_next()
            if self.goes_on():
                self._start_handlers()
            processor.note_in_hand()
            processor.flush()
        except Lost as lost:
            self._link.lose(lost)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        due = min(self._processor.due, self._processor.start_due)
        if due < float('inf'):
            # asyncio's loops use time.monotonic as their clock, too.
            self._due = self._event_loop.call_at(due, self._schedule)

    def _start_handlers(self) -> None:
        processor, deliveries = self._processor, self._subscription.deliveries
        returned = self._subscription.returned
        if returned:
            near = processor.near_limit(returned)
            returned.clear()
            if near:
                processor.renew(deliveries, near)
        while (message := processor.next_message(deliveries)) is not None:
            task = self._event_loop.create_task(processor.run(message, self._end_message))
            processor.start(message, task)
            if self._timeout is not None:
                self._event_loop.call_later(self._timeout, self._time_out, message, task)
                self._note_turn()

    def _time_out(self, message: Any, task: asyncio.Task[None]) -> None:
        """Cancel a handler that has taken too long, unless it has ended."""
        if not task.done():
            self._processor.timed_out.add(message)
            task.cancel()

    def _note_turn(self) -> None:
        """Note that no handler blocks the loop, for a supervisor that would end this process."""
        if self._host.slot is not None:
            self._host.slot.set_since(time.monotonic() if self._processor.in_hand else 0.0)

    def _note_turns(self, timeout: float) -> None:
        self._note_turn()
        self._progress = self._event_loop.call_later(timeout / 4, self._note_turns, timeout)

    def _end_message(
        self, message: Any, error: BaseException | None, reply: Reply | None
    ) -> None:
        if self._ended:
            return  # what is not settled by now goes back to its queue
        try:
            self._processor.end(message, error, reply)
        except Lost as lost:
            self._link.lose(lost)
        if not self._scheduled:
            self._schedule()

    # Publishing.

    async def _open_for_publishing(self) -> None:
        """Open the connection for copies, or try again later."""
        try:
            await self.client.open()
        except PublishError as error:
            LOGGER.debug('no connection for publishing: %s', error)
            self._reopen_later()
        self._schedule()

    def _reopen_later(self) -> None:
        if self._reopening is None and self.goes_on():
            self._reopening = self._event_loop.call_later(REOPEN, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        self._opening = self._event_loop.create_task(self._open_for_publishing())

    def _on_confirmations(self) -> None:
        self._settle_copies(self._forwarder.poll)

    def _on_publishing_lost(self, lost: Lost) -> None:
        self._settle_copies(lambda: self._forwarder.lose(lost))
        if not self.client.is_open:
            self._reopen_later()

    def _settle_copies(self, report: Callable[[], None]) -> None:
        """Settle the messages of copies whose fate is known."""
        try:
            report()
        except Lost as lost:
            self._link.lose(lost)
        self._schedule()

    # The end.

    def _begin_finishing(self) -> set[asyncio.Task[None]]:
        if self._consuming is not None:
            self._consuming.cancel()
        messages = self._event_loop.create_task(self._finish_messages())
        return {messages, *super()._begin_finishing()}

    async def _finish_messages(self) -> None:
        """Wait for the handlers that run, and settle their messages."""
        while self._processor.in_hand:
            await asyncio.wait(list(self._processor.in_hand.values()))
        await self._forwarder.wait_a_moment()
        self._go_on()

    def _in_progress(self) -> list[str]:
        count = len(self._processor.in_hand)
        return [*super()._in_progress(), *([counted(count, 'message')] if count else [])]

    def _cut_work(self) -> None:
        self._ended = True
        for task in self._processor.in_hand.values():
            task.cancel()
        super()._cut_work()

    def close(self) -> None:
        """Cancel what is left, and close the connections: unsettled messages go back."""
        self._ended = True
        self._host.watchers.discard(self._schedule)
        self._link.end()
        for timer in (self._due, self._reopening, self._progress):
            if timer is not None:
                timer.cancel()
        self.client.end()
        self._subscription.close()
        super().close()

    def deliver(self, queue: str, deliveries: Sequence[Any]) -> list[Message]:
        """Handle deliveries and settle them; for a loop that is not running."""
        messages = [self._subscription.deliver(queue, each) for each in deliveries]
        for unit in self._processor.units(messages):
            self._processor.start(unit)
            self._event_loop.run_until_complete(self._processor.run(unit, self._end_message))
        self._processor.flush()
        return messages

    def description(self) -> str:
        lines = (self._subscription.description(), super().description())
        return '\n'.join(filter(None, lines))

    def recover(self) -> None:
        """Have all unsettled messages redelivered, over a new connection."""
        self._link.lose(Lost('the program asked for all unsettled messages'))
