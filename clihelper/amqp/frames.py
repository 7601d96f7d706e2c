"""Frames of AMQP 0-9-1: parses messages that arrive, and encodes messages to publish.

A message consists of several frames: its method, its header, and its body in any number of
frames. A delivery whose frames have all arrived is parsed in one step, by a
:class:`DeliveryTemplate` if it is like the one before. Any other message is assembled frame by
frame by :class:`Contents`. :func:`encode` makes the frames of a message to publish.

No part of a delivery is decoded before it is needed: what a publisher has written is not a fault
of the connection. A violation of the frame layout is one.

The layout is that of AMQP 0-9-1, sections 2.3.5, 4.2.3 and 4.2.6.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, error

import amqp
from amqp.exceptions import UnexpectedFrame

from clihelper.amqp import properties
from clihelper.amqp.escaping import escaped
from clihelper.amqp.properties import InvalidProperties
from clihelper.config.schema import LONGEST_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any
    Consumer = tuple[Any, Callable[['Delivery'], None]]

METHOD, HEADER, BODY, HEARTBEAT, FRAME_END = 1, 2, 3, 8, 0xCE
OVERHEAD = 8  # bytes of a frame besides its payload
HEARTBEAT_FRAME = b'\x08\x00\x00\x00\x00\x00\x00\xce'

BASIC, GET, ACK, REJECT = 60, 70, 80, 90
RETURN, DELIVER, GET_OK = b'\x00\x3c\x00\x32', b'\x00\x3c\x00\x3c', b'\x00\x3c\x00\x47'
"""Class and method of the methods that carry a message."""

CONFIRMED, REFUSED = b'\x00\x3c\x00\x50', b'\x00\x3c\x00\x78'
"""Those with which a broker confirms or refuses what was published: basic.ack and basic.nack."""

CONNECTION_CLOSE, CHANNEL_CLOSE = b'\x00\x0a\x00\x32', b'\x00\x14\x00\x28'
BLOCKED = b'\x00\x0a\x00\x3c'
"""Methods that contain free text from the peer."""

LARGEST_FRAME = 1024 * 1024
"""The most bytes of a frame, whatever the broker proposes, and of a header in any case.

RabbitMQ proposes 131,072. It does not keep to that for headers, which it does not split: it adds
``x-death`` to the headers that publishers write.
"""

SHORTEST_DELIVERY = 12
SHORTEST_HEADER = 22
HAS_TYPE, HAS_ENCODING = 0x80, 0x40  # in the first byte of the properties, which are flags
MORE_FLAGS = 0x01  # in the second byte: another two bytes of flags follow
TYPE = 2  # the offset of the content type, after the flags
HEADER_START = 12  # bytes of a header before the properties: class, weight, size of the body
LONGEST_BODY = 2**63 - 1  # bytes; no body is larger, and some brokers use a signed field
CONTENT_CLASS = BASIC << 16  # the class and the weight, which is 0

_frame = Struct('>BHI').unpack_from  # type, channel, size
_header = Struct('>IQ').unpack_from  # class and weight, size of the body
_header_frame = Struct('>BHIIQ').unpack_from  # start of the frame, then the same as _header
_deliver_frame = Struct('>BHI4sB').unpack_from  # start, method, length of the consumer tag
_tag = Struct('>Q').unpack_from
_code = Struct('>H').unpack_from
_method = Struct('>HH').unpack_from  # class and method
_settle = Struct('>BHIHHQ?B').pack  # a whole frame: 1, channel, 13, 60, method, tag, flag, 0xCE


def settlement(channel: int, method: int, delivery_tag: int, flag: bool) -> bytes:
    """The frame that acknowledges or rejects a message.

    :param method: :data:`ACK` or :data:`REJECT`.
    :param flag: to acknowledge: whether to include all messages up to this one; to reject:
        whether to requeue it.
    """
    return _settle(METHOD, channel, 13, BASIC, method, delivery_tag, flag, FRAME_END)


def get_request(channel: int, queue: str) -> bytes:
    """The frame that requests one message of a queue, which is to be acknowledged: basic.get."""
    name = queue.encode()
    payload = Struct('>HHHB').pack(BASIC, GET, 0, len(name)) + name + b'\x00'
    head = Struct('>BHI').pack(METHOD, channel, len(payload))
    return b''.join((head, payload, bytes((FRAME_END,))))


def confirmation(payload: bytes) -> tuple[int, bool]:
    """The delivery tag of a confirmation, and whether it is for all messages up to that one."""
    return _tag(payload, 4)[0], bool(payload[12] & 1)


def close_reason(payload: bytes) -> tuple[int, str, int, int]:
    """A peer's reason for closing: code, text, and the class and method that caused it.

    RabbitMQ truncates a long text, possibly in the middle of a character.
    """
    text = payload[7 : 7 + payload[6]]
    return _code(payload, 4)[0], escaped(text), *_method(payload, 7 + len(text))


def block_reason(payload: bytes) -> str:
    """The broker's reason for accepting no messages."""
    return escaped(payload[5 : 5 + payload[4]])


