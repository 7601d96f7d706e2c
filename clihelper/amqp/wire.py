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
import select
import socket
import threading
import time
from functools import lru_cache, partial
from ssl import SSLEOFError, SSLWantReadError, SSLWantWriteError
from struct import Struct

import amqp
from amqp.exceptions import UnexpectedFrame
from amqp.transport import SSLTransport, TCPTransport

from clihelper.amqp import publishing
from clihelper.amqp.acknowledgement import Acknowledger
from clihelper.amqp.heartbeat import Heart
from clihelper.amqp.names import look_up
from clihelper.amqp.tls import hear_last_words, wrap
from clihelper.schema import TLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.link import WaitFor

PORT, TLS_PORT = 5672, 5671

CHUNK = 256 * 1024
"""bytes that are fetched at a time, at most"""

REPLIES = 'amq.rabbitmq.reply-to'
"""a queue that every channel has (https://www.rabbitmq.com/docs/direct-reply-to)"""
WRITE_TIMEOUT = 30.0
"""seconds that a peer that reads nothing holds up who writes"""

FRAME_TIMEOUT = 10.0
"""seconds within which a frame has to be there to its end, or two heartbeats if that is longer"""

METHOD, HEADER, BODY, FRAME_END = 1, 2, 3, 0xCE
OVERHEAD = 8  # bytes of a frame besides its payload
BASIC, BASIC_ACK = 60, 80
DELIVER = b'\x00\x3c\x00\x3c'  # class 60, method 60
SHORTEST_DELIVERY = 12
SHORTEST_HEADER = 22
HAS_TYPE, HAS_ENCODING = 0x80, 0x40  # in the first byte of the properties, which are flags
TYPE = 2  # where the content type is, behind the flags
HEARTBEAT_FRAME = b'\x08\x00\x00\x00\x00\x00\x00\xce'

_frame = Struct('>BHI').unpack_from  # type, channel, size
_header_frame = Struct('>BHIHHQ').unpack_from  # the same, class, weight, size of the body
_deliver_frame = Struct('>BHI4sB').unpack_from  # the same, method, length of the consumer tag
_tag = Struct('>Q').unpack_from
_ack = Struct('>BHIHHQ?B').pack  # a whole frame: 1, channel, 13, 60, 80, tag, multiple, 0xCE


