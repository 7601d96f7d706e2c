"""A connection to RabbitMQ: py-amqp's, with a short road for deliveries.

py-amqp is used without kombu over it, whose import alone takes longer than connecting does.

py-amqp reads each frame with three ``recv`` calls, and takes a delivery in three steps. Here one
``recv`` fetches whatever has arrived, and a delivery whose frames (method, header, body) are all
in it is taken in one step; its properties are decoded when somebody asks for them.

All else goes py-amqp's road, frame by frame, and bytes that were fetched but not used are left
where py-amqp looks first. So deliveries in parts, bodies in many frames, the frames of other
channels in between and py-amqp's synchronous calls are right, whatever comes first.

The layout of frames is that of AMQP 0-9-1, sections 2.3.5 and 4.2.3.
"""

from __future__ import annotations

import re
import socket
import threading
from ssl import CERT_REQUIRED, SSLWantReadError, SSLWantWriteError
from struct import Struct

import amqp
from amqp.exceptions import UnexpectedFrame

from clihelper.amqp.acknowledgement import Acknowledger, Pulse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

PORT, TLS_PORT = 5672, 5671

CHUNK = 256 * 1024
"""bytes that are fetched at a time, at most"""

METHOD, HEADER, BODY, FRAME_END = 1, 2, 3, 0xCE
OVERHEAD = 8  # bytes of a frame besides its payload
BASIC, BASIC_ACK = 60, 80
DELIVER = b'\x00\x3c\x00\x3c'  # class 60, method 60
SHORTEST_DELIVERY = 12
SHORTEST_HEADER = 22
HEARTBEAT_FRAME = b'\x08\x00\x00\x00\x00\x00\x00\xce'

_frame = Struct('>BHI').unpack_from  # type, channel, size
_header_frame = Struct('>BHIHHQ').unpack_from  # the same, class, weight, size of the body
_delivery = Struct('>Q?B').unpack_from  # delivery tag, redelivered, length of the exchange
_ack = Struct('>BHIHHQ?B').pack  # a whole frame: 1, channel, 13, 60, 80, tag, multiple, 0xCE


