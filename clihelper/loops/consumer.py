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
from zlib import crc32

from clihelper.amqp import settlement
from clihelper.amqp.acknowledgement import Acknowledger
from clihelper.amqp.connection import (
    CONNECT_TIMEOUT,
    Backoff,
    Connection,
    Lost,
    Unreachable,
)
from clihelper.amqp.message import Message, decode, settle_at_once
from clihelper.amqp.patience import POLL, Patience
from clihelper.amqp.publisher import PublishError, encode
from clihelper.amqp.record import Record
from clihelper.amqp.retries import Held, Waiting, steps
from clihelper.amqp.settlement import Crashed, Outcome, Retry
from clihelper.amqp.topology import Topology
from clihelper.errors import Error, StopNow, UnavailableError
from clihelper.loops import Loop
from clihelper.loops.interval import Ticks
from clihelper.signals import Interrupted, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.config import Config
    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper')

ACK = Outcome.ACK  # needed twice a message; a member is found slowly by way of its class

STABLE = 5.0
"""seconds of consuming after which a lost broker is no flapping one: the delays begin anew"""

REFUSED_DELAY = 30.0
"""seconds between attempts at a broker that refuses what it took before"""


class ConsumerLoop(Loop):
    """Consumes every queue of the ``AMQP`` section."""

    looks_after_client = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._section = section = host.config.amqp
        self._connection = Connection.of(section, host.appname)
        self._connection.wait_for = Patience(host.signals, lambda: host.is_running).wait
        self._topology = Topology(section, *host.own_topology)
        self._waiting = Waiting(self._topology, section['retry'])
        self._held = Held()
        self._channel: Any = None
        self._in_hand: Message | None = None
        self._record = Record(host.hand, section) if host.hand is not None else None
        self._suspects = True
        self._backoff = Backoff()
        self._deliveries: deque[Message] = deque()
        self._ticks: Ticks | None = None
        self._pulse = 0.0
        self._acknowledger: Acknowledger | None = None
        self._was_consuming = False
        self._consuming_since = float('-inf')

    @classmethod
    def preload(cls, config: Config) -> None:
        """Import what connections are made of."""
        Connection.of(config.amqp, '')

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
        self._rest()
        try:
            self._flush()
        except Lost as lost:
            LOGGER.debug('not acknowledged: %s', lost)
        answered = self._connection.close()
        if self._client is not None:
            self._client.close(politely=answered)

    def _goes_on(self) -> bool:
        return self._host.is_running and not self._stopping

    def _drop(self) -> None:
        # What came over the old connection can be settled no more: it will be delivered again.
        self._deliveries.clear()
        self._held.clear()
        self._waiting.reset()
        self._acknowledger = None
        self._suspects = False
        self._rest()
        self._connection.drop()

    def _connect(self) -> bool:
        """Connect, however long it takes; False if a signal ended it."""
        while self._goes_on() and not self._connection.is_open:
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
        return self._goes_on()

    def _wait_for_broker(self, why: str, delay: float | None = None) -> None:
        """Wait before the next attempt, if each address has been tried; a signal ends it."""
        if self._connection.has_untried:
            delay = 0.0
        elif delay is None:
            delay = self._backoff.next(self._connection.since_healthy)
        LOGGER.warning('%s; next attempt in %.2f s', why, delay)
        host = self._host
        host.notifier.status(why)
        if not self._was_consuming:
            host.notifier.extend_timeout(delay + 2 * CONNECT_TIMEOUT)
        end = time.monotonic() + delay
        while self._goes_on():
            pulse = host.progress()
            if (left := end - time.monotonic()) <= 0:
                return
            host.signals.wait(left if pulse is None else min(left, pulse))
            host.serve_signals()

    def _subscribe(self) -> None:
        """Declare the topology and consume each queue of it."""
        self._channel = channel = self._connection.channel()
        delays = steps(self._section['retry'])
        with self._connection.guard():
            self._topology.establish(
                channel, self._connection.refusals, delays, again=self._was_consuming
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
            elif self._held.due <= time.monotonic():
                self._host.active()
                self._handle(self._held.take())
            elif self._deliveries:
                self._handle_what_is_here()
            else:
                self._flush()
                self._rest()
                if not self._connection.drain():
                    self._wait()
            self._keep_alive()
            if self._host.signals.arrived:
                self._host.serve_signals()

    def _handle_what_is_here(self) -> None:
        """Handle messages one after the other, until there is something else to do."""
        host, deliveries, due = self._host, self._deliveries, self._due
        host.active()
        while deliveries:
            message = deliveries.popleft()
            self._handle(message)
            if host.signals.arrived or self._stopping or not host.is_running:
                return
            if time.monotonic() >= due or message.outcome is not ACK:
                return  # one that failed may be due again before anything else

    @property
    def _due(self) -> float:
        """When something else than a message is to be looked after."""
        due = min(self._pulse, self._held.due)
        return due if self._ticks is None else min(due, self._ticks.due)

    def _keep_alive(self) -> None:
        """When it is due, send a sign of life to the watchdog."""
        now = time.monotonic()
        if now >= self._pulse:
            pulse = self._host.progress()
            self._pulse = now + (float('inf') if pulse is None else pulse)

    def _wait(self) -> None:
        """Wait for a message, a signal, or the next thing that is due."""
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
        client = None if self._client is None else self._client.fileno()
        if client is not None:
            descriptors.append(client)
        ready = wait_readable(tuple(descriptors), min(limits))
        if self._client is not None and client in ready:
            self._client.look()
        if signals in ready:
            host.serve_signals()

    def _process(self, ticks: Ticks) -> None:
        self._rest()
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
        record = self._record
        if message.redelivered and (
            self._is_suspect(message) if record is None else self._is_fatal(message, record)
        ):
            return
        error: BaseException | None = None
        reply = None
        self._in_hand = message
        try:
            if record is not None:
                record.note(crc32(message.raw, record.seeds[message.queue]))
            body = decode(message, self._section['accept'], self._section['max_body'])
            answer = self._host.on_message(body, message)
            if answer is not None and message.reply_to:
                reply = encode(answer)
        except (StopNow, Interrupted):
            self._rest()
            raise
        except BaseException as raised:
            error = raised
        finally:
            self._in_hand = None
        if record is not None and record.timed:
            record.rest()  # what becomes of it now is the broker's time, not the handler's
        if message.outcome is None:
            self._settle(message, error, reply)
        elif error is not None:
            LOGGER.error(
                'on_message failed after the message was %s', message.outcome.value, exc_info=error
            )
        if record is not None:
            hand = record.hand
            hand.handled += 1
            if record.suspect or hand.handled >= hand.limit:
                self._look_after(message, record)

    def _is_fatal(self, message: Message, record: Record) -> bool:
        """Whether a message has killed so many processes that it is settled, and not run."""
        error = record.look_up(message)
        if record.suspect:
            self._flush()  # so that none of those before it comes again if this one kills
        if error is None:
            return False
        message.outcome = Outcome.DEAD_LETTER
        self._bury(message, error)
        self._look_after(message, record)
        return True

    def _look_after(self, message: Message, record: Record) -> None:
        """What is seldom to be done when a message has been settled."""
        if record.suspect and message.outcome is not Outcome.REQUEUE:
            self._flush()  # before its deaths are forgotten: it is not to come again
            record.settled()
        record.suspect = 0
        if record.hand.handled >= record.hand.limit:
            LOGGER.info('Daemon.max_messages is reached: another process takes over')
            self._host.retire()

    def _is_suspect(self, message: Message) -> bool:
        """Whether a message may have killed those who ran it; then it is settled, and not run.

        That is for a process whose predecessors have left no record of what they had in hand.
        Only quorum queues count deliveries, and they count those that were never run, too. So
        the first that a new process comes to is put at the end of its queue, by itself; if it was
        in hand when the process died that ran it there, it was the one.
        """
        self._flush()  # so that none of those before it comes again if this one kills
        if not self._suspects:
            return False
        attempts = self._section['retry']['attempts']
        headers = message.headers
        if settlement.deliveries_before(headers) < (
            1 if settlement.SUSPECTED in headers else max(attempts - 1, 1)
        ):
            return False
        self._suspects = False
        if settlement.SUSPECTED in headers:
            self._bury(message, Crashed(attempts))
        else:
            LOGGER.warning('a message of %s may have ended its processes', message.queue)
            name = self._topology.name_of(message.queue)
            self._move(message, name, message.attempts - 1, {settlement.SUSPECTED: True})
        return True

    def _settle(
        self, message: Message, error: BaseException | None, reply: tuple[bytes, str] | None
    ) -> None:
        """Act on the outcome: the one place that does."""
        if error is None:
            message.outcome = ACK
            if reply is not None:
                self._reply(message, *reply)
            self._acknowledge(message)
            return
        retry = self._section['retry']
        outcome = message.outcome = settlement.judge(error, message.attempts, retry['attempts'])
        if outcome is Outcome.REQUEUE:
            with self._connection.guard():
                settle_at_once(message.delivery, outcome)
        elif outcome is Outcome.RETRY:
            self._put_aside(message, error, settlement.delay(error, message.attempts, retry))
        else:
            self._bury(message, error)

    def _settle_as_told(self, message: Message, outcome: Outcome) -> None:
        """Settle as the handler itself says, once."""
        if message.outcome is not None:
            return
        message.outcome = outcome
        try:
            with self._connection.guard():
                settle_at_once(message.delivery, outcome)
        except Lost as lost:
            LOGGER.warning('not %s: %s; it will be delivered again', outcome.value, lost)

    def _reply(self, message: Message, body: bytes, content_type: str) -> None:
        properties = {'content_type': content_type}
        if message.correlation_id:
            properties['correlation_id'] = message.correlation_id
        try:
            self.client.publish(body, '', message.reply_to or '', properties)
        except PublishError as error:
            if error.unknown:
                raise Lost(f'the reply was not taken: {error}') from error
            LOGGER.warning('the reply has nowhere to go: %s', error)

    def _put_aside(self, message: Message, error: BaseException, seconds: float) -> None:
        """Have the message run again after so long."""
        LOGGER.warning(
            'a message of %s failed (run %d of %d), and is run again in %g s',
            message.queue,
            message.attempts,
            self._section['retry']['attempts'],
            seconds,
            exc_info=None if isinstance(error, Retry) else error,
        )
        if not self._connection.expires:
            message.run_again()
            self._held.put(message, seconds)
            return
        with self._connection.guard():
            queue = self._topology.name_of(message.queue)
            if seconds > 0:
                queue = self._waiting.queue(
                    self._channel, self._connection.refusals, message.queue, seconds
                )
        self._move(message, queue, message.attempts, {})

    def _bury(self, message: Message, error: BaseException) -> None:
        """Put it among the dead letters."""
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
            with self._connection.guard():
                settle_at_once(message.delivery, Outcome.DEAD_LETTER)
            return
        runs = message.attempts - isinstance(error, settlement.UNRUN)
        if isinstance(error, Crashed):
            runs = error.runs
        name = self._topology.lasting_name(message.queue)
        headers = settlement.dead_letter_headers(error, name, self._host.appname)
        self._move(message, queue, runs, headers)

    def _move(self, message: Message, queue: str, runs: int, headers: dict[str, Any]) -> None:
        """Publish a copy to *queue*, and only when the broker has that acknowledge it.

        :param runs: how often it has been run.
        """
        headers |= settlement.run_headers(runs, message.exchange, message.routing_key)
        try:
            self.client.publish(message.raw, '', queue, message.copy(headers))
        except PublishError as failure:
            raise Lost(f'the message was not moved to {queue}: {failure}') from failure
        self._acknowledge(message)
        self._flush()  # or the next one, if it kills, would have it come and be moved again

    def _acknowledge(self, message: Message) -> None:
        if self._acknowledger is None:
            with self._connection.guard():
                message.delivery.ack()
        elif self._acknowledger.add(message.delivery.delivery_tag):
            self._flush()

    def _rest(self) -> None:
        """Nothing is in hand that could be to blame if the process died."""
        if self._record is not None:
            self._record.rest()

    def _flush(self) -> None:
        """Send the acknowledgements that are pending: nothing is left to be handled."""
        if self._acknowledger is not None:
            with self._connection.guard():
                self._acknowledger.flush()

    # For the controller.

    def recover(self) -> None:
        """Have all that is not settled delivered again; see ``ConsumerController.recover``."""
        if not self._connection.is_open:
            return
        try:
            self._flush()
            with self._connection.guard():
                self._channel.basic_recover(requeue=True)
        except Lost as lost:
            LOGGER.warning('not recovered: %s; all will be delivered again', lost)
        self._deliveries.clear()
        self._held.clear()
        if self._in_hand is not None:
            self._in_hand.outcome = Outcome.REQUEUE