class Delivery:
    """A delivered message, with the attributes of kombu's that a consumer uses.

    :ivar bytes body: the body.
    :ivar int delivery_tag: its number on its channel.
    :ivar bool redelivered: whether it may have been delivered before.
    """

    __slots__ = (
        '_channel', '_content', '_origin', '_packed', 'body', 'delivery_tag', 'redelivered',
    )  # fmt: skip

    def __init__(
        self, channel: Any, delivery_tag: int, origin: bytes, packed: bytes, body: bytes
    ) -> None:
        self._channel = channel
        self.delivery_tag = delivery_tag
        self._origin = origin  # redelivered, exchange, routing key, as they came
        self.redelivered = origin[0] != 0
        self._packed = packed  # the properties, as they came
        self.body = body
        self._content: Any = None

    @classmethod
    def of(cls, message: Any) -> Delivery:
        """What py-amqp has put together itself."""
        info, body = message.delivery_info, message.body
        exchange, key = info['exchange'].encode(), info['routing_key'].encode()
        delivery = cls(
            message.channel,
            info['delivery_tag'],
            bytes([info['redelivered'], len(exchange), *exchange, len(key), *key]),
            b'',
            body.encode() if isinstance(body, str) else bytes(body),
        )
        delivery._content = message
        return delivery

    @property
    def packed(self) -> bytes:
        """As they came."""
        if not self._packed:
            self._packed = self._content._serialize_properties()
        return self._packed

    @property
    def properties(self) -> dict[str, Any]:
        """AMQP's basic properties."""
        if self._content is None:
            self._content = amqp.Message()
            self._content._load_properties(BASIC, self._packed, 0)
        return self._content.properties  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, Any] | None:
        """The application's headers."""
        return self.properties.get('application_headers')

    # The first two properties are needed of many a message that is asked for no other.

    @property
    def content_type(self) -> str | None:
        """The MIME type."""
        packed = self._packed
        if not packed:
            return self.properties.get('content_type')
        if not packed[0] & HAS_TYPE:
            return None
        return _text(packed[TYPE + 1 : TYPE + 1 + packed[TYPE]])

    @property
    def content_encoding(self) -> str | None:
        """The encoding."""
        packed = self._packed
        if not packed:
            return self.properties.get('content_encoding')
        flags = packed[0]
        if not flags & HAS_ENCODING:
            return None
        place = TYPE + 1 + packed[TYPE] if flags & HAS_TYPE else TYPE
        return _text(packed[place + 1 : place + 1 + packed[place]])

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Where it comes from."""
        key = 2 + self._origin[1]
        return {
            'delivery_tag': self.delivery_tag,
            'redelivered': self.redelivered,
            'exchange': self._origin[2:key].decode(),
            'routing_key': self._origin[key + 1 :].decode(),
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


class Mould:
    """Takes apart, in one step each, deliveries of the shape of another.

    They are of the same consumer, exchange and routing key, and have properties of the same
    length. What is the same in all of them is compared and not looked into.

    :param data: has the other one.
    :param places: where in it the method's frame, the delivery tag, the header's frame and the
        body's begin.
    :param consumer: gets the deliveries.
    """

    __slots__ = (
        '_channel', '_consumer', '_head', '_middle', '_origin', '_size', '_tail', '_unpack',
    )  # fmt: skip

    def __init__(
        self,
        data: bytes,
        places: tuple[int, int, int, int],
        channel: Any,
        consumer: Callable[[Delivery], None],
    ) -> None:
        start, tag, header, body = places
        length = header + 11  # of the body, behind the class and the weight
        struct = Struct(f'>{tag - start}sQ{length - tag - 8}sQ{body - length - 9}s4sI')
        self._channel = channel
        self._consumer = consumer
        self._unpack = struct.unpack_from
        self._size = struct.size
        self._head, _, self._middle, _, _, self._tail, _ = self._unpack(data, start)
        self._origin = data[tag + 8 : header - 1]

    def take(self, data: bytes, position: int) -> int:
        """Hand over the complete deliveries that follow each other; where the last one ends."""
        channel, consumer, unpack, size = self._channel, self._consumer, self._unpack, self._size
        head, middle, tail, origin = self._head, self._middle, self._tail, self._origin
        end = len(data)
        while position + size < end:
            its_head, tag, its_middle, length, packed, its_tail, again = unpack(data, position)
            body = position + size
            after = body + length
            if its_middle != middle or its_head != head or its_tail != tail or again != length:
                break
            if not length or after >= end or data[after] != FRAME_END:
                break
            consumer(Delivery(channel, tag, origin, packed, data[body:after]))
            position = after + 1
        return position


class Channel(amqp.Channel):  # type: ignore[misc]
    """A channel that stays closed when the broker closes it, and whose answers have a deadline."""

    def _do_revive(self) -> None:
        # py-amqp would open it again, and wait for the answer in the midst of reading.
        self.collect()

    def wait(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Wait for an answer; heartbeats and deliveries in between do not prolong it."""
        if self.connection is not None:
            self.connection.begin_wait(timeout)
        return super().wait(*args, timeout=timeout, **kwargs)


