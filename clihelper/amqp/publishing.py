"""A published message as bytes: its method, its header and its body, in frames.

The layout is that of AMQP 0-9-1, sections 4.2.3 and 4.2.6.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, error

import amqp

from clihelper.amqp.frames import BASIC, BODY, HEADER, METHOD, OVERHEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FRAME_END = b'\xce'
PUBLISH = b'\x00\x3c\x00\x28\x00\x00'  # class, method, a reserved number
MANDATORY, OPTIONAL = b'\x01', b'\x00'
DIRECT_REPLY = 'amq.rabbitmq.reply-to.'
LONGEST_NAME = 255  # bytes of a short string

PROPERTIES = frozenset(name for name, _ in amqp.Message.PROPERTIES if name != 'cluster_id') - {
    'application_headers'
} | {'headers'}
"""The names of AMQP's basic properties."""

MOST_CACHED = 64

_frame = Struct('>BHI').pack  # type, channel, size
_header = Struct('>HHQ').pack  # class, weight, size of the body

_cached: dict[tuple[str, int], bytes] = {}


class HeadersTooLarge(ValueError):
    """The properties and headers of a message do not fit in a frame, and AMQP has one for them.

    :ivar int excess: how many bytes they are too large.
    """

    def __init__(self, excess: int, frame_max: int) -> None:
        super().__init__(
            'the headers and properties of a message do not fit in a frame of'
            f' {frame_max} bytes: {excess} too many'
        )
        self.excess = excess


def frames(
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
    :param frame_max: bytes of a frame, at most; 0: no limit.
    :param mandatory: whether the broker is to return it if no queue gets it. A direct reply is
        never mandatory: RabbitMQ would return it as unroutable, and deliver it all the same.
    :raises HeadersTooLarge: the properties do not fit in a frame.
    :raises TypeError, ValueError: something cannot be encoded.
    """
    direct = not exchange and routing_key.startswith(DIRECT_REPLY)
    flags = MANDATORY if mandatory and not direct else OPTIONAL
    method = b''.join((PUBLISH, _name(exchange), _name(routing_key), flags))
    packed = _serialized(properties) if isinstance(properties, dict) else properties
    header = _header(BASIC, 0, len(body)) + packed
    excess = len(header) + OVERHEAD - frame_max
    if excess > 0 and frame_max:
        raise HeadersTooLarge(excess, frame_max)
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


@lru_cache(maxsize=256)
def _name(text: str) -> bytes:
    """A short string; few exchanges and routing keys are used again and again."""
    encoded = text.encode()
    if len(encoded) > LONGEST_NAME:
        raise ValueError(f'longer than {LONGEST_NAME} bytes: {text[:40]!r}...')
    return bytes((len(encoded),)) + encoded


def _serialized(properties: dict[str, Any]) -> bytes:
    """The properties of a message; those that are None are left out."""
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
