"""What a controller does with the broker besides consuming.

The client has a connection of its own, opened when it is first needed: a broker that runs out of
memory or disk stops reading from connections that publish, and that must not hold up a consumer's
acknowledgements (https://www.rabbitmq.com/docs/alarms). A consumer reads the connection while it
is idle. Other controllers use no heartbeats on it, so that an idle program does not wake up for
them; they check before each use whether the broker has closed it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from contextlib import contextmanager, nullcontext
from functools import partial

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.declare_errors import DeclarationRefused
from clihelper.amqp.message import Fetched, Message, settle_at_once
from clihelper.amqp.partitions import NO_PARTITIONS
from clihelper.amqp.publisher import Publisher, PublishError
from clihelper.amqp.settlement import StoppableError
from clihelper.amqp.waiting import BrokerTimeout, BrokerWait
from clihelper.config.schema import LONGEST_NAME, is_short_string
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any, Unpack

    from clihelper.amqp.delays import DelayQueues
    from clihelper.amqp.property_types import Properties
    from clihelper.amqp.settlement import Outcome

LOGGER = logging.getLogger('clihelper.amqp')


class Client:
    """Publishes, calls, gets and counts. Any thread may use it, one at a time.

    :param connection: has heartbeats only if something calls :meth:`poll` while it is idle.
    :param held: returns a context in which signals wait in the pipe.
    :param connect: creates a further connection, for calls.
    :ivar lock: held by the thread that uses the connection; see :meth:`using`.
    :ivar partitions: the queues that are in partitions.
    :ivar declares: ``AMQP.declare``.
    """

    partitions = NO_PARTITIONS
    declares = True

    @classmethod
    def of(cls, host: Any, *, polled: bool) -> Client:
        """The client of a controller, for one round.

        :param host: its life cycle; see :class:`clihelper.loops.Host`.
        :param polled: whether something calls :meth:`poll` while the client is idle.
        """
        connection = publishing_connection(host, polled=polled)
        return cls(connection, host.signals.held, partial(publishing_connection, host))

    def __init__(
        self,
        connection: Connection,
        held: Callable[[], AbstractContextManager[None]],
        connect: Callable[[], Connection],
    ) -> None:
        self._connection = connection
        self._connect = connect
        self._held = held
        self.lock = threading.RLock()
        self._idle: list[Publisher] = []
        self._callers: list[Caller] = []
        self._channel: Any = None
        self._delays: DelayQueues | None = None

    def fileno(self) -> int | None:
        """The descriptor that is readable when :meth:`poll` should be called, or None."""
        return self._connection.fileno() if self._connection.is_open else None

    def poll(self) -> None:
        """Read what the broker sends unasked: that it is blocked, or is shutting down.

        While another thread uses the connection, that thread reads it.
        """
        if not self.lock.acquire(blocking=False):
            return
        try:
            while self._connection.is_open and self._connection.drain():
                pass
        except Lost as lost:
            LOGGER.debug('lost the connection for publishing: %s', lost)
            self._connection.drop()
        finally:
            self.lock.release()

    def close(self, *, politely: bool = True) -> None:
        """Close the connections: messages that were got and not settled return to their queues."""
        if politely:
            self._connection.close()
        else:
            self._connection.drop()
        while self._callers:
            self._callers.pop().close()

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
    ) -> None:
        """Publish one message; see ``Controller.publish``."""
        routing_key, properties = self.partitions.route(exchange, routing_key, properties)
        if delay:
            routing_key = self.delay_queue(exchange, routing_key, properties, delay, mandatory)
            mandatory = True
        with self.using():
            publisher = self.lend()
            publisher.send(body, exchange, routing_key, properties,
                           mandatory=mandatory, compress=compress)  # fmt: skip
            try:
                publisher.wait_for_confirms()
            except PublishError as error:
                if error.unroutable and self._delays is not None:
                    self._delays.reset()  # somebody has deleted a queue in which messages wait
                raise
            self.give_back(publisher)

    def delay_queue(
        self,
        exchange: str,
        queue: str,
        properties: Mapping[str, Any],
        delay: float,
        mandatory: bool,
    ) -> str:
        """The queue in which a message for *queue* waits; declared if necessary.

        :param delay: seconds.
        :param mandatory: whether *queue* has to exist.
        :raises TypeError, ValueError: no message with these properties can wait so long.
        :raises PublishError: the broker cannot be reached, or refuses.
        """
        from clihelper.amqp.delays import DelayQueues, check

        milliseconds = check(exchange, queue, delay, properties)
        if self._delays is None:
            self._delays = DelayQueues(self.declares)
        with self.using():
            self._open()
            with counting_failures(self._connection):
                return self._delays.prepare(self._connection, queue, milliseconds, mandatory)

    def pipeline(self) -> Pipeline:
        """A pipeline of messages that are confirmed together; see ``Controller.pipeline``."""
        return Pipeline(self)

    def lend(self) -> Publisher:
        """Lend a publisher with nothing in flight, on an open connection."""
        with counting_failures(self._connection):
            self._open()
        return self._idle.pop() if self._idle else Publisher(self._connection)

    def give_back(self, publisher: Publisher) -> None:
        """Take back a publisher that has nothing in flight any more."""
        self._idle.append(publisher)

    # Asking.

    def call(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        timeout: float,
        properties: Mapping[str, Any],
    ) -> Any:
        """Publish a message and wait for the reply; see ``Controller.call``.

        Each call in progress has a connection of its own: no other call waits for it.
        """
        routing_key, properties = self.partitions.route(exchange, routing_key, properties)
        caller = self._callers.pop() if self._callers else Caller(self._connect())
        try:
            with self._signals_held():
                return caller.call(body, exchange, routing_key, timeout, properties)
        finally:
            self._callers.append(caller)

    def queue_depth(self, queue: str) -> int:
        """The number of messages ready in *queue*; see ``Controller.queue_depth``."""
        depth = 0
        for each in self.partitions.names(queue):
            with self.using(), self._asking(each) as channel:
                # declare-ok says how many messages are ready, without a consumer.
                depth += int(channel.queue_declare(each, passive=True).message_count)
        return depth

    def get(self, queue: str) -> Message | None:
        """One message from *queue*, or None if it is empty; see ``Controller.get``."""
        with self.using(), self._asking(queue) as channel:
            delivery = self._connection.transport.get(channel, queue)
        if delivery is None:
            return None
        return Fetched(delivery, queue, self._settle, self._connection.max_body)

    def _settle(self, message: Message, outcome: Outcome) -> None:
        if message.outcome is not None:
            return
        message.outcome = outcome
        try:
            with self.using(), self._connection.guard():
                settle_at_once(message.delivery, outcome)
        except Lost as lost:
            LOGGER.warning('a message from %s was not %s: %s; it will be delivered again',
                           message, outcome.value, lost)  # fmt: skip

    @contextmanager
    def _asking(self, queue: str) -> Iterator[Any]:
        """A context with a channel for requests that are answered at once.

        :raises LookupError: there is no such queue, or the name is too long for one.
        :raises ConnectionError: the broker cannot be reached, or refuses.
        """
        if not is_short_string(queue):
            raise LookupError(f'there is no queue {queue[:LONGEST_NAME]!r}...')
        try:
            self._open()
            if self._channel is None or not self._connection.has(self._channel):
                self._channel = self._connection.channel()
            with self._connection.guard():
                yield self._channel
        except PublishError as error:
            raise ConnectionError(str(error)) from error
        except Lost as lost:
            self._connection.drop_unless_refused(lost)
            if lost.__cause__ is not None and DeclarationRefused('', lost.__cause__).missing:
                raise LookupError(f'there is no queue {queue!r}') from lost
            raise ConnectionError(f'queue {queue!r}: {lost}') from lost

    # The connection.

    @contextmanager
    def using(self) -> Iterator[None]:
        """A context in which only the caller uses the connection."""
        with self.lock, self._signals_held():
            yield

    def _signals_held(self) -> AbstractContextManager[None]:
        if threading.current_thread() is threading.main_thread():
            return self._held()
        return nullcontext()

    def _open(self) -> None:
        """Make sure that the connection is open, as far as can be known.

        :raises PublishError: no broker answers.
        """
        self.poll()
        if not self._connection.is_open:
            self._idle.clear()
            if self._delays is not None:
                self._delays.reset()
            open_any(self._connection)


def open_any(connection: Connection) -> None:
    """Open a connection for publishing.

    :raises PublishError: no broker answers.
    """
    try:
        connection.open_any()
    except (Unreachable, Error) as error:
        stopped = isinstance(error.__cause__, BrokerTimeout) and error.__cause__.stopped
        # A caller that republishes what is in ``failed`` must not leave out the first message.
        raise PublishError(str(error), stopped=stopped, failed=[(0, str(error))]) from error


@contextmanager
def counting_failures(connection: Connection) -> Iterator[None]:
    """A context in which a PublishError is that of a message that cannot be sent."""
    try:
        yield
    except PublishError:
        connection.on_published('publish_failures', 1)
        raise


def publishing_connection(host: Any, *, polled: bool = False, waits: bool = True) -> Connection:
    """A connection for publishing by a controller; it is not open yet.

    :param host: its life cycle; see :class:`clihelper.loops.Host`.
    :param polled: whether something reads it while it is idle; otherwise it has no heartbeats.
    :param waits: whether the main thread waits for the broker, and a stop has to end that.
    """
    connection = Connection.of(host.config.amqp, host.appname, heartbeat=polled)
    connection.on_blocked = partial(_report_blocked, host)
    connection.on_published = host.statistics.count
    if waits:
        connection.wait_for = BrokerWait(host.signals, lambda: host.is_running).wait
    return connection


def _report_blocked(host: Any, reason: str) -> None:
    """Report that the broker accepts no messages, or that this is no longer known to be so."""
    if reason:
        LOGGER.warning('blocked: the broker takes no messages, perhaps low on memory or disk')
    else:
        LOGGER.info('publishing is not blocked any more')
    host.notifier.status('blocked: the broker takes no messages' if reason else 'running')


class Pipeline:
    """Publishes many messages, and waits for their confirmations at the end of the ``with``.

    At most 1,000 messages are in flight without confirmation; then the next one waits.

    :param client: its connection is used.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._publisher: Publisher | None = None

    def publish(
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
        """Publish a message without waiting; the arguments are those of ``Controller.publish``.

        :raises clihelper.PublishError: the connection is lost.
        """
        client = self._client
        routing_key, routed = client.partitions.route(exchange, routing_key, properties)
        if delay:
            routing_key = client.delay_queue(exchange, routing_key, routed, delay, mandatory)
            mandatory = True
        with client.lock:
            publisher = self._publisher or self._begin()
            publisher.send(body, exchange, routing_key, routed,
                           mandatory=mandatory, compress=compress)  # fmt: skip
            if publisher.is_full:
                with client.using():
                    publisher.make_room()

    def _begin(self) -> Publisher:
        with self._client.using():
            self._publisher = publisher = self._client.lend()
            publisher.prepare()
        return publisher

    def flush(self) -> None:
        """Wait until the broker has confirmed everything published so far.

        :raises clihelper.PublishError: it has not; ``failed`` says which messages, and why.
        """
        if self._publisher is None:
            return
        with self._client.using():
            publisher, self._publisher = self._publisher, None
            publisher.wait_for_confirms()
            self._client.give_back(publisher)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.flush()


class NoReply(StoppableError, TimeoutError):
    """No reply arrived in time.

    :ivar bool stopped: whether waiting ended because of a stop.
    """

    def __init__(self, text: str, stopped: bool) -> None:
        super().__init__(text)
        self.stopped = stopped


class Caller:
    """Sends requests and receives their replies, on a connection used for nothing else.

    :param connection: a connection that is not open yet.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._publisher = Publisher(connection, prepare=self._consume)
        self._numbers = itertools.count(1)
        self._reply_to = ''
        self._arrived: dict[str, Message] = {}
        self._awaited: str | None = None

    def call(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        timeout: float,
        properties: Mapping[str, Any],
    ) -> Any:
        """Publish a request and wait for its reply; see ``Controller.call``."""
        self._open()
        publisher = self._publisher
        publisher.prepare()
        name = str(properties.get('correlation_id') or next(self._numbers))
        self._awaited, self._arrived = name, {}
        addressed = {**properties, 'reply_to': self._reply_to, 'correlation_id': name}
        publisher.send(body, exchange, routing_key, addressed)
        publisher.wait_for_confirms()
        deadline = time.monotonic() + timeout
        try:
            while name not in self._arrived:
                if not self._connection.drain():
                    self._connection.wait(deadline)
        except Lost as lost:
            if not isinstance(lost.__cause__, BrokerTimeout):
                self._connection.drop_unless_refused(lost)
            where = f'exchange {exchange!r}, routing key {routing_key!r}'
            raise NoReply(f'{where}: {lost}', lost.stopped) from lost
        return self._arrived.pop(name).body

    def close(self) -> None:
        """Drop the connection: nothing is in flight."""
        self._connection.drop()

    def _open(self) -> None:
        """Make sure that the connection is open: the broker may have closed it."""
        try:
            while self._connection.is_open and self._connection.drain():
                pass
        except Lost:
            self._connection.drop()
        if not self._connection.is_open:
            with counting_failures(self._connection):
                open_any(self._connection)

    def _consume(self, channel: Any) -> None:
        connection = self._connection
        with connection.guard():
            self._reply_to = connection.transport.consume_replies(
                channel, connection.consumer_tag(), self._on_reply)

    def _on_reply(self, delivery: Any) -> None:
        max_body = self._connection.max_body
        message = Fetched(delivery, self._reply_to, lambda *_: None, max_body)
        # A reply that arrives after its call has timed out is discarded.
        if message.correlation_id == self._awaited:
            self._arrived[str(message.correlation_id)] = message