def frame_at(data: bytes, position: int, most: int) -> tuple[int, int, bytes] | None:
    """The frame at *position*: type, channel and payload; None if it is not complete.

    :param most: the agreed limit in bytes; a header may have :data:`LARGEST_FRAME`.
    :raises UnexpectedFrame: the bytes cannot be a frame.
    """
    if len(data) - position < OVERHEAD:
        return None
    kind, channel, size = _frame(data, position)
    end = position + size + OVERHEAD
    if end - position > (max(most, LARGEST_FRAME) if kind == HEADER else most):
        raise UnexpectedFrame(f'a frame of {size} bytes')
    if end > len(data):
        return None
    if data[end - 1] != FRAME_END:
        raise UnexpectedFrame(f'a frame ends with {data[end - 1]:#04x} instead of 0xce')
    return kind, channel, data[position + 7 : end - 1]


class Delivery:
    """A message that has arrived, with those attributes of kombu's class that a consumer uses.

    :ivar bytes body: the body.
    :ivar int delivery_tag: its number on its channel; 0 for a message that was returned.
    :ivar bool redelivered: whether it may have been delivered before.
    :ivar bytes origin: a byte for ``redelivered``, then the exchange and the routing key, each
        preceded by its length, as received.
    :ivar bytes packed: the properties as received; see :mod:`clihelper.amqp.properties`.
    """

    __slots__ = (
        '_channel', '_properties', 'body', 'delivery_tag', 'origin', 'packed', 'redelivered',
    )  # fmt: skip

    def __init__(
        self, channel: Any, delivery_tag: int, origin: bytes, packed: bytes, body: bytes
    ) -> None:
        self._channel = channel
        self.delivery_tag = delivery_tag
        self.origin = origin
        self.redelivered = origin[0] != 0
        self.packed = packed
        self.body = body
        self._properties: dict[str, Any] | None = None

    @property
    def announced(self) -> int:
        """The size of the body in bytes; see :class:`Oversized`."""
        return len(self.body)

    @property
    def properties(self) -> dict[str, Any]:
        """AMQP's basic properties.

        :raises InvalidProperties: they cannot be decoded.
        """
        if self._properties is None:
            self._properties = properties.decode(self.packed)
        return self._properties

    @property
    def headers(self) -> dict[str, Any] | None:
        """The application's headers; raises as :attr:`properties` does."""
        return self.properties.get('application_headers')

    # Many handlers need only these two properties.

    @property
    def content_type(self) -> str | None:
        """The MIME type.

        :raises InvalidProperties: it cannot be decoded.
        """
        packed = self.packed
        if not packed[0] & HAS_TYPE:
            return None
        if packed[1] & MORE_FLAGS:
            raise InvalidProperties('content_type: not where it should be')
        try:
            return _text(packed[TYPE : TYPE + 1 + packed[TYPE]])
        except IndexError:
            raise InvalidProperties('content_type: cut short') from None

    @property
    def content_encoding(self) -> str | None:
        """The encoding; raises as :attr:`content_type` does."""
        packed = self.packed
        flags = packed[0]
        if not flags & HAS_ENCODING:
            return None
        if packed[1] & MORE_FLAGS:
            raise InvalidProperties('content_encoding: not where it should be')
        try:
            offset = TYPE + 1 + packed[TYPE] if flags & HAS_TYPE else TYPE
            return _text(packed[offset : offset + 1 + packed[offset]])
        except IndexError:
            raise InvalidProperties('content_encoding: cut short') from None

    @property
    def exchange(self) -> bytes:
        """The exchange that it was published to, as received."""
        return self.origin[2 : 2 + self.origin[1]]

    @property
    def routing_key(self) -> bytes:
        """The routing key that it was published with, as received."""
        return self.origin[3 + self.origin[1] :]

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Where it came from.

        :raises InvalidProperties: the exchange or the routing key is not UTF-8.
        """
        try:
            return {
                'delivery_tag': self.delivery_tag,
                'redelivered': self.redelivered,
                'exchange': self.exchange.decode(),
                'routing_key': self.routing_key.decode(),
            }
        except UnicodeDecodeError:
            raise InvalidProperties('exchange or routing key: not UTF-8') from None

    # May be called in any thread.

    def ack(self) -> None:
        """Acknowledge it."""
        self._channel.settle(ACK, self.delivery_tag, False)

    def reject(self) -> None:
        """Reject it."""
        self._channel.settle(REJECT, self.delivery_tag, False)

    def requeue(self) -> None:
        """Return it to its queue."""
        self._channel.settle(REJECT, self.delivery_tag, True)


class Oversized(Delivery):
    """A message whose body was too large to be kept; :attr:`body` is empty."""

    __slots__ = ('_announced',)

    def __init__(self, *of_any: Any, announced: int) -> None:
        super().__init__(*of_any)
        self._announced = announced

    @property
    def announced(self) -> int:
        """The size that the body had, in bytes."""
        return self._announced


@lru_cache(maxsize=256)
def _text(data: bytes) -> str:
    """Decode a short string, preceded by its length; many messages have the same one."""
    if data[0] >= len(data):
        raise InvalidProperties('content type or encoding: cut short')
    try:
        return data[1:].decode()
    except UnicodeDecodeError:
        raise InvalidProperties('content type or encoding: not UTF-8') from None


class DeliveryTemplate:
    """Parses deliveries of the same shape as a given one, in one step each.

    They have the same consumer, exchange and routing key, and properties of the same length. The
    parts that are the same in all of them are compared, but not parsed.

    :param data: contains the given delivery.
    :param places: the offsets in it of the method's frame, the delivery tag, the header's frame
        and the body's frame.
    :param consumer: called with each delivery.
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
        length = header + 11  # of the body, after the class and the weight
        struct = Struct(f'>{tag - start}sQ{length - tag - 8}sQ{body - length - 9}s4sI')
        self._channel = channel
        self._consumer = consumer
        self._unpack = struct.unpack_from
        self._size = struct.size
        self._head, _, self._middle, _, _, self._tail, _ = self._unpack(data, start)
        self._origin = data[tag + 8 : header - 1]

    def take(self, data: bytes, position: int) -> int:
        """Hand over consecutive complete deliveries; returns where the last one ends."""
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