class Delivery:
    """A delivered message, with the attributes of kombu's that a consumer uses.

    :ivar bytes body: the body.
    :ivar int delivery_tag: its number on its channel.
    """

    __slots__ = (
        '_channel', '_content', '_exchange', '_header', '_redelivered', '_routing_key', 'body',
        'delivery_tag',
    )  # fmt: skip

    def __init__(
        self,
        channel: Any,
        delivery_tag: int,
        redelivered: bool,
        exchange: bytes,
        routing_key: bytes,
        header: bytes,
        body: bytes,
    ) -> None:
        self._channel = channel
        self.delivery_tag = delivery_tag
        self._redelivered = redelivered
        self._exchange = exchange
        self._routing_key = routing_key
        self._header = header
        self.body = body
        self._content: Any = None

    @classmethod
    def of(cls, message: Any) -> Delivery:
        """What py-amqp has put together itself."""
        info, body = message.delivery_info, message.body
        delivery = cls(
            message.channel,
            info['delivery_tag'],
            info['redelivered'],
            info['exchange'].encode(),
            info['routing_key'].encode(),
            b'',
            body.encode() if isinstance(body, str) else bytes(body),
        )
        delivery._content = message
        return delivery

    @property
    def properties(self) -> dict[str, Any]:
        """AMQP's basic properties."""
        if self._content is None:
            self._content = amqp.Message()
            # Behind the class, the weight and the size of the body.
            self._content._load_properties(BASIC, self._header, 12)
        return self._content.properties  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, Any] | None:
        """The application's headers."""
        return self.properties.get('application_headers')

    @property
    def content_type(self) -> str | None:
        """The MIME type."""
        return self.properties.get('content_type')

    @property
    def content_encoding(self) -> str | None:
        """The encoding."""
        return self.properties.get('content_encoding')

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Where it comes from."""
        return {
            'delivery_tag': self.delivery_tag,
            'redelivered': self._redelivered,
            'exchange': self._exchange.decode(),
            'routing_key': self._routing_key.decode(),
        }

    def ack(self) -> None:
        """Acknowledge it."""
        self._channel.basic_ack(self.delivery_tag)

    def reject(self) -> None:
        """Reject it."""
        self._channel.basic_reject(self.delivery_tag, requeue=False)

    def requeue(self) -> None:
        """Put it back in its queue."""
        self._channel.basic_reject(self.delivery_tag, requeue=True)


class Wire(amqp.Connection):  # type: ignore[misc]
    """A connection on which complete deliveries take the short road.

    :param url: ``amqp://user:password@host:port/vhost``, or ``amqps://`` for TLS, with the
        broker's certificate verified.
    :param heartbeat: whole seconds; 0 for none.
    :param timeout: seconds for each step of connecting.
    :param name: what the broker's operator sees as the connection's name.
    """

    errors: tuple[type[BaseException], ...] = (
        *amqp.Connection.connection_errors,
        *amqp.Connection.channel_errors,
    )

    refusals: tuple[type[BaseException], ...] = amqp.Connection.channel_errors

    def __init__(self, url: str, heartbeat: int, timeout: float, name: str) -> None:
        super().__init__(
            **_parameters(url),
            login_method='PLAIN',
            heartbeat=heartbeat,
            connect_timeout=timeout,
            confirm_publish=True,
            client_properties={'connection_name': name},
        )
        self._consumers: dict[tuple[int, bytes], Callable[[Delivery], None]] = {}
        self._write_lock = threading.Lock()
        self._pulse: Pulse | None = None

    def Transport(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """py-amqp's transport, to which two threads may write, a frame or more at a time."""
        transport = super().Transport(*args, **kwargs)
        write, lock = transport.write, self._write_lock

        def write_locked(data: Any) -> None:
            with lock:
                write(data)

        transport.write = write_locked
        if transport.host.isascii():
            # A str would be looked up by way of the codec "idna", which takes 2 ms to import.
            transport.host = transport.host.encode()
        return transport

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()  # type: ignore[no-any-return]

    def limit(self, seconds: float | None) -> None:
        """Have calls that wait for the broker raise after *seconds*; None: never."""
        self.sock.settimeout(seconds)

    def consume(
        self,
        channel: Any,
        queue: str,
        tag: str,
        on_delivery: Callable[[Delivery], None],
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Consume *queue*; each delivery is handed over by :meth:`take`."""
        # Deliveries may come right behind the answer, in the same bytes.
        self._consumers[channel.channel_id, tag.encode()] = on_delivery
        channel.auto_decode = False  # bodies as they came; py-amqp would guess
        channel.basic_consume(
            queue,
            consumer_tag=tag,
            callback=lambda message: on_delivery(Delivery.of(message)),
            arguments=arguments or None,
        )

    def acknowledger(self, channel: Any, prefetch: int) -> Acknowledger:
        """What acknowledges the messages of *channel*, also while a handler runs."""

        def send(delivery_tag: int, number: int = channel.channel_id) -> None:
            self._send(
                _ack(METHOD, number, 13, BASIC, BASIC_ACK, delivery_tag, True, FRAME_END)
            )

        def live() -> None:
            acknowledger.flush()
            self._send(HEARTBEAT_FRAME)

        acknowledger = Acknowledger(send, prefetch)
        if self.heartbeat:
            self._pulse = Pulse(self.heartbeat / 2, live, self.errors)
        return acknowledger

    def publish(
        self,
        channel: Any,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any],
        timeout: float,
    ) -> None:
        """Publish, mandatory, and wait at most *timeout* seconds for the confirmation."""
        headers = properties.pop('headers', None)
        message = amqp.Message(body, application_headers=headers, **properties)
        channel.basic_publish(
            message, exchange, routing_key, mandatory=True, confirm_timeout=timeout
        )

    def check_heartbeat(self) -> None:
        """Send one if it is due; raises if the broker's are missing."""
        self.heartbeat_tick(rate=2)

    def end(self, timeout: float) -> None:
        """Close politely, waiting at most *timeout* seconds for the broker."""
        self.sock.settimeout(timeout)
        self.close()

    def collect(self) -> None:
        """Leave it, without a word to the broker."""
        if self._pulse is not None:
            self._pulse.end()
        super().collect()

    def _send(self, frame: bytes) -> None:
        self.transport.write(frame)
        self.bytes_sent += 1  # by which py-amqp knows that no heartbeat is due

    def take(self) -> bool:
        """Take in what has arrived, without waiting; False if that was nothing.

        :raises OSError: the connection is lost.
        :raises amqp.exceptions.UnexpectedFrame: the frames make no sense.
        """
        transport = self.transport
        data = self._fetch(transport.sock)
        if data is None:
            return False
        if not data:
            raise ConnectionResetError('the broker has closed the connection')
        data, position = transport._read_buffer + data, 0
        while True:
            position = self._take_deliveries(data, position)
            frame = _frame_at(data, position)
            if frame is None:
                transport._read_buffer = data[position:]
                return True
            # py-amqp may read on by itself from here: it must find the rest.
            transport._read_buffer = data[position + len(frame[2]) + OVERHEAD :]
            self.on_inbound_frame(frame)
            data, position = transport._read_buffer, 0

    def _take_deliveries(self, data: bytes, position: int) -> int:
        """Hand over the complete deliveries that follow each other.

        :param position: where in *data* a frame begins.
        :returns: where the first frame begins that is none of such a delivery.
        """
        end = len(data)
        while end - position > SHORTEST_DELIVERY and data[position + 7 : position + 11] == DELIVER:
            kind, channel, size = _frame(data, position)
            header = position + size + OVERHEAD
            if kind != METHOD or end - header < SHORTEST_HEADER:
                break
            kind, header_channel, size, _, _, length = _header_frame(data, header)
            body = header + size + OVERHEAD
            after = body + length + OVERHEAD
            if kind != HEADER or header_channel != channel or after > end or not length:
                break
            if _frame(data, body) != (BODY, channel, length):
                break
            if not data[header - 1] == data[body - 1] == data[after - 1] == FRAME_END:
                break
            if not self._deliver(channel, data, position + 11, header + 7, body, after - 1):
                break
            position = after
        return position

    def _deliver(
        self, channel: int, data: bytes, method: int, header: int, body: int, end: int
    ) -> bool:
        """Hand over one delivery, whose parts are at these places in *data*."""
        tag_end = method + 1 + data[method]
        consumer = self._consumers.get((channel, data[method + 1 : tag_end]))
        if consumer is None:
            return False
        delivery_tag, redelivered, length = _delivery(data, tag_end)
        key = tag_end + 10 + length
        consumer(
            Delivery(
                self.channels[channel],
                delivery_tag,
                redelivered,
                data[tag_end + 10 : key],
                data[key + 1 : key + 1 + data[key]],
                data[header : body - 1],
                data[body + 7 : end],
            )
        )
        self.bytes_recv += 1  # by which py-amqp knows that the broker lives
        return True

    def _fetch(self, sock: Any) -> bytes | None:
        """What has arrived: None for nothing, b'' for the end."""
        try:
            if type(sock) is socket.socket:
                return sock.recv(CHUNK, socket.MSG_DONTWAIT)
            with self.transport.having_timeout(0):  # TLS knows no flags
                return sock.recv(CHUNK)  # type: ignore[no-any-return]
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError, TimeoutError):
            return None


