"""The queues that a program consumes, on one connection after another.

A loop decides when to connect, and how to wait. What it does then, whichever loop it is, is here.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial

from clihelper.amqp import exception_text, risks
from clihelper.amqp.connection import CONNECT_TIMEOUT, Connection, Lost, Unreachable
from clihelper.amqp.depths import Depths
from clihelper.amqp.partitions import Share
from clihelper.amqp.processing import Processor
from clihelper.amqp.retries import steps
from clihelper.amqp.streams import Positions
from clihelper.amqp.topology import Topology
from clihelper.backoff import when
from clihelper.errors import Error, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any, Protocol

    from clihelper.amqp.forwarder import Forwarder
    from clihelper.amqp.gates import Gate
    from clihelper.amqp.message import Message
    from clihelper.amqp.processing import Host as ProcessorHost
    from clihelper.amqp.processing import ProcessorFactory
    from clihelper.process.systemd import Notifier

    class Host(ProcessorHost, Protocol):
        """The life cycle, as far as this module uses it."""

        notifier: Notifier

        @property
        def worker(self) -> int: ...

        @property
        def own_topology(self) -> tuple[Sequence[Any], Sequence[Any], str]: ...

LOGGER = logging.getLogger('clihelper.amqp')

REFUSED_DELAY = 30.0
"""seconds between attempts if the broker refuses what it accepted before"""

STAND_BY = 2.0
"""seconds after which a worker consumes the partitions of others' shares as well: by then those
that were started with it consume theirs"""


class Subscription:
    """Connects to the broker, declares the topology, and receives messages.

    :param host: the life cycle.
    :param connection: delivers the messages.
    :param forwarder: publishes copies of messages.
    :param processor_class: makes what handles the messages.
    :param reports: whether to report the broker's state as that of the process.
    :ivar deliveries: the messages that have arrived and are not being handled yet.
    :ivar returned: those of them that were delivered before, in the order of arrival.
    :ivar processor: handles and settles the messages.
    :ivar bool was_consuming: whether the broker has ever confirmed all consumers.
    """

    def __init__(
        self,
        host: Host,
        connection: Connection,
        forwarder: Forwarder,
        processor_class: ProcessorFactory = Processor,
        *,
        reports: bool = True,
    ) -> None:
        exception_text.preload()
        self._host = host
        self._reports = reports
        self._section = section = host.config.amqp
        self.topology = Topology(section, *host.own_topology)
        self.deliveries: deque[Message] = deque()
        self.returned: list[Message] = []
        self._positions = Positions()
        self.was_consuming = self._is_consuming = False
        self._since = time.time()
        self._next_attempt = 0.0
        self._channel: Any = None
        self._share = Share(host.worker, host.config.daemon['workers'])
        self._later: list[tuple[str, str, Mapping[str, Any]]] = []
        self._tags: dict[str, str] = {}  # the consumer tag of each queue that is consumed
        self._sent_ahead = 0
        self.connection = connection
        self.forwarder = forwarder
        self.processor = processor_class(host, connection, self.topology, forwarder)
        self._gates = gates = self.processor.gates
        gates.deliveries = self.deliveries
        gates.on_open, gates.on_close = self._open, self._close
        self._depths = Depths(connection, host.statistics, self.processor.do_later)
        self._settle = self.processor.settle_as_told
        self._message_class = self.processor.message_class

    @property
    def queues(self) -> list[str]:
        """The labels of the queues to consume."""
        return self.topology.queues

    @property
    def prefetch(self) -> int:
        """The number of messages that the broker sends ahead."""
        prefetch: int = self._section['prefetch']
        return max(prefetch, self.processor.least_prefetch)

    def subscribe(self) -> None:
        """Declare the topology and consume each of its queues.

        :raises Lost: the connection is lost.
        :raises clihelper.errors.UnavailableError: the broker refuses something.
        """
        channel = self.connection.channel()
        delays = steps(self._section['retry'])
        with self.connection.guard():
            self._channel = channel = self.topology.establish(
                channel, self.connection.refusals, delays, again=self.was_consuming
            )
            channel.basic_qos(0, self.prefetch, False)
            self._sent_ahead = self.prefetch
            self.processor.begin(channel, self.prefetch)
            self._gates.begin()
            self._later.clear()
            self._tags.clear()
            self._consume_some(self._gates.consumed, waits=True)

    def _consume_some(self, queues: Collection[str], *, waits: bool) -> None:
        """Consume those of *queues* that are of this worker's share, the others a moment later."""
        for consumer in self.topology.consumers:
            if consumer[0] not in queues:
                continue
            if self._share.has(self.topology.options_of(consumer[0])):
                self._consume(*consumer, waits=waits)
            else:
                self._later.append(consumer)

    def _consume(
        self, queue: str, name: str, arguments: Mapping[str, Any], *, waits: bool = True
    ) -> None:
        """Consume one queue."""
        prefetch = self._gates.of(queue).prefetch(self.prefetch)
        if prefetch != self._sent_ahead:
            self.connection.transport.limit(self._channel, prefetch)
            self._sent_ahead = prefetch
        tag = self._tags[queue] = self.connection.consumer_tag()
        is_stream = self.topology.is_stream(queue)
        on_arrival = self._on_stream_delivery if is_stream else self._on_delivery
        arguments = {**self._share.arguments(self.topology.options_of(queue)), **arguments}
        self.connection.transport.consume(
            self._channel, name, tag, partial(on_arrival, queue), arguments, waits=waits,
        )  # fmt: skip

    def _stand_by(self) -> None:
        """Consume what others should have begun to consume by now."""
        if not self._later:
            return
        LOGGER.info('standing by for %s', ', '.join(name for _, name, _ in self._later))
        with self.connection.guard():
            while self._later:
                self._consume(*self._later.pop(0), waits=False)

    # Queues that are not consumed for a while.

    def _open(self, gate: Gate) -> None:
        """Consume a queue, or its partitions."""
        with self.connection.guard():
            self._consume_some(gate.labels, waits=False)
        if self._later:
            self.processor.do_later(self._stand_by, STAND_BY)

    def _close(self, gate: Gate) -> None:
        """Consume a queue no more; what has arrived, and was not run, returns to it."""
        self._later = [consumer for consumer in self._later if consumer[0] not in gate.labels]
        with self.connection.guard():
            for queue in gate.labels:
                if queue in self._tags:
                    self.connection.transport.cancel(self._channel, self._tags.pop(queue))
        arrived = [each for each in self.deliveries if each.queue in gate.labels]
        self.returned[:] = [each for each in self.returned if each.queue not in gate.labels]
        near = self.processor.near_limit(each for each in arrived if each.redelivered)
        if near:
            self.processor.renew(self.deliveries, near)
            arrived = [each for each in arrived if each not in near]
        for message in arrived:
            self.deliveries.remove(message)
        for message in self.processor.collected(gate.labels) + arrived:
            self._gates.turn_away(message)

    def begin(self) -> None:
        """Note that the broker has confirmed every consumer."""
        if not self.topology.queues:
            LOGGER.warning('AMQP.queues names no queue: there is nothing to consume')
        if not self.was_consuming and self.connection.expires:
            for line in risks.warnings(self.topology):
                LOGGER.warning('%s', line)
        self.connection.serves()
        if self.was_consuming:
            self._host.statistics.count('reconnects')
        self.was_consuming = True
        self._host.statistics.tell(handler_timeout=self._section['handler_timeout'])
        for queue in self.topology.queues:
            self._host.statistics.queues[queue]
        self._tell_broker(consuming=True)
        if self._reports:
            self._depths.begin(self.topology)
        if self._later:
            self.processor.do_later(self._stand_by, STAND_BY)
        closed = self._gates.closed
        LOGGER.info(
            'consuming %s from %s%s',
            ', '.join(each for each in self.topology.queues if each in self._gates.consumed),
            self.connection.shown(), f'; not for now: {", ".join(closed)}' if closed else '',
        )
        self._host.notifier.status('consuming')

    def announce_attempt(self) -> None:
        """Ask the service manager for the time that an attempt to connect takes at the start."""
        if not self.was_consuming:
            self._host.notifier.extend_timeout(2 * CONNECT_TIMEOUT)

    def report_outage(self, error: Exception) -> float:
        """Report why nothing is consumed.

        :param error: what connecting has raised, or :exc:`Lost`.
        :returns: the seconds to wait before the next attempt.
        :raises clihelper.errors.Error: there is to be none.
        """
        if isinstance(error, Lost):
            why = f'lost the broker: {error}'
        elif isinstance(error, Unreachable):
            why = f'no broker: {error}'
            waits = self.was_consuming or self._section['wait_for_broker']
            if not (waits or self.connection.has_untried):
                raise UnavailableError(f'AMQP.url: {error}') from error
        elif self.was_consuming:
            why = str(error)
        else:
            raise error
        is_refusal = isinstance(error, Error)
        delay = REFUSED_DELAY if is_refusal else self.connection.delay()
        LOGGER.warning('%s; next attempt %s', why, when(delay))
        self._host.notifier.status(why)
        self._tell_broker(consuming=False, why=why)
        if not self.was_consuming:
            self._host.notifier.extend_timeout(delay + 2 * CONNECT_TIMEOUT)
        self._next_attempt = time.monotonic() + delay
        return delay

    def _tell_broker(self, consuming: bool, why: str | None = None) -> None:
        """Write for whoever asks whether there is a broker, and since when."""
        if not self._reports:
            return
        if why is None or self._is_consuming:
            self._since = time.time()
        self._is_consuming = consuming
        broker = {'url': self.connection.shown(), 'consuming': consuming, 'since': self._since}
        self._host.statistics.tell(broker=broker if why is None else {**broker, 'why': why})

    def drop(self) -> None:
        """Drop the connection: its messages can no longer be settled, and will be redelivered."""
        for queue, offset in self._positions.lost(self.processor.lowest_unsettled):
            self.topology.read_on(queue, offset)
        self.forget_deliveries()
        self.processor.reset()
        self.connection.drop()

    def forget_deliveries(self) -> None:
        """Forget the messages that are not being handled yet; they return to their queues."""
        self.deliveries.clear()
        self.returned.clear()

    def close(self) -> bool:
        """Close the connections: prefetched messages return to their queues.

        :returns: False if there was a connection and the broker did not answer.
        """
        self.forget_deliveries()
        self.processor.end_message()
        self._gates.leave()
        try:
            self.forwarder.finish()
            self.processor.flush()
        except Lost as lost:
            LOGGER.debug('not acknowledged: %s', lost)
        if self._reports:
            self._host.statistics.tell(broker=None)
        answered = self.connection.close()
        self.forwarder.close(politely=answered)
        return answered

    def recover(self) -> None:
        """Have all unsettled messages redelivered; see ``ConsumerController.recover``."""
        if not self.connection.is_open:
            return
        self.forget_deliveries()
        self.processor.forget()
        try:
            with self.connection.guard():
                self.connection.transport.recover(self._channel)
            if self._reports:
                self._depths.begin(self.topology)  # what was to be done later is forgotten, too
            self._gates.look()
        except Lost as lost:
            LOGGER.warning('not recovered: %s; all messages will be delivered again', lost)

    def description(self) -> str:
        """The broker, the unsettled messages, and when connecting is tried next, for USR2."""
        lines = [f'broker {self.connection.description()}',
                 self.processor.description(len(self.deliveries))]
        if not self.connection.is_open:
            left = max(self._next_attempt - time.monotonic(), 0.0)
            lines.append(f'next attempt {when(left)}')
        return '\n'.join(lines)

    def deliver(self, queue: str, delivery: Any) -> Message:
        """Take in one delivery; for a loop that is not running.

        :returns: the message, which is not among :attr:`deliveries`.
        """
        self._on_delivery(queue, delivery)
        self.returned.clear()
        return self.deliveries.pop()

    def _on_delivery(self, queue: str, delivery: Any) -> None:
        # A delivery may arrive while a handler declares something: it has to wait.
        message = self._message_class(delivery, queue, self._settle)
        self.deliveries.append(message)
        if self.processor.is_concurrent:
            self.processor.delivered(message)
        if message.redelivered:
            self.returned.append(message)

    def _on_stream_delivery(self, queue: str, delivery: Any) -> None:
        self._on_delivery(queue, delivery)
        self._positions.note(self.deliveries[-1], self.processor.lowest_unsettled)
