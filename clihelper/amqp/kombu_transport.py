"""Connections over kombu's other transports: memory, redis, filesystem and so on."""

from __future__ import annotations

import kombu
from kombu.exceptions import OperationalError

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.transport import WaitFor


class KombuTransport:
    """The counterpart of :class:`~clihelper.amqp.rabbitmq.RabbitMQTransport` for other schemes.

    These transports are polled: they have neither a descriptor to wait on nor heartbeats.

    :param options: ``AMQP.transport_options``.
    """

    wait_for: WaitFor  # these transports never wait, and never report that they are blocked
    on_blocked: Callable[[str], None]

    expires = False
    """Whether messages leave a queue when their TTL expires."""

    def __init__(
        self,
        url: str,
        heartbeat: int,
        timeout: float,
        name: str,
        tls: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        max_body: int = 0,
    ) -> None:
        # Without a host, kombu warns that it uses localhost.
        complete = url if url.partition('://')[2] else f'{url}localhost'
        try:
            # Which of the two looks for the library depends on the version of kombu.
            self._connection = kombu.Connection(
                complete, connect_timeout=timeout, transport_options=dict(options or {})
            )
            transport = self._connection.transport
        except (ImportError, AttributeError) as error:
            # kombu defines its classes even if the library's classes are missing.
            scheme = url.partition(':')[0]
            raise UnavailableError(
                f'AMQP.url: {scheme}:// needs a library that is not installed: {error}'
            ) from error
        self.errors: tuple[type[BaseException], ...] = (
            OperationalError,
            *transport.connection_errors,
            *transport.channel_errors,
        )
        self.refusals: tuple[type[BaseException], ...] = transport.channel_errors

    def connect(self) -> None:
        """Try to connect once."""
        self._connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)

    def channel(self) -> Any:
        """Open a new channel."""
        return self._connection.channel()

    open_channel = channel

    on_unwritten: Callable[[], None] | None = None
    """never called"""

    def write_more(self) -> bool:
        """Return True: nothing is ever left to be written."""
        return True

    def ask_depth(self, channel: Any, queue: str, on_answer: Callable[[int], None]) -> None:
        """Call *on_answer* with the number of messages that are ready in *queue*."""
        on_answer(channel.queue_declare(queue, passive=True).message_count)

    def ask_depths(
        self,
        queues: Sequence[str],
        on_answer: Callable[[str, int, int | None], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """Call *on_answer* with each queue, and how many messages are ready in it.

        How many consumers a queue has these transports do not know.

        :param on_refused: called instead with a queue that is not there.
        """
        with self._connection.channel() as channel:
            for queue in queues:
                try:
                    found = channel.queue_declare(queue, passive=True)
                except self.refusals:
                    on_refused(queue)
                else:
                    on_answer(queue, found.message_count, None)

    def ask_message(
        self, channel: Any, queue: str, on_answer: Callable[[Any], None]
    ) -> None:
        """Call *on_answer* with one message from *queue*, or None if it is empty."""
        on_answer(channel.basic_get(queue))

    def fileno(self) -> None:
        """Return None: there is nothing to wait on."""

    def consume(
        self,
        channel: Any,
        queue: str,
        tag: str,
        on_delivery: Callable[[Any], None],
        arguments: Mapping[str, Any] | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """Consume *queue*; :meth:`take` hands over each delivery.

        :param waits: whether to wait for the answer.
        """
        channel.basic_consume(queue, no_ack=False, callback=on_delivery, consumer_tag=tag)

    def cancel(self, channel: Any, tag: str) -> None:
        """End a consumer."""
        channel.basic_cancel(tag)

    def limit(self, channel: Any, prefetch: int) -> None:
        """Have so many messages sent ahead."""
        channel.basic_qos(0, prefetch, False)

    def consume_replies(
        self, channel: Any, name: str, on_delivery: Callable[[Any], None], *, waits: bool = True
    ) -> str:
        """Consume an exclusive queue for replies; returns the value for ``reply_to``."""
        queue = f'replies.{name}'
        channel.queue_declare(queue, exclusive=True, auto_delete=True)
        channel.basic_consume(queue, no_ack=True, callback=on_delivery, consumer_tag=name)
        return queue

    def recover(self, channel: Any) -> None:
        """Have all unsettled messages redelivered."""
        channel.basic_recover(requeue=True)

    def get(self, channel: Any, queue: str) -> Any:
        """One message from *queue*, or None if it is empty."""
        return channel.basic_get(queue)

    def get_several(self, channel: Any, queue: str, number: int) -> list[Any]:
        """Up to *number* messages from *queue*, fewer if there are no more."""
        found: list[Any] = []
        while len(found) < number and (got := self.get(channel, queue)) is not None:
            found.append(got)
        return found

    def acknowledger(self, channel: Any, prefetch: int, *, concurrent: bool = False) -> None:
        """Return None: each message is acknowledged individually."""

    def take(self) -> bool:
        """Process one message, without waiting; False if there is none."""
        try:
            self._connection.drain_events(timeout=0)
        except TimeoutError:
            return False
        return True

    def has(self, channel: Any) -> bool:
        """Whether *channel* belongs to this connection, and is open."""
        return channel in (self._connection.transport.channels if self._connection else ())

    def confirm(self, channel: Any, *callbacks: Any, waits: bool = True) -> bool:
        """Return False: these transports have no confirmations."""
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
        """Publish at once; nothing is left to be written.

        :param mandatory: ignored: these transports do not support it.
        """
        assert isinstance(properties, dict)  # only AMQP uses packed properties
        message = channel.prepare_message(
            body,
            priority=properties.pop('priority', None),
            content_type=properties.pop('content_type', None),
            content_encoding=properties.pop('content_encoding', None),
            headers=properties.pop('headers', None) or {},
            properties=properties,
        )
        channel.basic_publish(message, exchange=exchange, routing_key=routing_key)
        return b''

    def write(self, data: bytes) -> None:
        """Do nothing: there is never anything to write."""

    def end(self, timeout: float) -> None:
        """Close the connection."""
        self._connection.release()

    def collect(self) -> None:
        """Abandon the connection."""
        self._connection.collect()