class Deliveries:
    """Hands over deliveries whose frames have all arrived, in one step each.

    :ivar consumers: maps the number of a channel and a consumer tag to the channel and the
        function that gets the deliveries. Set it with :meth:`direct`.
    """

    def __init__(self) -> None:
        self.consumers: dict[tuple[int, bytes], Consumer] = {}
        self._shape: tuple[int, int, bytes] | None = None  # of the previous delivery
        self._template: DeliveryTemplate | None = None

    def direct(self, consumers: Mapping[tuple[int, bytes], Consumer]) -> None:
        """Add consumers, or replace those with the same keys."""
        self.consumers.update(consumers)
        self._shape = self._template = None

    def stop(self, channel: int, tag: bytes) -> None:
        """Remove one consumer."""
        self.consumers.pop((channel, tag), None)
        self._shape = self._template = None

    def of(self, channel: int) -> dict[tuple[int, bytes], Consumer]:
        """The consumers of one channel."""
        return {key: found for key, found in self.consumers.items() if key[0] == channel}

    def forget(self, channel: int) -> None:
        """Remove the consumers of a channel that is closed."""
        for key in self.of(channel):
            del self.consumers[key]
        self._shape = self._template = None

    def take(self, data: bytes, position: int) -> int:
        """Hand over consecutive complete deliveries.

        :param position: where in *data* a frame begins.
        :returns: where the first frame begins that does not belong to such a delivery.
        """
        after = -1
        while position != after:
            after = position
            if self._template is not None:
                after = self._template.take(data, position)
            position = self._take_one(data, after)
        return position

    def _take_one(self, data: bytes, position: int) -> int:
        """Hand over a delivery if a complete one begins at *position*; returns where it ends.

        Anything malformed is left to :class:`Contents`, which reports it.
        """
        end = len(data)
        if end - position <= SHORTEST_DELIVERY:
            return position
        kind, number, size, method, length = _deliver_frame(data, position)
        header = position + size + OVERHEAD
        if method != DELIVER or kind != METHOD or end - header < SHORTEST_HEADER:
            return position
        tag = position + 12 + length
        consumer = self.consumers.get((number, data[position + 12 : tag]))
        kind, header_number, size, its_class, length = _header_frame(data, header)
        body = header + size + OVERHEAD
        after: int = body + length + OVERHEAD
        if kind != HEADER or header_number != number or its_class != CONTENT_CLASS:
            return position
        if after > end or not length or size < HEADER_START + 2 or consumer is None:
            return position
        if _frame(data, body) != (BODY, number, length):
            return position
        if not data[header - 1] == data[body - 1] == data[after - 1] == FRAME_END:
            return position
        origin = data[tag + 8 : header - 1]
        key = 2 + origin[1]
        if key + 1 + origin[key] != len(origin):
            return position
        channel, on_delivery = consumer
        shape = header - position, body - header, origin
        # Two of the same shape in a row: expect more of them.
        if shape != self._shape:
            self._shape, self._template = shape, None
        else:
            self._template = DeliveryTemplate(
                data, (position, tag, header, body), channel, on_delivery)
        packed = data[header + 19 : body - 1]
        on_delivery(
            Delivery(channel, _tag(data, tag)[0], origin, packed, data[body + 7 : after - 1])
        )
        return after