class Wire(amqp.Connection):  # type: ignore[misc]
    """A connection on which complete deliveries take the short road.

    The socket never blocks. Who has to wait for it does so in one place, with a deadline, and
    py-amqp's synchronous calls read by way of :meth:`take` as the loop does; so a peer that stops
    in the midst of a frame holds up nobody.

    :param url: ``amqp://user:password@host:port/vhost``, or ``amqps://`` for TLS.
    :param heartbeat: whole seconds; 0 for none.
    :param timeout: seconds for connecting, and for the answer to each synchronous call.
    :param name: what the broker's operator sees as the connection's name.
    :param tls: the section ``AMQP.tls``; by default its defaults.
    :param options: of other transports; without effect.
    :ivar wait_for: waits in the main thread until a descriptor is readable, or can be written to
        (``write``), or raises at the ``deadline``, a time of the monotonic clock.
    :ivar on_blocked: called with the broker's reason when it takes no more messages, and with
        an empty one when it does again.
    """

    errors: tuple[type[BaseException], ...] = (
        *amqp.Connection.connection_errors,
        *amqp.Connection.channel_errors,
    )

    refusals: tuple[type[BaseException], ...] = amqp.Connection.channel_errors

    expires = True
    """Whether messages leave a queue when their time is over."""

    Channel = Channel

    def __init__(
        self,
        url: str,
        heartbeat: int,
        timeout: float,
        name: str,
        tls: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._tls = tls or TLS.defaults()
        self.wait_for: WaitFor = wait_for
        self.on_blocked: Callable[[str], None] = lambda reason: None
        super().__init__(
            **_parameters(url),
            login_method='PLAIN',
            heartbeat=heartbeat,
            connect_timeout=timeout,
            client_properties={'connection_name': name},
            on_blocked=lambda reason: self.on_blocked(reason or 'no reason given'),
            on_unblocked=lambda: self.on_blocked(''),
            # py-amqp's second is shorter than many a hiccup of a network.
            socket_settings={socket.TCP_USER_TIMEOUT: 2000 * heartbeat},
        )
        self._consumers: dict[tuple[int, bytes], Callable[[Delivery], None]] = {}
        self._shape: tuple[int, int, bytes] | None = None  # of the delivery before
        self._mould: Mould | None = None
        self._write_lock = threading.Lock()
        self._write_timeout = WRITE_TIMEOUT
        self._deadline = 0.0
        self._acknowledger: Acknowledger | None = None
        self._heart: Heart | None = None
        self._fault = ''
        self._begun = 0.0  # when a frame began that has not ended; 0: none
        self._left = False  # whether an error has left frames that were fetched and not acted on

    def Transport(  # noqa: N802
        self, host: str, connect_timeout: float, ssl: Any = False, *_: Any, **settings: Any
    ) -> Any:
        """py-amqp's transport, whose socket does not block."""
        if ssl:
            transport = _Secure(host, connect_timeout=connect_timeout, **settings)
            transport.wrap = partial(wrap, options=self._tls, host=transport.host)
        else:
            transport = _Plain(host, connect_timeout=connect_timeout, **settings)
        transport.write = self._write
        if transport.host.isascii():
            # A str would be looked up by way of the codec "idna", which takes 2 ms to import.
            transport.host = transport.host.encode()
        return transport

    def connect(self, callback: Callable[[], object] | None = None) -> None:
        """Connect; from then on the peer's silence is noticed."""
        self.begin_wait(None)
        super().connect(callback)
        if self.heartbeat:
            self._heart = Heart(self.sock, self.heartbeat, self._beat, self._on_silence)

    def begin_wait(self, timeout: float | None) -> None:
        """An answer is to come within *timeout* seconds, or those that connecting may take."""
        self._deadline = time.monotonic() + (timeout or self.connect_timeout)

    def drain_events(self, timeout: float | None = None) -> None:
        """Take in what comes next: what py-amqp calls while it waits for an answer."""
        deadline = self._deadline
        if timeout is not None:
            deadline = min(deadline, time.monotonic() + timeout)
        while not self.take():
            self.wait_for(self.fileno(), deadline)

    @property
    def transport(self) -> Any:
        """py-amqp's transport. Where there is none, py-amqp would connect unasked."""
        if self._transport is None:
            raise ConnectionResetError(self._fault or 'not connected')
        return self._transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()  # type: ignore[no-any-return]

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

    def consume_replies(
        self, channel: Any, name: str, on_delivery: Callable[[Delivery], None]
    ) -> str:
        """Consume the replies to what *channel* publishes; returns what to say as ``reply_to``."""
        channel.basic_consume(
            REPLIES, no_ack=True, callback=lambda message: on_delivery(Delivery.of(message))
        )
        return REPLIES

    def get(self, channel: Any, queue: str) -> Delivery | None:
        """One message of *queue*; None: it is empty."""
        channel.auto_decode = False
        message = channel.basic_get(queue)
        return None if message is None else Delivery.of(message)

    def acknowledger(self, channel: Any, prefetch: int) -> Acknowledger:
        """What acknowledges the messages of *channel*, also while a handler runs."""

        frame = partial(_ack, METHOD, channel.channel_id, 13, BASIC, BASIC_ACK)

        def send(up_to: int, alone: Sequence[int]) -> None:
            frames = [frame(tag, False, FRAME_END) for tag in alone]
            if up_to:
                frames.append(frame(up_to, True, FRAME_END))
            self.write(b''.join(frames))

        self._acknowledger = Acknowledger(send, prefetch)
        return self._acknowledger

    def has(self, channel: Any) -> bool:
        """Whether *channel* is one of this connection, and open."""
        return channel.connection is self and bool(channel.is_open)

    def confirm(
        self,
        channel: Any,
        on_ack: Callable[[int, bool], None],
        on_nack: Callable[[int, bool], None],
        on_return: Callable[[Exception, str, str, Any], None],
    ) -> bool:
        """Have what is published on *channel* confirmed, by calls in :meth:`take`."""
        channel.auto_decode = False
        channel.confirm_select()
        channel.events['basic_ack'].add(on_ack)
        channel.events['basic_nack'].add(on_nack)
        channel.events['basic_return'].add(on_return)
        return True

    def published(
        self,
        channel: Any,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any] | bytes,
    ) -> bytes:
        """The frames of a message, mandatory unless it is a reply that has no real queue."""
        return publishing.frames(
            channel.channel_id, body, exchange, routing_key, properties, self.frame_max
        )

    def end(self, timeout: float) -> None:
        """Close politely, waiting at most *timeout* seconds for the broker."""
        self._write_timeout = timeout
        self.begin_wait(timeout)
        self.close()

    def collect(self) -> None:
        """Leave it, without a word to the broker."""
        if self._heart is not None:
            self._heart.end()
        super().collect()

    # Writing: two threads do, a frame or more at a time.

    def write(self, data: bytes) -> None:
        """Write frames; a broker that does not read is waited for."""
        self.transport.write(data)
        self.bytes_sent += 1  # by which py-amqp knows that no heartbeat is due

    def _write(self, data: Any) -> None:
        """Write it all.

        :raises OSError: the connection is lost, or takes nothing any more.
        """
        with self._write_lock:
            if self._fault:
                raise ConnectionAbortedError(self._fault)
            sent = self._write_some(data)
            if sent < len(data):
                self._write_rest(memoryview(data)[sent:])

    def _write_rest(self, rest: memoryview) -> None:
        deadline = time.monotonic() + self._write_timeout
        is_main = threading.current_thread() is threading.main_thread()
        wait = self.wait_for if is_main else wait_for
        # What is left in the middle of a frame is of no use for anything that comes behind.
        self._fault = 'a frame was not written to its end'
        while rest:
            wait(self.fileno(), deadline, write=True)
            rest = rest[self._write_some(rest) :]
        self._fault = ''

    def _write_some(self, data: Any) -> int:
        """Write what can be written without waiting; the number of bytes."""
        try:
            return self.sock.send(data)  # type: ignore[no-any-return]
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            return 0

    def _beat(self) -> None:
        """Send what is due, in the thread of the heart, but never wait for it."""
        if self._write_lock.locked() or not writable(self.fileno()):
            return  # more than a heartbeat is on its way
        if self._acknowledger is not None:
            self._acknowledger.flush()
        self._write(HEARTBEAT_FRAME)

    def _on_silence(self, seconds: float) -> None:
        """Wake whoever waits for the peer, in the thread of the heart."""
        self._fault = f'the broker has been silent for {seconds:.1f} s'
        # Of TLS, too, only the socket: the rest belongs to the main thread.
        socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # Reading.

    def take(self) -> bool:
        """Take in what has arrived, without waiting; False if that was nothing.

        :raises OSError: the connection is lost.
        :raises amqp.exceptions.UnexpectedFrame: the frames make no sense.
        """
        transport = self.transport
        data = self._fetch(transport.sock)
        if data is None:
            if not self._left:
                return False
            data = b''
        elif not data:
            raise ConnectionResetError(self._fault or 'the broker has closed the connection')
        self._left = True
        try:
            self._take_frames(transport, transport._read_buffer + data)
        except self.errors:
            raise
        except Exception as error:
            # The peer, or what is between, has lost its way.
            raise UnexpectedFrame(f'frames make no sense: {type(error).__name__}') from error
        self._left = False
        return True

    def _take_frames(self, transport: Any, data: bytes) -> None:
        position = 0
        while True:
            position = self._take_deliveries(data, position)
            frame = _frame_at(data, position, self.frame_max)
            if frame is None:
                transport._read_buffer = data[position:]
                self._check_progress(position > 0, position < len(data))
                return
            # What this calls may raise: the next one must find the rest.
            transport._read_buffer = data[position + len(frame[2]) + OVERHEAD :]
            self._begun = 0.0
            self.on_inbound_frame(frame)
            data, position = transport._read_buffer, 0

    def _check_progress(self, moved: bool, left: bool) -> None:
        """See that a frame that has begun comes to its end.

        :param moved: whether a frame has ended.
        :param left: whether another has begun.
        :raises UnexpectedFrame: it takes too long; perhaps its size is wrong.
        """
        if moved or not left:
            self._begun = 0.0
        if left:
            now = time.monotonic()
            self._begun = self._begun or now
            if now - self._begun > max(FRAME_TIMEOUT, 2 * (self.heartbeat or 0)):
                raise UnexpectedFrame('a frame has begun, and does not end')

    def _take_deliveries(self, data: bytes, position: int) -> int:
        """Hand over the complete deliveries that follow each other.

        :param position: where in *data* a frame begins.
        :returns: where the first frame begins that is none of such a delivery.
        """
        first, after = position, -1
        while position != after:
            after = position
            if self._mould is not None:
                after = self._mould.take(data, position)
            position = self._take_delivery(data, after)
        if position > first:
            self.bytes_recv += 1  # by which py-amqp knows that the broker lives
        return position

    def _take_delivery(self, data: bytes, position: int) -> int:
        """Hand over one delivery, if a complete one begins there; returns where it ends."""
        end = len(data)
        if end - position <= SHORTEST_DELIVERY:
            return position
        kind, channel, size, method, length = _deliver_frame(data, position)
        header = position + size + OVERHEAD
        if method != DELIVER or kind != METHOD or end - header < SHORTEST_HEADER:
            return position
        tag = position + 12
        origin = tag + length + 8
        consumer = self._consumers.get((channel, data[tag : origin - 8]))
        kind, header_channel, size, _, _, length = _header_frame(data, header)
        body = header + size + OVERHEAD
        after: int = body + length + OVERHEAD
        if kind != HEADER or header_channel != channel or after > end or not length:
            return position
        if _frame(data, body) != (BODY, channel, length) or consumer is None:
            return position
        if not data[header - 1] == data[body - 1] == data[after - 1] == FRAME_END:
            return position
        places = position, origin - 8, header, body
        shape = header - position, body - header, data[origin : header + 7]
        # Two in a row that are alike are a rule.
        alike = shape == self._shape
        self._mould = Mould(data, places, self.channels[channel], consumer) if alike else None
        self._shape = shape
        consumer(
            Delivery(
                self.channels[channel],
                _tag(data, origin - 8)[0],
                data[origin : header - 1],
                data[header + 19 : body - 1],
                data[body + 7 : after - 1],
            )
        )
        return after

    def _fetch(self, sock: Any) -> bytes | None:
        """What has arrived: None for nothing, b'' for the end."""
        try:
            if type(sock) is socket.socket:
                return sock.recv(CHUNK)
            with self._write_lock:  # TLS is not made for two threads at a time
                return sock.recv(CHUNK)  # type: ignore[no-any-return]
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            return None


