"""Connections by kombu's other transports: memory, redis, filesystem and so on."""

from __future__ import annotations

import kombu
from kombu.exceptions import OperationalError

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from clihelper.amqp.transport import WaitFor


class KombuTransport:
    """What :class:`~clihelper.amqp.rabbitmq.RabbitMQTransport` is for AMQP, for everything else.

    These transports are polled: they have no descriptor to wait on, and no heartbeats.

    :param options: ``AMQP.transport_options``.
    """

    wait_for: WaitFor  # none of them waits, or tells that it is blocked
    on_blocked: Callable[[str], None]

    expires = False
    """Whether messages leave a queue when their time is over."""

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
        # Without a host kombu warns of having taken localhost.
        complete = url if url.partition('://')[2] else f'{url}localhost'
        try:
            # Which of the two looks for the library depends on the version of kombu.
            self._connection = kombu.Connection(
                complete, connect_timeout=timeout, transport_options=dict(options or {})
            )
            transport = self._connection.transport
        except (ImportError, AttributeError) as error:
            # kombu defines classes over those of the library, or over nothing.
            scheme = url.partition(':')[0]
            raise UnavailableError(
                f'AMQP.url: {scheme}:// needs a library that is not here: {error}'
            ) from error
        self.errors: tuple[type[BaseException], ...] = (
            OperationalError,
            *transport.connection_errors,
            *transport.channel_errors,
        )
        self.refusals: tuple[type[BaseException], ...] = transport.channel_errors

    def connect(self) -> None:
        """Connect, once."""
        self._connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)

    def channel(self) -> Any:
        """A new channel."""
        return self._connection.channel()

    def fileno(self) -> None:
        """There is nothing to wait on."""

    def consume(
        self,
        channel: Any,
        queue: str,
        tag: str,
        on_delivery: Callable[[Any], None],
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Consume *queue*; each delivery is handed over by :meth:`take`."""
        channel.basic_consume(queue, no_ack=False, callback=on_delivery, consumer_tag=tag)

    def consume_replies(
        self, channel: Any, name: str, on_delivery: Callable[[Any], None]
    ) -> str:
        """Consume a queue of one's own for replies; returns what to say as ``reply_to``."""
        queue = f'replies.{name}'
        channel.queue_declare(queue, exclusive=True, auto_delete=True)
        channel.basic_consume(queue, no_ack=True, callback=on_delivery, consumer_tag=name)
        return queue

    def recover(self, channel: Any) -> None:
        """Have all that is not settled delivered again."""
        channel.basic_recover(requeue=True)

    def get(self, channel: Any, queue: str) -> Any:
        """One message of *queue*; None: it is empty."""
        return channel.basic_get(queue)

    def acknowledger(self, channel: Any, prefetch: int) -> None:
        """Each message is acknowledged by itself."""

    def take(self) -> bool:
        """Take in one message, without waiting; False if there is none."""
        try:
            self._connection.drain_events(timeout=0)
        except TimeoutError:
            return False
        return True

    def has(self, channel: Any) -> bool:
        """Whether *channel* is one of this connection, and open."""
        return channel in (self._connection.transport.channels if self._connection else ())

    def confirm(self, channel: Any, *callbacks: Any) -> bool:
        """These transports have no confirmations."""
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
        """Publish; nothing is left to be written.

        :param mandatory: without effect: these transports know no such thing.
        """
        assert isinstance(properties, dict)  # only AMQP has packed ones
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
        """There is nothing to write."""

    def end(self, timeout: float) -> None:
        """Close."""
        self._connection.release()

    def collect(self) -> None:
        """Leave it."""
        self._connection.collect()