class Content:
    """A message whose frames have not all arrived.

    :ivar bytes method: the payload of its method's frame.
    :ivar bytes packed: its properties.
    :ivar int announced: the size of its body, in bytes.
    """

    __slots__ = ('_body', '_is_kept', '_missing', 'announced', 'method', 'packed')

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.packed = b''
        self.announced = -1  # until the header arrives
        self._missing = 0
        self._is_kept = True
        self._body = bytearray()

    def add(self, kind: int, payload: bytes, most: int) -> bool:
        """Add a frame; returns whether it was the last.

        :param most: the size in bytes of the largest body that is kept.
        :raises UnexpectedFrame: the frame does not belong to this message.
        """
        if kind == HEADER and self.announced < 0:
            self._add_header(payload, most)
        elif kind == BODY and 0 < len(payload) <= self._missing:
            self._missing -= len(payload)
            if self._is_kept:
                self._body += payload
        else:
            raise UnexpectedFrame(
                f'a frame of type {kind} and {len(payload)} bytes in the middle of a message'
            )
        return not self._missing

    def _add_header(self, payload: bytes, most: int) -> None:
        its_class, size = _header(payload)
        if its_class != CONTENT_CLASS or size > LONGEST_BODY or len(payload) < HEADER_START + 2:
            raise UnexpectedFrame('a content header that does not belong to a message')
        self.packed = payload[HEADER_START:]
        self.announced = self._missing = size
        self._is_kept = size <= most

    @property
    def consumer_tag(self) -> bytes:
        """The consumer that it is delivered to, if its method is :data:`DELIVER`."""
        return self.method[5 : 5 + self.method[4]]

    @property
    def reply(self) -> tuple[int, bytes]:
        """Why it was returned, if its method is :data:`RETURN`: a code and a text."""
        return _code(self.method, 4)[0], self.method[7 : 7 + self.method[6]]

    def delivery(self, channel: Any) -> Delivery:
        """The complete message.

        :raises UnexpectedFrame: its method does not say where it comes from.
        """
        method, tag = self.method, 0
        if method.startswith(RETURN):
            origin = b'\0' + method[7 + method[6] :]
        else:
            offset, end = (5 + method[4], None) if method.startswith(DELIVER) else (4, -4)
            tag = _tag(method, offset)[0]
            origin = method[offset + 8 : end]
        if not is_origin(origin):
            raise UnexpectedFrame('a message that does not say where it comes from')
        if self._is_kept:
            return Delivery(channel, tag, origin, self.packed, bytes(self._body))
        return Oversized(channel, tag, origin, self.packed, b'', announced=self.announced)