class _Unblocking:
    """What both of py-amqp's transports get here: a socket that does not block, once connected."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock.setblocking(False)

    def _connect(self, host: bytes | str, port: int, timeout: float) -> None:
        """Connect to the first address that answers, within *timeout* seconds in all."""
        deadline = time.monotonic() + timeout
        fault: OSError = TimeoutError('no address')
        for family, kind, protocol, _, address in look_up(host, port, timeout):
            self.sock = socket.socket(family, kind, protocol)
            try:
                self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
                self.sock.connect(address)
                return
            except OSError as error:
                self.sock.close()
                self.sock, fault = None, error
        raise fault

    def _shutdown_transport(self) -> None:
        """Leave at once: TLS would say goodbye, and wait for an answer."""


class _Plain(_Unblocking, TCPTransport):  # type: ignore[misc]
    pass


class _Secure(_Unblocking, SSLTransport):  # type: ignore[misc]
    wrap: Callable[[socket.socket], Any]

    def _wrap_socket(self, sock: socket.socket) -> Any:
        sock.settimeout(self.connect_timeout)  # of the handshake; before 5.2 py-amqp sets none
        return self.wrap(sock)

    def _write(self, data: bytes) -> None:
        """What py-amqp writes itself: the first bytes after the handshake."""
        try:
            super()._write(data)
        except (SSLEOFError, ConnectionError):
            hear_last_words(self.sock)
            raise


def wait_for(descriptor: int | None, deadline: float, *, write: bool = False) -> None:
    """Wait until a descriptor is readable, or can be written to.

    :param deadline: by the monotonic clock.
    :raises TimeoutError: it is not, by then.
    """
    assert descriptor is not None
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if write else select.POLLIN)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError('no answer')


def writable(descriptor: int) -> bool:
    """Whether a descriptor can be written to at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


