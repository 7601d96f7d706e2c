"""Frames as a broker writes them, and a connection to whose other end a test writes them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import amqp
from amqp.method_framing import frame_writer

from clihelper.amqp.frames import Delivery
from clihelper.amqp.rabbitmq import RabbitMQTransport

TAG = 'host.1.1'


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + b'\xce'


def short(text: str | bytes) -> bytes:
    encoded = text.encode() if isinstance(text, str) else text
    return bytes([len(encoded)]) + encoded


def header(size: int, packed: bytes, its_class: int = 60) -> bytes:
    """The payload of a header."""
    return struct.pack('>HHQ', its_class, 0, size) + packed


def delivery(
    number: int,
    body: bytes,
    *,
    channel: int = 1,
    pieces: int = 1,
    tag: str = TAG,
    properties: dict[str, Any] | bytes | None = None,
    key: str | bytes | None = None,
) -> list[bytes]:
    """The frames of a delivery, its body in that many frames."""
    packed = properties
    if not isinstance(packed, bytes):
        packed = amqp.Message(body, **(packed or {}))._serialize_properties()
    method = (
        struct.pack('>HH', 60, 60)
        + short(tag)
        + struct.pack('>QB', number, number % 2)
        + short('shop')
        + short(f'order.{number}' if key is None else key)
    )
    frames = [frame(1, channel, method), frame(2, channel, header(len(body), packed))]
    size = -(-len(body) // pieces) or 1
    frames += [frame(3, channel, body[i : i + size]) for i in range(0, len(body), size)]
    return frames


class Ends:
    """A connection whose other end is a socket of the test's, past the handshake."""

    def __init__(self, max_body: int = 0) -> None:
        self.connection = connection = RabbitMQTransport(
            'amqp://localhost', 0, 5, 'test', max_body=max_body)
        self.far, near = socket.socketpair()
        near.setblocking(False)
        transport = connection.Transport('localhost:5672', 5)
        transport.sock = near
        transport._setup_transport()
        connection._transport = transport
        connection.frame_writer = frame_writer(connection, transport)
        self.got: list[Any] = []
        for number in (1, 2):
            channel = connection.Channel(connection, number)
            channel.is_open = True
            self.expect(number, self.take)

    def expect(
        self, number: int, consumer: Callable[[Delivery], None], tag: str = TAG
    ) -> None:
        channel = self.connection.channels[number]
        self.connection._deliveries.direct({(number, tag.encode()): (channel, consumer)})

    def take(self, message: Delivery) -> None:
        info = message.delivery_info
        self.got.append(
            (
                message.delivery_tag,
                message.body,
                info['redelivered'],
                info['exchange'],
                info['routing_key'],
                message.properties.get('correlation_id'),
            )
        )

    def close(self) -> None:
        self.far.close()
        self.connection.transport.sock.close()