class Contents:
    """The messages whose frames have not all arrived, at most one on each channel.

    :param most: the size in bytes of the largest body that is kept. Larger bodies are discarded,
        so that memory is bounded whatever is announced, and whatever arrives.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[int, Content] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, channel: int) -> bool:
        return channel in self._open

    def begin(self, channel: int, method: bytes) -> None:
        """Begin a message: its method has arrived, and a header follows."""
        self._open[channel] = Content(method)

    def add(self, kind: int, channel: int, payload: bytes) -> Content | None:
        """Add a frame; returns the message if it was the last one.

        :raises UnexpectedFrame: no frame of this type is expected.
        """
        content = self._open.get(channel)
        if content is None:
            raise UnexpectedFrame(f'a frame of type {kind} that belongs to no message')
        if not content.add(kind, payload, self._most):
            return None
        return self._open.pop(channel)

    def forget(self, channel: int) -> None:
        """Discard the incomplete message of a channel that is closed."""
        self._open.pop(channel, None)


def is_origin(data: bytes) -> bool:
    """Whether *data* consists of a byte and two short strings."""
    exchange = 2 + data[1] if len(data) > 1 else len(data)
    return exchange < len(data) and exchange + 1 + data[exchange] == len(data)


END = bytes((FRAME_END,))
PUBLISH = b'\x00\x3c\x00\x28\x00\x00'  # class, method, a reserved number
MANDATORY, OPTIONAL = b'\x01', b'\x00'
DIRECT_REPLY = 'amq.rabbitmq.reply-to.'

PROPERTIES = frozenset(name for name, _ in amqp.Message.PROPERTIES if name != 'cluster_id') - {
    'application_headers'
} | {'headers'}
"""The names of AMQP's basic properties."""

MOST_CACHED = 64

_frame_start = Struct('>BHI').pack  # type, channel, size
_next_frame_start = Struct('>BBHI').pack  # the end of the frame before, and the same
_header_start = Struct('>BHIHHQ').pack  # of the frame, then class, weight, size of the body

_cached: dict[tuple[str, int], bytes] = {}


class HeadersTooLarge(ValueError):
    """The properties and headers of a message do not fit in a frame, and AMQP allows only one.

    :ivar int excess: by how many bytes they are too large.
    """

    def __init__(self, excess: int, frame_max: int) -> None:
        super().__init__(
            'the headers and properties of a message do not fit in a frame of'
            f' {frame_max} bytes: {excess} too many'
        )
        self.excess = excess