@lru_cache(maxsize=256)
def _text(data: bytes) -> str:
    """A short text that many messages have in common, decoded as py-amqp does."""
    return data.decode('utf-8', 'surrogatepass')


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
        'ssl': scheme == 'amqps',
    }


def _unquoted(text: str) -> str:
    """*text* with its percent-encoding undone: :rfc:`3986`, section 2.1."""
    return re.sub(
        rb'%([0-9A-Fa-f]{2})', lambda found: bytes([int(found[1], 16)]), text.encode()
    ).decode(errors='replace')


def _frame_at(data: bytes, position: int, most: int) -> tuple[int, int, bytes] | None:
    """The frame that begins there, as py-amqp takes it; None if it is not complete.

    :param most: bytes that a frame may have, as agreed.
    :raises UnexpectedFrame: it cannot be one.
    """
    if len(data) - position < OVERHEAD:
        return None
    kind, channel, size = _frame(data, position)
    end = position + size + OVERHEAD
    if end - position > most:
        raise UnexpectedFrame(f'a frame of {size} bytes')
    if end > len(data):
        return None
    if data[end - 1] != FRAME_END:
        raise UnexpectedFrame(f'a frame ends with {data[end - 1]:#04x} instead of 0xce')
    return kind, channel, data[position + 7 : end - 1]
