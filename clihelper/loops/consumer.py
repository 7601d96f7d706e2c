"""The AMQP loop: connect, declare, consume, handle, settle; and again when the broker is lost.

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

from clihelper.amqp import settlement
from clihelper.amqp.acknowledgement import Acknowledger
from clihelper.amqp.connection import (
    CONNECT_TIMEOUT,
    POLL,
    Backoff,
    Connection,
    Lost,
    Unreachable,
)
from clihelper.amqp.message import Message, decode
from clihelper.amqp.publisher import Publisher, PublishError
from clihelper.amqp.settlement import Outcome
from clihelper.amqp.topology import Topology
from clihelper.errors import StopNow, UnavailableError
from clihelper.loops import Loop
from clihelper.loops.interval import Ticks
from clihelper.schema import RETRY
from clihelper.signals import Interrupted, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper')

STABLE = 5.0
"""seconds of consuming after which a lost broker is no flapping one: the delays begin anew"""

REFUSED_DELAY = 30.0
"""seconds between attempts at a broker that refuses what it took before"""


class ConsumerLoop(Loop):
    """Consumes every queue of the ``AMQP`` section."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._section = section = host.config.amqp
        url = section['url']
        urls = [url] if isinstance(url, str) else url
        self._connection = Connection(urls, section['heartbeat'], host.appname)
        self._publisher = Publisher(self._connection)
        self._topology = Topology(section, *host.own_topology)
        self._backoff = Backoff()
        self._deliveries: deque[Message] = deque()
        self._ticks: Ticks | None = None
        self._pulse = 0.0
        self._acknowledger: Acknowledger | None = None
        self._was_consuming = False
        self._consuming_since = float('-inf')
        if section['retry'] != RETRY.defaults():
            LOGGER.warning('AMQP.retry has no effect yet: a message that fails is a dead letter')

    # The way round.

    def run(self) -> None:
        """Consume until :meth:`stop`, whatever becomes of the broker meanwhile."""
        while self._goes_on():
            try:
                if self._connect():
                    with self._host.signals.interrupting():
                        self._subscribe()
                    self._begin()
                    self._consume()
            except Interrupted:
                # In the midst of declaring: the connection is of no use, and nothing is lost.
                self._drop()
                self._host.serve_signals()
            except Lost as lost:
                self._drop()
                if time.monotonic() - self._consuming_since > STABLE:
                    self._backoff.reset()
                self._wait_for_broker(f'lost the broker: {lost}')

    def close(self) -> None:
        """Close the connection: what was prefetched goes back to its queue."""
        self._deliveries.clear()
        try:
            self._flush()
        except Lost as lost:
            LOGGER.debug('not acknowledged: %s', lost)
        self._connection.close()

    def _goes_on(self) -> bool:
        return self._host.is_running and not self._stopping

    def _drop(self) -> None:
        # What came over the old connection can be settled no more: it will be delivered again.
        self._deliveries.clear()
        self._acknowledger = None
        self._publisher.reset()
        self._connection.drop()

    def _connect(self) -> bool:
        """Connect, however long it takes; False if a signal ended it."""
        while self._goes_on() and not self._connection.is_open:
            try:
                with self._host.signals.interrupting():
                    self._connection.open()
            except Interrupted:
                self._host.serve_signals()
            except UnavailableError as error:
                if not self._was_consuming:
                    raise
                self._wait_for_broker(str(error), REFUSED_DELAY)
            except Unreachable as error:
                if not (self._was_consuming or self._section['wait_for_broker']):
                    raise UnavailableError(f'AMQP.url: {error}') from error
                self._wait_for_broker(f'no broker: {error}')
        return self._goes_on()

    def _wait_for_broker(self, why: str, delay: float | None = None) -> None:
        """Wait before the next attempt; a signal ends it."""
        if delay is None:
            delay = self._backoff.next(self._connection.since_healthy)
        LOGGER.warning('%s; next attempt in %.2f s', why, delay)
        host = self._host
        host.notifier.status(why)
        if not self._was_consuming:
            host.notifier.extend_timeout(delay + 2 * CONNECT_TIMEOUT)
        end = time.monotonic() + delay
        while self._goes_on() and (left := end - time.monotonic()) > 0:
            pulse = host.progress()
            host.signals.wait(left if pulse is None else min(left, pulse))
            host.serve_signals()

    def _subscribe(self) -> None:
        """Declare the topology and consume each queue of it."""
        self._connection.limit(CONNECT_TIMEOUT)
        channel = self._connection.channel()
        with self._connection.guard():
            self._topology.establish(
                channel, self._connection.refusals, again=self._was_consuming
            )
            channel.basic_qos(0, self._section['prefetch'], False)
            self._acknowledger = self._connection.acknowledger(channel, self._section['prefetch'])
            for queue in self._topology.queues:
                self._connection.consume(
                    channel,
                    self._topology.name_of(queue),
                    partial(self._on_delivery, queue),
                    self._topology.consumer_arguments(queue),
                )
        self._connection.limit(None)

    def _begin(self) -> None:
        """The broker has confirmed every consumer: ready."""
        if not self._topology.queues:
            LOGGER.warning('AMQP.queues names no queue: there is nothing to consume')
        self._consuming_since = time.monotonic()
        self._pulse = 0.0
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
        """Handle messages and do the periodic work, until a stop or until the broker is lost."""
        while self._goes_on():
            if self._ticks is not None and self._ticks.due <= time.monotonic():
                self._process(self._ticks)
            elif self._deliveries:
                self._handle(self._deliveries.popleft())
            else:
                self._flush()
                if not self._connection.drain():
                    self._wait()
            self._keep_alive()
            if self._host.signals.arrived:
                self._host.serve_signals()

    def _keep_alive(self) -> None:
        """When it is due, send heartbeats to the broker and signs of life to the watchdog."""
        now = time.monotonic()
        if now < self._pulse:
            return
        limits = [float('inf')]
        heartbeat = self._connection.heartbeat
        if heartbeat is not None:
            self._connection.check_heartbeat()
            limits.append(heartbeat / 2)
        pulse = self._host.progress()
        if pulse is not None:
            limits.append(pulse)
        self._pulse = now + min(limits)

    def _wait(self) -> None:
        """Wait for a message, a signal, or the next thing that is due."""
        host = self._host
        host.sleeping()
        due = min(self._pulse, self._ticks.due if self._ticks is not None else float('inf'))
        limits = [max(due - time.monotonic(), 0.0)]
        descriptors = [host.signals.fileno()]
        socket = self._connection.fileno()
        if socket is None:
            limits.append(POLL)
        else:
            descriptors.append(socket)
        wait_readable(tuple(descriptors), min(limits))
        host.serve_signals()

    def _process(self, ticks: Ticks) -> None:
        self._host.active()
        self._host.process()
        ticks.done()
        self._host.idle()

    # One message.

    def _on_delivery(self, queue: str, delivery: Any) -> None:
        # A delivery may come while a confirmation is awaited, inside a handler: it has to wait.
        self._deliveries.append(Message(delivery, queue, self._settle_as_told))

    def _handle(self, message: Message) -> None:
        """Run the handler, then settle. What it raises is a fault of this message alone."""
        error: BaseException | None = None
        answer = None
        self._host.active()
        try:
            body = decode(message, self._section['accept'], self._section['max_body'])
            answer = self._host.on_message(body, message)
        except (StopNow, Interrupted):
            raise
        except BaseException as raised:
            error = raised
        if message.outcome is None:
            self._settle(message, error, answer)
        elif error is not None:
            LOGGER.error(
                'on_message failed after the message was %s', message.outcome.value, exc_info=error
            )

    def _settle(self, message: Message, error: BaseException | None, answer: Any) -> None:
        """Act on the outcome: the one place that does."""
        outcome = message.outcome = settlement.judge(error)
        with self._connection.guard():
            if outcome is Outcome.ACK:
                if answer is not None and message.reply_to:
                    self._reply(message, answer)
                self._acknowledge(message)
            elif outcome is Outcome.REQUEUE:
                message.delivery.requeue()
            else:
                assert error is not None
                self._bury(message, error)

    def _settle_as_told(self, message: Message, outcome: Outcome) -> None:
        """Settle as the handler itself says, once."""
        if message.outcome is not None:
            return
        message.outcome = outcome
        delivery = message.delivery
        settle = {
            Outcome.ACK: delivery.ack,
            Outcome.DEAD_LETTER: delivery.reject,
            Outcome.REQUEUE: delivery.requeue,
        }[outcome]
        try:
            with self._connection.guard():
                settle()
        except Lost as lost:
            LOGGER.warning('not %s: %s; it will be delivered again', outcome.value, lost)

    def _reply(self, message: Message, answer: Any) -> None:
        properties = {}
        if message.correlation_id:
            properties['correlation_id'] = message.correlation_id
        try:
            self._publisher.publish(answer, '', message.reply_to or '', properties)
        except PublishError as error:
            LOGGER.warning('the reply has nowhere to go: %s', error)
        except (TypeError, ValueError) as error:
            # The work is done: a result that JSON cannot say must not end the program.
            LOGGER.error('the reply cannot be encoded: %s', error)

    def _bury(self, message: Message, error: BaseException) -> None:
        """Put it among the dead letters, and only when the broker has it there acknowledge it."""
        queue = self._topology.dead_letters_of(message.queue)
        word = settlement.reason(error)
        LOGGER.error(
            'a message of %s is a dead letter (%s)%s',
            message.queue,
            word,
            '' if queue else ' and dropped: AMQP.dead_letter is false',
            exc_info=error if word == 'exception' else None,
        )
        if queue is None:
            message.delivery.reject()
            return
        headers = settlement.dead_letter_headers(error, message.queue, self._host.appname)
        try:
            self._publisher.publish(message.raw, '', queue, message.copy(headers))
        except PublishError as failure:
            raise Lost(f'the dead letter was not taken: {failure}') from failure
        self._acknowledge(message)

    def _acknowledge(self, message: Message) -> None:
        if self._acknowledger is None:
            message.delivery.ack()
        else:
            self._acknowledger.add(message.delivery.delivery_tag)

    def _flush(self) -> None:
        """Send the acknowledgements that are pending: nothing is left to be handled."""
        if self._acknowledger is not None:
            with self._connection.guard():
                self._acknowledger.flush()

    # For the controller.

    def publish(
        self, body: Any, exchange: str, routing_key: str, properties: Mapping[str, Any]
    ) -> None:
        """Publish, on the consumer's connection; see ``ConsumerController.publish``."""
        if not self._connection.is_open:
            try:
                self._connection.open()
            except (Unreachable, UnavailableError) as error:
                raise PublishError(str(error)) from error
        self._publisher.publish(body, exchange, routing_key, properties)
