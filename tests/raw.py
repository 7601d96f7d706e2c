"""AMQP 0-9-1 as bytes: frames, and a client that sends whatever it is told to.

It shares nothing with clihelper or py-amqp, which would not write what it is for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_MAX = 131072

CONNECTION_CLOSE, CHANNEL_CLOSE = (10, 50), (20, 40)
PUBLISH, RETURN, DELIVER, ACK, REJECT = (60, 40), (60, 50), (60, 60), (60, 80), (60, 90)

TIMEOUT = 30.0
"""seconds that a peer has to answer"""


def short(data: bytes) -> bytes:
    """A short string."""
    return bytes((len(data),)) + data


def read_short(data: bytes, place: int) -> tuple[bytes, int]:
    """A short string that is there, and where what is behind it begins."""
    end = place + 1 + data[place]
    return data[place + 1 : end], end


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame, whatever its size."""
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + b'\xce'


def method(channel: int, name: tuple[int, int], arguments: bytes = b'') -> bytes:
    """The frame of a method."""
    return frame(METHOD, channel, struct.pack('>HH', *name) + arguments)


def content(channel: int, packed: bytes, body: bytes) -> bytes:
    """The frames behind a method: the header, in one frame however large, and the body."""
    size = FRAME_MAX - 8
    parts = [frame(HEADER, channel, struct.pack('>HHQ', 60, 0, len(body)) + packed)]
    parts += [frame(BODY, channel, body[i : i + size]) for i in range(0, len(body), size)]
    return b''.join(parts)


class Closed(Exception):
    """The peer has closed the channel, the connection, or the socket."""


class Frames:
    """The frames that come over a socket.

    :ivar lock: to be held by who writes.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lock = threading.Lock()
        self._data = bytearray()

    def send(self, data: bytes) -> None:
        """Write it all."""
        with self.lock:
            self.sock.sendall(data)

    def exactly(self, size: int) -> bytes:
        """The next bytes."""
        while len(self._data) < size:
            chunk = self.sock.recv(256 * 1024)
            if not chunk:
                raise Closed('the socket')
            self._data += chunk
        found = bytes(self._data[:size])
        del self._data[:size]
        return found

    def next(self) -> tuple[int, int, bytes]:
        """The next frame: its type, its channel, its payload."""
        kind, channel, size = struct.unpack('>BHI', self.exactly(7))
        payload = self.exactly(size + 1)[:-1]
        return kind, channel, payload

    def content(self, channel: int) -> tuple[bytes, bytes]:
        """The properties and the body behind a method."""
        kind, its_channel, header = self.next()
        assert (kind, its_channel) == (HEADER, channel), (kind, its_channel)
        (size,) = struct.unpack_from('>Q', header, 4)
        body = bytearray()
        while len(body) < size:
            kind, its_channel, payload = self.next()
            assert (kind, its_channel) == (BODY, channel), (kind, its_channel)
            body += payload
        return header[12:], bytes(body)


class Client:
    """A client of a broker, with one channel.

    :param port: on 127.0.0.1; the user is ``guest``.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.frames = Frames(socket.create_connection(('127.0.0.1', port), TIMEOUT))
        self.frames.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames.send(b'AMQP\0\0\x09\x01')
        self.wait((10, 10))
        response = struct.pack('>I', 12) + b'\0guest\0guest'
        self.frames.send(method(0, (10, 11), bytes(4) + short(b'PLAIN') + response + short(b'en')))
        self.wait((10, 30))
        self.frames.send(
            method(0, (10, 31), struct.pack('>HIH', 10, FRAME_MAX, 0))
            + method(0, (10, 40), short(b'/') + b'\0\0')
            + method(1, (20, 10), b'\0')
        )
        self.wait((20, 11))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave without a word; whoever reads in another thread is woken."""
        with contextlib.suppress(OSError):
            self.frames.sock.shutdown(socket.SHUT_RDWR)
        self.frames.sock.close()

    def call(self, name: tuple[int, int], arguments: bytes, answer: tuple[int, int]) -> bytes:
        """Call a method; the arguments of its answer."""
        self.frames.send(method(1, name, arguments))
        return self.wait(answer)

    def wait(self, name: tuple[int, int]) -> bytes:
        """The arguments of the next such method.

        :raises Closed: the broker has closed the channel, or the connection.
        """
        while True:
            kind, _, payload = self.frames.next()
            if kind != METHOD:
                continue
            found = struct.unpack_from('>HH', payload)
            if found == name:
                return payload[4:]
            if found in (CONNECTION_CLOSE, CHANNEL_CLOSE):
                (code,) = struct.unpack_from('>H', payload, 4)
                raise Closed(f'{code} {read_short(payload, 6)[0].decode(errors="replace")}')

    def declare(self, queue: bytes, *, passive: bool = False) -> int:
        """Declare a durable queue, or ask for one; how many messages are ready in it."""
        arguments = b'\0\0' + short(queue) + (b'\x03' if passive else b'\x02') + bytes(4)
        answer = self.call((50, 10), arguments, (50, 11))
        return int(struct.unpack_from('>I', answer, 1 + answer[0])[0])

    def take(self, queue: bytes) -> bytes | None:
        """The body of a message, which is taken from a queue; None: it is empty."""
        self.frames.send(method(1, (60, 70), b'\0\0' + short(queue) + b'\x01'))
        while True:
            kind, channel, payload = self.frames.next()
            if kind == METHOD:
                name = struct.unpack_from('>HH', payload)
                return self.frames.content(channel)[1] if name == (60, 71) else None

    def consume(self, queues: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
        """What comes out of queues, without acknowledgements: queue, properties, body."""
        for queue in queues:
            self.frames.send(
                method(1, (60, 20), b'\0\0' + short(queue) + short(queue) + b'\x0a' + bytes(4))
            )
        self.frames.sock.settimeout(None)
        while True:
            kind, channel, payload = self.frames.next()
            if kind == METHOD and struct.unpack_from('>HH', payload) == DELIVER:
                yield read_short(payload, 4)[0], *self.frames.content(channel)


Message = tuple[bytes, bytes, bytes, bytes]
"""exchange, routing key, packed properties, body"""


class Sender:
    """Publishes messages, and finds out which of them the broker does not take.

    Those that are published together are so in a transaction: all, or none of them.

    :param port: of the broker.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: Client | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def send(self, messages: Sequence[Message], on_refused: Callable[[int, str], None]) -> None:
        """Publish them in their order, less those that the broker does not take.

        :param on_refused: called with the index of such a one, and why.
        """
        self._send(messages, 0, len(messages), on_refused)

    def _send(
        self,
        messages: Sequence[Message],
        first: int,
        end: int,
        on_refused: Callable[[int, str], None],
    ) -> None:
        if first == end:
            return
        try:
            self._commit(messages[first:end])
        except (Closed, OSError) as why:
            self.close()
            if end - first == 1:
                on_refused(first, str(why))
                return
            middle = (first + end) // 2
            self._send(messages, first, middle, on_refused)
            self._send(messages, middle, end, on_refused)

    def _commit(self, messages: Sequence[Message]) -> None:
        if self._client is None:
            self._client = Client(self._port)
            self._client.call((90, 10), b'', (90, 11))
        self._client.frames.send(b''.join(
            method(1, PUBLISH, b'\0\0' + short(exchange) + short(routing_key) + b'\0')
            + content(1, packed, body)
            for exchange, routing_key, packed, body in messages
        ))  # fmt: skip
        self._client.call((90, 20), b'', (90, 21))