def encode(
    channel: int,
    body: bytes,
    exchange: str,
    routing_key: str,
    properties: dict[str, Any] | bytes,
    frame_max: int,
    *,
    mandatory: bool = True,
) -> bytes:
    """All frames of one message.

    :param channel: its number.
    :param properties: by name, or packed (see :mod:`clihelper.amqp.properties`).
    :param frame_max: the most bytes of a frame; 0: no limit.
    :param mandatory: whether the broker should return it if it cannot be routed. A direct reply is
        never mandatory: RabbitMQ would return it as unroutable, and still deliver it.
    :raises HeadersTooLarge: the properties do not fit in a frame.
    :raises TypeError, ValueError: something cannot be encoded.
    """
    packed = _serialized(properties) if isinstance(properties, dict) else properties
    length, size = HEADER_START + len(packed), len(body)
    most = frame_max - OVERHEAD if frame_max else max(length, size)
    if length > most:
        raise HeadersTooLarge(length - most, frame_max)
    method = _method_frame(channel, exchange, routing_key, mandatory)
    header = _header_start(HEADER, channel, length, BASIC, 0, size)
    if not size:
        return b''.join((method, header, packed, END))
    if size <= most:
        between = _next_frame_start(FRAME_END, BODY, channel, size)
        return b''.join((method, header, packed, between, body, END))
    parts: list[bytes | memoryview] = [method, header, packed]
    whole = memoryview(body)  # slices of it are not copies
    for start in range(0, size, most):
        part = whole[start : start + most]
        parts += (_next_frame_start(FRAME_END, BODY, channel, len(part)), part)
    return b''.join((*parts, END))


@lru_cache(maxsize=256)
def _method_frame(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The first frame; the same few exchanges and routing keys are used again and again."""
    direct = not exchange and routing_key.startswith(DIRECT_REPLY)
    flags = MANDATORY if mandatory and not direct else OPTIONAL
    method = b''.join((PUBLISH, _short_string(exchange), _short_string(routing_key), flags))
    return b''.join((_frame_start(METHOD, channel, len(method)), method, END))


def _short_string(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > LONGEST_NAME:
        raise ValueError(f'longer than {LONGEST_NAME} bytes: {text[:40]!r}...')
    return bytes((len(encoded),)) + encoded


def _serialized(properties: dict[str, Any]) -> bytes:
    """Encode the properties of a message; those that are None are omitted."""
    if len(properties) > 2:
        return _serialize(properties)
    key = (properties.get('content_type'), properties.get('delivery_mode'))
    found = _cached.get(key)  # type: ignore[arg-type]
    if found is None:
        found = _serialize(properties)
        if len(properties) == 2 and None not in key and len(_cached) < MOST_CACHED:
            _cached[key] = found  # type: ignore[index]
    return found


def _serialize(properties: dict[str, Any]) -> bytes:
    unknown = properties.keys() - PROPERTIES
    if unknown:
        raise TypeError(f'not a property of a message: {", ".join(sorted(unknown))}')
    given = {name: value for name, value in properties.items() if value is not None}
    for name, convert in (('expiration', _milliseconds), ('timestamp', _timestamp)):
        if name in given:
            given[name] = convert(given[name])
    if 'headers' in given:
        given['application_headers'] = given.pop('headers')
    try:
        return amqp.Message(**given)._serialize_properties()  # type: ignore[no-any-return]
    except (AttributeError, TypeError, ValueError, error, amqp.exceptions.FrameSyntaxError) as e:
        raise TypeError(f'the properties of a message cannot be encoded: {e}') from e


def _milliseconds(value: Any) -> str:
    """AMQP represents this number as a string."""
    return str(value)


def _timestamp(value: Any) -> int:
    """A timestamp in seconds, from a number or a :class:`datetime.datetime`."""
    return int(value.timestamp() if hasattr(value, 'timestamp') else value)
