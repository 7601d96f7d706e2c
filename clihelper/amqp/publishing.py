"""A published message as bytes: its method, its header and its body, in frames.

The layout is that of AMQP 0-9-1, sections 4.2.3 and 4.2.6.
"""

from __future__ import annotations

from struct import Struct, error

import amqp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = b'\xce'
OVERHEAD = 8  # bytes of a frame besides its payload
BASIC, PUBLISH = 60, 40
MANDATORY, OPTIONAL = b'\x01', b'\x00'
DIRECT_REPLY = 'amq.rabbitmq.reply-to.'
LONGEST_NAME = 255  # bytes of a short string

PROPERTIES = frozenset(name for name, _ in amqp.Message.PROPERTIES if name != 'cluster_id') - {
    'application_headers'
} | {'headers'}
"""The names of AMQP's basic properties."""

MOST_CACHED = 64


class HeadersTooLarge(ValueError):
    """The properties of a message do not fit into a frame."""



_frame = Struct('>BHI').pack  # type, channel, size
_publish = Struct('>HHH').pack  # class, method, a reserved number
_header = Struct('>HHQ').pack  # class, weight, size of the body

_cached: dict[tuple[str, int], bytes] = {}


def frames(
    channel: int,
    body: bytes,
    exchange: str,
    routing_key: str,
    properties: dict[str, Any] | bytes,
    frame_max: int,
) -> bytes:
    """All frames of one message, mandatory unless it is a direct reply.

    :param channel: its number.
    :param frame_max: bytes of a frame, at most; 0: no limit.
    :raises TypeError, ValueError: something cannot be encoded.
    """
    # RabbitMQ would return a direct reply as unroutable, and deliver it all the same.
    direct = not exchange and routing_key.startswith(DIRECT_REPLY)
    flags = OPTIONAL if direct else MANDATORY
    method = b''.join((_publish(BASIC, PUBLISH, 0), _name(exchange), _name(routing_key), flags))
    header = _header(BASIC, 0, len(body)) + _serialized(properties)
    if frame_max and len(header) + OVERHEAD > frame_max:
        raise HeadersTooLarge(f'properties of {len(header)} bytes; the broker takes {frame_max}')
    parts: list[bytes | memoryview] = [
        _frame(METHOD, channel, len(method)), method, FRAME_END,
        _frame(HEADER, channel, len(header)), header, FRAME_END,
    ]  # fmt: skip
    size = frame_max - OVERHEAD if frame_max else len(body)
    whole = body if len(body) <= size else memoryview(body)  # parts of it are no copies
    for start in range(0, len(body), size or 1):
        part = whole[start : start + size]
        parts += (_frame(BODY, channel, len(part)), part, FRAME_END)
    return b''.join(parts)


def _name(text: str) -> bytes:
    """A short string."""
    encoded = text.encode()
    if len(encoded) > LONGEST_NAME:
        raise ValueError(f'longer than {LONGEST_NAME} bytes: {text[:40]!r}...')
    return bytes((len(encoded),)) + encoded


def _serialized(properties: dict[str, Any] | bytes) -> bytes:
    """The properties of a message; those that are None are left out."""
    if isinstance(properties, bytes):
        return properties
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
        raise TypeError(f'no property of a message: {", ".join(sorted(unknown))}')
    given = {name: value for name, value in properties.items() if value is not None}
    for name, convert in (('expiration', _milliseconds), ('timestamp', _time)):
        if name in given:
            given[name] = convert(given[name])
    if 'headers' in given:
        given['application_headers'] = given.pop('headers')
    try:
        return amqp.Message(**given)._serialize_properties()  # type: ignore[no-any-return]
    except (AttributeError, TypeError, ValueError, error, amqp.exceptions.FrameSyntaxError) as e:
        raise TypeError(f'the properties of a message cannot be encoded: {e}') from e


def _milliseconds(value: Any) -> str:
    """AMQP has this number as a text."""
    return str(value)


def _time(value: Any) -> int:
    """A timestamp in seconds, from a number or a :class:`datetime.datetime`."""
    return int(value.timestamp() if hasattr(value, 'timestamp') else value)
