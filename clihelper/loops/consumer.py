"""The AMQP loop: connect, declare, consume, handle, settle; start again if the broker is lost.

::

    connecting --> declaring --> consuming --> stopped
        ^                            |
        '---- lost (any error) ------'
"""

from __future__ import annotations

import logging
import time

from clihelper.amqp import context, exception_text
from clihelper.amqp.client import publishing_connection
from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.forwarder import Forwarder
from clihelper.amqp.ordering import OrderedProcessor
from clihelper.amqp.processing import Processor
from clihelper.amqp.settlement import Outcome
from clihelper.amqp.subscription import Subscription
from clihelper.amqp.waiting import POLL, BrokerWait
from clihelper.errors import Error
from clihelper.loops import Loop, processor_class, wait_until
from clihelper.loops.interval import Ticks
from clihelper.process.signals import Interrupted, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from clihelper.amqp.client import Client
    from clihelper.amqp.message import Message
    from clihelper.amqp.processing import ProcessorFactory
    from clihelper.config import Config
    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper.amqp')

ACK = Outcome.ACK  # needed for each message; looking a member up in its class is slow

LAST_ARRIVAL = 0.05
"""seconds within which the next prefetched message arrives if there is one"""


class ConsumerLoop(Loop):
    """Consumes every queue of the ``AMQP`` section."""

    polls_client = consumes = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._section = host.config.amqp
        self._ticks: Ticks | None = None
        self._watchdog_due = 0.0
        self._wakeups: tuple[int, ...] = ()
        connection = Connection.of(self._section, host.appname)
        connection.wait_for = BrokerWait(host.signals, lambda: host.is_running).wait
        self.connect_by(connection, publishing_connection(host, polled=True))

    def connect_by(self, connection: Connection, copies: Connection) -> None:
        """Consume on one connection, and publish copies of messages on another."""
        self._connection = connection
        self._forwarder = Forwarder(copies)
        self._subscription = Subscription(
            self._host, connection, self._forwarder, self.make_processor())
        self._processor = processor = self._subscription.processor
        self._gates = processor.gates
        context.begin(self._host.worker, lambda: processor.current)
        self._deliveries = self._subscription.deliveries

    def make_processor(self) -> ProcessorFactory:
        """Return what makes the processor of messages."""
        kind = Processor if self._host.order_key is None else OrderedProcessor
        return processor_class(kind, self._section)  # type: ignore[no-any-return]

    @property
    def queues(self) -> list[str]:
        """The labels of the queues to consume."""
        return self._subscription.queues

    @classmethod
    def preload(cls, config: Config) -> None:
        """Import what connections and settling messages need.

        This includes what is needed only after a failure: a process that has run out of
        descriptors cannot import it then.
        """
        import json  # noqa: F401

        exception_text.preload()
        Connection.of(config.amqp, '')

    # The loop itself.

    def run(self) -> None:
        """Consume until :meth:`stop`, whatever happens to the broker."""
        while self.goes_on():
            try:
                if self._connect():
                    with self._host.signals.interrupting():
                        self._subscription.subscribe()
                    self._begin()
                    self._consume()
            except Interrupted:
                # In the middle of declaring: the connection is unusable, and nothing is lost.
                self._subscription.drop()
                self._host.serve_signals()
            except Lost as lost:
                self._subscription.drop()
                self._wait_for_broker(lost)

    def close(self) -> None:
        """Close the connections: prefetched messages return to their queues."""
        answered = self._subscription.close()
        if self._client is not None:
            self._client.close(politely=answered)

    def _connect(self) -> bool:
        """Connect, however long it takes; False if a signal ended the attempts."""
        while self.goes_on() and not self._connection.is_open:
            self._subscription.announce_attempt()
            try:
                with self._host.signals.interrupting():
                    self._connection.open()
            except Interrupted:
                self._host.serve_signals()
            except (Error, Unreachable) as error:
                self._wait_for_broker(error)
        return self.goes_on()

    def _wait_for_broker(self, error: Exception) -> None:
        """Wait before the next attempt if every address has been tried; a signal ends the wait."""
        delay = self._subscription.report_outage(error)
        wait_until(self._host, self.goes_on, time.monotonic() + delay)

    def _begin(self) -> None:
        """The broker has confirmed every consumer: ready."""
        self._subscription.begin()
        self._watchdog_due = 0.0
        if self._ticks is not None:
            self._ticks.resume()
        elif self._host.has_process:
            self._ticks = Ticks(self._host)
        self._host.ready()

    def has_work(self) -> bool:
        """Whether to go on consuming, or with what is in hand."""
        return self.goes_on()

    def _consume(self) -> None:
        """Handle messages and do the periodic work until a stop, or until the broker is lost."""
        while self.has_work():
            self._do_next()
            self._keep_alive()
            if self._host.signals.arrived:
                self._host.serve_signals()

    def _do_next(self) -> None:
        """Do the next thing that is due, or wait for it."""
        processor, gates = self._processor, self._gates
        if gates.changes[0] != gates.seen:
            gates.look()
        if self._ticks is not None and self._ticks.due <= time.monotonic():
            self._process(self._ticks)
        elif processor.due <= time.monotonic():
            self._host.active()
            processor.do_next()
        elif self._has_message():
            if self._subscription.returned:
                self._renew()
            self._handle_what_is_here()
        else:
            self._rest()

    def _rest(self) -> None:
        """Read what has arrived, or wait, as nothing is to be done."""
        self._processor.flush()
        self._processor.end_message()
        if not self._connection.drain():
            self._wait()

    def _has_message(self) -> bool:
        """Whether there is a message to handle."""
        return bool(self._deliveries)

    def _handle_what_is_here(self) -> None:
        """Handle messages one after another until there is something else to do."""
        host, deliveries, due = self._host, self._deliveries, self._due
        processor, gates = self._processor, self._gates
        handle, changes = processor.handle, gates.changes
        host.active()
        while deliveries:
            message = deliveries.popleft()
            if gates.is_watching or changes[0] != gates.seen:
                if gates.admit(message):
                    processor.handle_admitted(message)
            else:
                handle(message)
            if host.signals.arrived or self._stopping or not host.is_running:
                return
            if processor.ended >= due or message.outcome is not ACK:
                return  # a message that failed may be due again before anything else

    def _renew(self) -> None:
        """Republish messages that the broker may drop the next time they are returned."""
        returned = self._subscription.returned
        near = self._processor.near_limit(returned)
        returned.clear()
        if not near:
            return
        # All prefetched messages were returned equally often; none should wait for a handler.
        until = time.monotonic() + LAST_ARRIVAL
        while len(self._deliveries) < self._subscription.prefetch and time.monotonic() < until:
            if not self._connection.drain():
                socket = self._connection.fileno()
                if socket is None or not wait_readable((socket,), LAST_ARRIVAL):
                    break
        near += self._processor.near_limit(returned)
        returned.clear()
        self._processor.renew(self._deliveries, near)

    @property
    def _due(self) -> float:
        """When something other than a message is due."""
        due = min(self._watchdog_due, self._processor.due)
        return due if self._ticks is None else min(due, self._ticks.due)

    def _keep_alive(self) -> None:
        """Notify the watchdog if that is due."""
        now = time.monotonic()
        if now >= self._watchdog_due:
            watchdog_delay = self._host.heartbeat()
            self._watchdog_due = now + (float('inf') if watchdog_delay is None else watchdog_delay)

    def _wait(self) -> None:
        """Wait for a message, for a signal, or until something is due."""
        host = self._host
        host.sleeping()
        limits = [max(self._due - time.monotonic(), 0.0)]
        signals = host.signals.fileno()
        descriptors = [signals]
        socket = self._connection.fileno()
        if socket is None:
            limits.append(POLL)
        else:
            descriptors.append(socket)
        publishing: dict[int, Client | Forwarder] = {}
        for each in (self._client, self._forwarder):
            if each is not None and (descriptor := each.fileno()) is not None:
                publishing[descriptor] = each
        ready = wait_readable((*descriptors, *publishing, *self._wakeups), min(limits))
        for descriptor in publishing.keys() & set(ready):
            publishing[descriptor].poll()
        if signals in ready:
            host.serve_signals()

    def _process(self, ticks: Ticks) -> None:
        self._processor.end_message()
        self._host.active()
        ticks.begin()
        self._host.process()
        ticks.done()
        self._host.idle()

    def deliver(self, queue: str, deliveries: Sequence[Any]) -> list[Message]:
        """Handle deliveries and settle them; for a loop that is not running."""
        messages = [self._subscription.deliver(queue, each) for each in deliveries]
        for unit in self._processor.units(messages):
            self._processor.handle(unit)
        return messages

    def description(self) -> str:
        lines = (self._subscription.description(), super().description())
        return '\n'.join(filter(None, lines))

    # For the controller.

    def recover(self) -> None:
        """Have all unsettled messages redelivered; see ``ConsumerController.recover``."""
        self._subscription.recover()
