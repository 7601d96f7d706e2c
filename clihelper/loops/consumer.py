"""The AMQP loop: connect, declare, consume, handle, settle; start again if the broker is lost.

::

    connecting --> declaring --> consuming --> stopped
        ^                            |
        '---- lost (any error) ------'
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial

from clihelper.amqp import exception_text, risks
from clihelper.amqp.client import publishing_connection
from clihelper.amqp.connection import (
    CONNECT_TIMEOUT,
    Connection,
    Lost,
    Unreachable,
)
from clihelper.amqp.forwarder import Forwarder
from clihelper.amqp.message import Message
from clihelper.amqp.processing import Processor
from clihelper.amqp.retries import steps
from clihelper.amqp.settlement import Outcome
from clihelper.amqp.streams import Positions
from clihelper.amqp.topology import Topology
from clihelper.amqp.waiting import POLL, BrokerWait
from clihelper.backoff import when
from clihelper.errors import Error, UnavailableError
from clihelper.loops import Loop, wait_until
from clihelper.loops.interval import Ticks
from clihelper.process.signals import Interrupted, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.amqp.client import Client
    from clihelper.config import Config
    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper.amqp')

ACK = Outcome.ACK  # needed for each message; looking a member up in its class is slow

LAST_ARRIVAL = 0.05
"""seconds within which the next prefetched message arrives if there is one"""

REFUSED_DELAY = 30.0
"""seconds between attempts if the broker refuses what it accepted before"""


class ConsumerLoop(Loop):
    """Consumes every queue of the ``AMQP`` section."""

    polls_client = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._section = section = host.config.amqp
        self._topology = Topology(section, *host.own_topology)
        self._deliveries: deque[Message] = deque()
        self._positions = Positions()
        self._returned: list[Message] = []  # redelivered messages, in the order of arrival
        self._ticks: Ticks | None = None
        self._watchdog_due = 0.0
        self._was_consuming = False
        self._next_attempt = 0.0
        self._channel: Any = None
        connection = Connection.of(section, host.appname)
        connection.wait_for = BrokerWait(host.signals, lambda: host.is_running).wait
        self.connect_by(connection, publishing_connection(host, polled=True))

    def connect_by(self, connection: Connection, copies: Connection) -> None:
        """Consume on one connection, and publish copies of messages on another."""
        exception_text.preload()
        self._connection = connection
        self._forwarder = Forwarder(copies)
        self._processor = Processor(self._host, connection, self._topology, self._forwarder)
        self._settle = self._processor.settle_as_told

    @property
    def queues(self) -> list[str]:
        """The labels of the queues to consume."""
        return self._topology.queues

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
                        self._subscribe()
                    self._begin()
                    self._consume()
            except Interrupted:
                # In the middle of declaring: the connection is unusable, and nothing is lost.
                self._drop()
                self._host.serve_signals()
            except Lost as lost:
                self._drop()
                self._wait_for_broker(f'lost the broker: {lost}')

    def close(self) -> None:
        """Close the connections: prefetched messages return to their queues."""
        self._forget_deliveries()
        self._processor.end_message()
        try:
            self._forwarder.finish()
            self._processor.flush()
        except Lost as lost:
            LOGGER.debug('not acknowledged: %s', lost)
        answered = self._connection.close()
        self._forwarder.close(politely=answered)
        if self._client is not None:
            self._client.close(politely=answered)

    def _drop(self) -> None:
        # Messages of the old connection can no longer be settled: they will be redelivered.
        for queue, offset in self._positions.lost(self._processor.lowest_unsettled):
            self._topology.read_on(queue, offset)
        self._forget_deliveries()
        self._processor.reset()
        self._connection.drop()

    def _forget_deliveries(self) -> None:
        self._deliveries.clear()
        self._returned.clear()

    def _connect(self) -> bool:
        """Connect, however long it takes; False if a signal ended the attempts."""
        while self.goes_on() and not self._connection.is_open:
            if not self._was_consuming:
                self._host.notifier.extend_timeout(2 * CONNECT_TIMEOUT)
            try:
                with self._host.signals.interrupting():
                    self._connection.open()
            except Interrupted:
                self._host.serve_signals()
            except Error as error:
                if not self._was_consuming:
                    raise
                self._wait_for_broker(str(error), REFUSED_DELAY)
            except Unreachable as error:
                waits = self._was_consuming or self._section['wait_for_broker']
                if not (waits or self._connection.has_untried):
                    raise UnavailableError(f'AMQP.url: {error}') from error
                self._wait_for_broker(f'no broker: {error}')
        return self.goes_on()

    def _wait_for_broker(self, why: str, delay: float | None = None) -> None:
        """Wait before the next attempt if every address has been tried; a signal ends the wait."""
        if delay is None:
            delay = self._connection.delay()
        LOGGER.warning('%s; next attempt %s', why, when(delay))
        host = self._host
        host.notifier.status(why)
        if not self._was_consuming:
            host.notifier.extend_timeout(delay + 2 * CONNECT_TIMEOUT)
        self._next_attempt = time.monotonic() + delay
        wait_until(host, self.goes_on, self._next_attempt)

    def _subscribe(self) -> None:
        """Declare the topology and consume each of its queues."""
        channel = self._connection.channel()
        transport = self._connection.transport
        delays = steps(self._section['retry'])
        with self._connection.guard():
            self._channel = channel = self._topology.establish(
                channel, self._connection.refusals, delays, again=self._was_consuming
            )
            channel.basic_qos(0, self._section['prefetch'], False)
            self._processor.begin(
                transport.acknowledger(channel, self._section['prefetch'])
            )
            for queue, name, arguments in self._topology.consumers:
                is_stream = self._topology.is_stream(queue)
                on_arrival = self._on_stream_delivery if is_stream else self._on_delivery
                on_delivery = partial(on_arrival, queue)
                transport.consume(
                    channel, name, self._connection.consumer_tag(), on_delivery, arguments)

    def _begin(self) -> None:
        """The broker has confirmed every consumer: ready."""
        if not self._topology.queues:
            LOGGER.warning('AMQP.queues names no queue: there is nothing to consume')
        if not self._was_consuming and self._connection.expires:
            for line in risks.warnings(self._topology):
                LOGGER.warning('%s', line)
        self._connection.serves()
        self._watchdog_due = 0.0
        if self._ticks is not None:
            self._ticks.resume()
        elif self._host.has_process:
            self._ticks = Ticks(self._host)
        self._was_consuming = True
        LOGGER.info(
            'consuming %s from %s', ', '.join(self._topology.queues), self._connection.shown()
        )
        self._host.notifier.status('consuming')
        self._host.ready()

    def _consume(self) -> None:
        """Handle messages and do the periodic work until a stop, or until the broker is lost."""
        processor = self._processor
        while self.goes_on():
            if self._ticks is not None and self._ticks.due <= time.monotonic():
                self._process(self._ticks)
            elif processor.due <= time.monotonic():
                self._host.active()
                processor.do_next()
            elif self._deliveries:
                if self._returned:
                    self._renew()
                self._handle_what_is_here()
            else:
                processor.flush()
                processor.end_message()
                if not self._connection.drain():
                    self._wait()
            self._keep_alive()
            if self._host.signals.arrived:
                self._host.serve_signals()

    def _handle_what_is_here(self) -> None:
        """Handle messages one after another until there is something else to do."""
        host, deliveries, due = self._host, self._deliveries, self._due
        handle = self._processor.handle
        host.active()
        while deliveries:
            message = deliveries.popleft()
            handle(message)
            if host.signals.arrived or self._stopping or not host.is_running:
                return
            if time.monotonic() >= due or message.outcome is not ACK:
                return  # a message that failed may be due again before anything else

    def _renew(self) -> None:
        """Republish messages that the broker may drop the next time they are returned."""
        near = self._processor.near_limit(self._returned)
        self._returned.clear()
        if not near:
            return
        # All prefetched messages were returned equally often; none should wait for a handler.
        until = time.monotonic() + LAST_ARRIVAL
        while len(self._deliveries) < self._section['prefetch'] and time.monotonic() < until:
            if not self._connection.drain():
                socket = self._connection.fileno()
                if socket is None or not wait_readable((socket,), LAST_ARRIVAL):
                    break
        near += self._processor.near_limit(self._returned)
        self._returned.clear()
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
        ready = wait_readable((*descriptors, *publishing), min(limits))
        for descriptor in publishing.keys() & set(ready):
            publishing[descriptor].poll()
        if signals in ready:
            host.serve_signals()

    def _process(self, ticks: Ticks) -> None:
        self._processor.end_message()
        self._host.active()
        self._host.process()
        ticks.done()
        self._host.idle()

    def _on_delivery(self, queue: str, delivery: Any) -> None:
        # A delivery may arrive while a handler declares something: it has to wait.
        message = Message(delivery, queue, self._settle)
        self._deliveries.append(message)
        if message.redelivered:
            self._returned.append(message)

    def _on_stream_delivery(self, queue: str, delivery: Any) -> None:
        self._on_delivery(queue, delivery)
        self._positions.note(self._deliveries[-1], self._processor.lowest_unsettled)

    def deliver(self, queue: str, delivery: Any) -> Message:
        """Handle one delivery and settle it; for a loop that is not running."""
        self._on_delivery(queue, delivery)
        self._returned.clear()
        message = self._deliveries.popleft()
        self._processor.handle(message)
        return message

    def description(self) -> str:
        """The broker, the unsettled messages, and the time of the next attempt to connect."""
        lines = [f'broker {self._connection.description()}',
                 self._processor.description(len(self._deliveries))]
        if not self._connection.is_open:
            left = max(self._next_attempt - time.monotonic(), 0.0)
            lines.append(f'next attempt {when(left)}')
        return '\n'.join(lines)

    # For the controller.

    def recover(self) -> None:
        """Have all unsettled messages redelivered; see ``ConsumerController.recover``."""
        if not self._connection.is_open:
            return
        self._forget_deliveries()
        self._processor.forget()
        try:
            with self._connection.guard():
                self._connection.transport.recover(self._channel)
        except Lost as lost:
            LOGGER.warning('not recovered: %s; all messages will be delivered again', lost)