def _parameters(url: str) -> dict[str, Any]:
    """py-amqp's words for what is in an URL, which has been validated.

    ``urllib.parse`` knows URLs, but takes longer to import than the broker takes to answer.
    """
    scheme, _, rest = url.partition('://')
    authority, _, path = rest.partition('?')[0].partition('/')
    credentials, _, place = authority.rpartition('@')
    user, _, password = credentials.partition(':')
    found = re.fullmatch(r'\[(?P<v6>.*)\]:?(?P<v6port>\d*)|(?P<host>[^:]*):?(?P<port>\d*)', place)
    assert found is not None
    host = found['v6'] or found['host'] or 'localhost'
    port = found['v6port'] or found['port'] or (TLS_PORT if scheme == 'amqps' else PORT)
    return {
        'host': f'[{host}]:{port}' if found['v6'] else f'{host}:{port}',
        'userid': _unquoted(user) or 'guest',
        'password': _unquoted(password) or 'guest',
        # "//" and "/%2F" are the default one, and so is none.
        'virtual_host': _unquoted(path) or '/',
        'ssl': {'server_hostname': host, 'cert_reqs': CERT_REQUIRED}
        if scheme == 'amqps'
        else False,
    }


def _unquoted(text: str) -> str:
    """*text* with its percent-encoding undone: :rfc:`3986`, section 2.1."""
    return re.sub(
        rb'%([0-9A-Fa-f]{2})', lambda found: bytes([int(found[1], 16)]), text.encode()
    ).decode(errors='replace')


def _frame_at(data: bytes, position: int) -> tuple[int, int, bytes] | None:
    """The frame that begins there, as py-amqp takes it; None if it is not complete."""
    if len(data) - position < OVERHEAD:
        return None
    kind, channel, size = _frame(data, position)
    end = position + size + OVERHEAD
    if end > len(data):
        return None
    if data[end - 1] != FRAME_END:
        raise UnexpectedFrame(f'a frame ends with {data[end - 1]:#04x} instead of 0xce')
    return kind, channel, data[position + 7 : end - 1]
