"""What a program publishes, as the broker gets it: the body as bytes, and all properties.

The names of the properties are AMQP's. Times are in seconds, as everywhere in Python; AMQP itself
has an expiration in milliseconds, as text.
"""

from __future__ import annotations

import math

from clihelper.amqp import context
from clihelper.amqp.compression import GZIP, compress
from clihelper.amqp.encoding import encode
from clihelper.amqp.message import PERSISTENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST = 255
"""the most bytes of a property that is a text"""

MOST_MILLISECONDS = 2**32 - 1
"""the longest expiration that RabbitMQ accepts"""

OPTIONS = ('mandatory', 'delay', 'compress', 'partition_key', 'timeout')
"""what can be said of a message besides its properties, for suggestions"""


def compose(
    body: Any, properties: Mapping[str, Any], compressed: bool = False
) -> tuple[bytes, dict[str, Any]]:
    """The body as bytes, and the properties with their defaults.

    :param compressed: whether the body should be compressed.
    :raises TypeError, ValueError: the body cannot be encoded, or a property is not as it should
        be.
    """
    payload, content_type = encode(body)
    full = complete(properties, content_type)
    if compressed:
        if full.get('content_encoding') is not None:
            raise ValueError('content_encoding: with compress=True it is gzip')
        payload, full['content_encoding'] = compress(payload), GZIP
    return payload, full


def complete(properties: Mapping[str, Any], content_type: str) -> dict[str, Any]:
    """The properties with their defaults, and the trace of the message that is being handled.

    :raises TypeError, ValueError: see :func:`checked`.
    """
    full = {'content_type': content_type, 'delivery_mode': PERSISTENT}
    if properties:
        full.update(checked(properties))
    if trace := context.trace():
        own = properties.get('headers') or {}
        if not own.keys() & trace.keys():
            full['headers'] = {**trace, **own}
    return full


def checked(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The properties as AMQP has them; None stands for one that is not set.

    :raises TypeError: there is no such property, or its value is of another type.
    :raises ValueError: a value does not fit.
    """
    found = {}
    for name, value in properties.items():
        check = CHECKS.get(name)
        if check is None:
            raise TypeError(_unknown(name))
        found[name] = None if value is None else check(name, value)
    return found


def seconds(name: str, value: Any, most: float = math.inf) -> float:
    """Check a number of seconds.

    :raises TypeError, ValueError: it is none, is negative, or more than *most*.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f'{name}: expected seconds, got {type(value).__name__}')
    if not 0 <= value <= most or value == math.inf:
        limit = '' if most == math.inf else f' up to {most:.0f}'
        raise ValueError(f'{name}: expected seconds from 0{limit}, got {value}')
    return value


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, (*CHECKS, *OPTIONS), 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    return f'{name!r} is not a property of a message that can be set{hint}'


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f'{name}: expected a str, got {type(value).__name__}')
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f'{name}: cannot be encoded in UTF-8') from None
    if size > LONGEST:
        raise ValueError(f'{name}: longer than {LONGEST} bytes')
    return value


def _number(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name}: expected an int, got {type(value).__name__}')
    if not least <= value <= most:
        raise ValueError(f'{name}: expected a number from {least} to {most}, got {value}')
    return value


def _priority(name: str, value: Any) -> int:
    return _number(name, value, 0, 255)


def _delivery_mode(name: str, value: Any) -> int:
    return _number(name, value, 1, PERSISTENT)


def _expiration(name: str, value: Any) -> str:
    milliseconds = seconds(name, value, MOST_MILLISECONDS / 1000) * 1000
    return str(math.ceil(round(milliseconds, 6)))


def _timestamp(name: str, value: Any) -> int:
    from datetime import datetime

    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f'{name}: expected a datetime with a time zone')
        value = value.timestamp()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f'{name}: expected a datetime or seconds, got {type(value).__name__}')
    if not 0 <= value < 2**63:
        raise ValueError(f'{name}: expected seconds since 1970, got {value}')
    return int(value)


def _headers(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) and not hasattr(value, 'items'):
        raise TypeError(f'{name}: expected a mapping, got {type(value).__name__}')
    for key in value:
        _text(f'{name}: a name', key)
    return value if isinstance(value, dict) else dict(value)


CHECKS = {
    'content_type': _text,
    'content_encoding': _text,
    'headers': _headers,
    'delivery_mode': _delivery_mode,
    'priority': _priority,
    'correlation_id': _text,
    'reply_to': _text,
    'expiration': _expiration,
    'message_id': _text,
    'timestamp': _timestamp,
    'type': _text,
    'user_id': _text,
    'app_id': _text,
}
"""The properties, each with what checks a value and returns it as AMQP has it."""
