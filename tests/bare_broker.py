"""A broker in threads that looks into nothing, and delivers what it is told to.

RabbitMQ looks into what a publisher writes, and refuses some of it. Here properties, bodies and
names are bytes::

    with BareBroker(on_published) as broker:
        ...                      # a consumer connects to broker.url
        broker.deliver(b'orders', b'', b'orders', packed, body)

What a consumer publishes to a queue that is consumed, or to one of its retry queues, is delivered
at once; the rest is handed over. Only what a consumer needs is understood.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from tests.raw import (
    ACK,
    CONNECTION_CLOSE,
    DELIVER,
    FRAME_MAX,
    HEARTBEAT,
    METHOD,
    PUBLISH,
    REJECT,
    RETURN,
    Closed,
    Frames,
    content,
    frame,
    method,
    read_short,
    short,
)

TABLE = bytes(4)

ANSWERS: dict[tuple[int, ...], tuple[tuple[int, int], bytes]] = {
    (10, 40): ((10, 41), b'\0'),
    CONNECTION_CLOSE: ((10, 51), b''),
    (20, 10): ((20, 11), TABLE),
    (20, 40): ((20, 41), b''),
    (40, 10): ((40, 11), b''),
    (50, 20): ((50, 21), b''),
    (60, 10): ((60, 11), b''),
    (85, 10): ((85, 11), b''),
}
"""what is answered to which method, where that is always the same"""


class Connection(Frames):
    """A connection of a client's, whose sender does not wait for it to read."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.published = 0
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, data: bytes) -> None:
        self._queue.put(data)

    def write(self) -> None:
        """Write what is sent, until that is nothing, or the connection is gone."""
        with contextlib.suppress(OSError):
            while data := self._queue.get():
                self.sock.sendall(data)


class BareBroker:
    """Listens on a port of its own; a context manager.

    :param on_published: called with the queue and the body of what a consumer publishes.
    :param on_rejected: called with the body of what is rejected and not put back.
    :ivar faults: for what RabbitMQ would have closed a channel or a connection.
    :ivar unsettled: what is delivered and not settled, by its tag: queue, exchange, routing key,
        properties, body.
    :ivar changed: notified when something is settled.
    """

    def __init__(
        self,
        on_published: Callable[[bytes, bytes], None],
        on_rejected: Callable[[bytes], None],
    ) -> None:
        self._on_published = on_published
        self._on_rejected = on_rejected
        self.faults: list[str] = []
        self.unsettled: dict[int, tuple[bytes, bytes, bytes, bytes, bytes]] = {}
        self.changed = threading.Condition()
        self._tag = 0
        self._consumers: dict[bytes, tuple[Frames, int, bytes]] = {}
        self._server = socket.create_server(('127.0.0.1', 0))
        self._sockets = [self._server]
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """The URL of its virtual host."""
        return f'amqp://guest:guest@127.0.0.1:{self._server.getsockname()[1]}/%2F'

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def deliver(
        self,
        queue: bytes,
        exchange: bytes,
        routing_key: bytes,
        packed: bytes,
        body: bytes,
        *,
        redelivered: bool = False,
    ) -> None:
        """Deliver a message to whoever consumes that queue."""
        with self.changed:
            connection, channel, consumer = self._consumers[queue]
            self._tag += 1
            self.unsettled[self._tag] = queue, exchange, routing_key, packed, body
            arguments = struct.pack('>QB', self._tag, redelivered)
            arguments = short(consumer) + arguments + short(exchange) + short(routing_key)
            connection.send(method(channel, DELIVER, arguments) + content(channel, packed, body))

    # Connections

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(sock)
                connection = Connection(sock)
                self._start(self._serve, connection)
                self._start(connection.write)

    def _serve(self, connection: Connection) -> None:
        try:
            self._shake_hands(connection)
            while True:
                kind, channel, payload = connection.next()
                if kind == HEARTBEAT:
                    connection.send(frame(HEARTBEAT, 0, b''))
                elif kind == METHOD:
                    name = struct.unpack_from('>HH', payload)
                    self._act(connection, channel, name, payload)
        except (Closed, OSError):
            pass
        finally:
            connection.send(b'')

    def _shake_hands(self, connection: Connection) -> None:
        connection.exactly(8)
        greeting = b'\0\x09' + TABLE + struct.pack('>I', 5) + b'PLAIN'
        connection.send(method(0, (10, 10), greeting + struct.pack('>I', 5) + b'en_US'))
        connection.next()
        connection.send(method(0, (10, 30), struct.pack('>HIH', 10, FRAME_MAX, 0)))
        connection.next()

    # What clients say

    def _act(
        self, connection: Connection, channel: int, name: tuple[int, ...], payload: bytes
    ) -> None:
        if name in ANSWERS:
            connection.send(method(channel, *ANSWERS[name]))
        elif name == (50, 10):
            queue, _ = read_short(payload, 6)
            connection.send(method(channel, (50, 11), short(queue) + bytes(8)))
        elif name == (60, 20):
            queue, place = read_short(payload, 6)
            tag, _ = read_short(payload, place)
            self._consumers[queue] = connection, channel, tag
            connection.send(method(channel, (60, 21), short(tag)))
        elif name == PUBLISH:
            self._take(connection, channel, payload)
        elif name == ACK:
            self._settle('ack', *struct.unpack_from('>Q?', payload, 4))
        elif name == REJECT:
            tag, requeue = struct.unpack_from('>Q?', payload, 4)
            self._settle('requeue' if requeue else 'reject', tag, False)
        else:
            self.faults.append(f'a method that is not understood: {name}')

    def _settle(self, how: str, tag: int, multiple: bool) -> None:
        with self.changed:
            if tag not in self.unsettled:
                self.faults.append(f'{how}: unknown delivery tag {tag}')
                return
            for each in [each for each in self.unsettled if each <= tag] if multiple else [tag]:
                message = self.unsettled.pop(each)
                if how == 'reject':
                    self._on_rejected(message[-1])
                elif how == 'requeue':
                    self.deliver(*message, redelivered=True)
            self.changed.notify_all()

    def _take(self, connection: Connection, channel: int, payload: bytes) -> None:
        """Take what is published, and confirm it."""
        exchange, place = read_short(payload, 6)
        routing_key, place = read_short(payload, place)
        packed, body = connection.content(channel)
        if len(packed) + 20 > FRAME_MAX:
            self.faults.append(f'a header frame of {len(packed) + 20} bytes')
        queue = routing_key.partition(b'.retry.')[0]
        if queue in self._consumers:
            self.deliver(queue, exchange, queue, packed, body)
        elif payload[place] & 1 and routing_key.endswith(b'.missing'):
            arguments = struct.pack('>H', 312) + short(b'NO_ROUTE') + short(exchange)
            connection.send(method(channel, RETURN, arguments + short(routing_key))
                            + content(channel, packed, body))  # fmt: skip
        else:
            self._on_published(routing_key, body)
        connection.published += 1
        confirmation = struct.pack('>Q?', connection.published, False)
        connection.send(method(channel, ACK, confirmation))
