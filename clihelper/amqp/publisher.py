"""Publishing, confirmed and mandatory: it returns when the broker has the message."""

from __future__ import annotations

from clihelper.amqp.connection import Lost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from clihelper.amqp.connection import Connection

PERSISTENT = 2
"""The ``delivery_mode`` of a message that a durable queue keeps over a restart."""


class PublishError(Exception):
    """The broker has not got the message, or has not confirmed it: it may still arrive."""


class Publisher:
    """Publishes on a channel of its own.

    :param connection: an open connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Any = None

    def publish(
        self, body: Any, exchange: str, routing_key: str, properties: Mapping[str, Any]
    ) -> None:
        """Publish one message.

        :param body: ``bytes`` as they are, ``str`` as UTF-8 text, anything else as JSON.
        :raises PublishError: it is not confirmed; ``__cause__`` has why.
        """
        payload, kind = encode(body)
        properties = {'content_type': kind, 'delivery_mode': PERSISTENT, **properties}
        target = f'exchange {exchange!r}, routing key {routing_key!r}'
        try:
            with self._connection.guard():
                if self._channel is None:
                    self._channel = self._connection.channel()
                self._connection.publish(
                    self._channel, payload, exchange, routing_key, properties
                )
        except Lost as lost:
            # A channel that raised is closed, or waits for a confirmation that may come late.
            self.reset()
            raise PublishError(f'{target}: {lost}') from lost

    def reset(self) -> None:
        """Forget the channel: the connection is another one now."""
        self._channel = None


def encode(body: Any) -> tuple[bytes, str]:
    """The body as bytes, and its content type.

    :raises TypeError: JSON has no way to say it.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), 'application/octet-stream'
    if isinstance(body, str):
        return body.encode(), 'text/plain'
    import json

    return json.dumps(body, separators=(',', ':')).encode(), 'application/json'
