"""The basic properties of a message as bytes: reads and copies them without decoding them all.

A publisher may write what no reader can decode: short strings or header names that are not UTF-8,
or value types that a library does not know. RabbitMQ passes all of it on. This module walks
properties by their lengths, so that a copy keeps each field byte for byte, whatever it contains.

*Packed* properties are what a content header frame contains after the class, the weight and the
size of the body: flags, then the fields that are present. The layout is that of AMQP 0-9-1,
sections 4.2.5.5 and 4.2.6.1; the types in tables are those of RabbitMQ
(https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
"""

from __future__ import annotations

from struct import Struct, error, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

BROKER_HEADERS = (
    'x-death',
    'x-first-death-',
    'x-last-death-',
    'x-delivery-count',
    'x-acquired-count',
    'x-stream-offset',
)
"""The headers that RabbitMQ itself writes; a name that ends with ``-`` is a prefix.

``x-death`` and those derived from it describe dead-lettering by the broker, the counts are those
of quorum queues, and the offset is that of a stream.
"""

HEADERS = 'application_headers'

DEEPEST = 100
"""the deepest nesting of tables and arrays that is decoded or encoded"""

_CONTINUED = 0x0001  # another word of flags follows; basic properties never have one
_UNUSED = 0x0002
_LONGEST_SHORT = 255

# How long a field or a value is: the size of its length prefix, and its size if it has none.
_SHORT, _LONG, _OCTET, _TIME = (1, 0), (4, 0), (0, 1), (0, 8)

_FIELDS = (
    ('content_type', _SHORT),
    ('content_encoding', _SHORT),
    (HEADERS, _LONG),
    ('delivery_mode', _OCTET),
    ('priority', _OCTET),
    ('correlation_id', _SHORT),
    ('reply_to', _SHORT),
    ('expiration', _SHORT),
    ('message_id', _SHORT),
    ('timestamp', _TIME),
    ('type', _SHORT),
    ('user_id', _SHORT),
    ('app_id', _SHORT),
    ('cluster_id', _SHORT),
)
_KINDS = dict(_FIELDS)

_OCTETS = {0: 0, 0x08: 1, 0x10: 1, 0x18: 2}
"""the size of ``delivery_mode`` and ``priority``, by their flags"""

# RabbitMQ reads "L", which py-amqp writes, as the same signed number as "l".
_NUMBERS = {
    ord(kind): Struct(f'>{code}')
    for kind, code in zip('bBUsuIilLfdt', 'bBhhHiIqqfd?', strict=True)
}
_EXTENTS = {
    **{kind: (0, number.size) for kind, number in _NUMBERS.items()},
    **dict.fromkeys(b'SxFA', _LONG),
    ord('T'): _TIME,
    ord('D'): (0, 5),
    ord('V'): (0, 0),
}


class InvalidProperties(ValueError):
    """The properties of a message cannot be walked or decoded.

    The text says which property and why, in at most 120 characters. It contains no values.
    """


def is_broker_header(name: bytes) -> bool:
    """Whether *name* is one of :data:`BROKER_HEADERS`.

    >>> is_broker_header(b'x-first-death-queue'), is_broker_header(b'x-deaths')
    (True, False)
    """
    return name in _BROKER_NAMES or name.startswith(_BROKER_PREFIXES)


_BROKER_NAMES = frozenset(name.encode() for name in BROKER_HEADERS if name[-1] != '-')
_BROKER_PREFIXES = tuple(name.encode() for name in BROKER_HEADERS if name[-1] == '-')


# Reading.

def decode(packed: bytes) -> dict[str, Any]:
    """All properties that are present, by name; the table of headers is ``application_headers``.

    If several headers have the same name, the first one is used, as in RabbitMQ. A long string is
    ``str``, or ``bytes`` if it is not UTF-8. A timestamp is a number among the properties, and a
    naive :class:`datetime.datetime` in UTC among the headers.

    :raises InvalidProperties: something cannot be walked, a short string or the name of a header
        is not UTF-8, a time is beyond the year 9999, or tables are nested too deeply.
    """
    found: dict[str, Any] = {}
    for name, _, value, end in _walk(packed):
        if name == HEADERS:
            found[name] = _decoded_table(packed, value, end, 0)
        elif _KINDS[name] is _SHORT:
            found[name] = _text(packed[value:end], name)
        else:
            found[name] = int.from_bytes(packed[value:end], 'big')
    return found


def read(packed: bytes, name: str) -> bytes | None:
    """One property as received, without its length; None if it is absent.

    :param name: as in :func:`decode`.
    :raises InvalidProperties: the fields before it cannot be walked.
    """
    for field, _, value, end in _walk(packed):
        if field == name:
            return packed[value:end]
    return None


def type_field(packed: bytes) -> bytes | None:
    """The property ``type`` as received, preceded by its length; None if it is absent.

    It is needed for each message, and :func:`read` would take several times as long.

    :raises InvalidProperties: a field before it cannot be walked, or it is cut short.
    """
    try:
        high, low = packed[0], packed[1]
        if not low & 0x20:
            return None
        at = 3 + packed[2] if high & 0x80 else 2
        if high & 0x60:
            if high & 0x40:
                at += 1 + packed[at]
            if high & 0x20:
                at += 4 + int.from_bytes(packed[at : at + 4], 'big')
        at += _OCTETS[high & 0x18]
        if high & 0x07:
            for bit in (0x04, 0x02, 0x01):
                if high & bit:
                    at += 1 + packed[at]
        if low & 0x80:
            at += 1 + packed[at]
        if low & 0x40:
            at += 8
        return packed[at : at + 1 + packed[at]]
    except IndexError:
        raise InvalidProperties('type: cut short') from None


def type_of(packed: bytes) -> str | None:
    """The property ``type``; None if it is absent.

    :raises InvalidProperties: it is not UTF-8, or cannot be found: see :func:`type_field`.
    """
    field = type_field(packed)
    if field is None:
        return None
    if field[0] >= len(field):
        raise InvalidProperties('type: cut short')
    return _text(field[1:], 'type')


def header(packed: bytes, name: str) -> Any:
    """The value of one header, decoded as by :func:`decode`; None if it is absent.

    :raises InvalidProperties: the fields before it cannot be walked, or its value cannot be
        decoded.
    """
    wanted = name.encode()
    for field, _, value, end in _walk(packed):
        if field == HEADERS:
            for found, _, offset, after in _entries(packed, value, end):
                if found == wanted:
                    return _decoded(packed, offset, after, found, 0)
            break
    return None


def readable(packed: bytes) -> dict[str, Any]:
    """Like :func:`decode`, but for people to read: nothing that can be walked is left out.

    What is not UTF-8 in a short string or in the name of a header is escaped, as in ``\\xe9``. The
    value of a header that cannot be decoded is ``bytes``, as received.

    :raises InvalidProperties: they cannot be walked.
    """
    found: dict[str, Any] = {}
    for name, _, value, end in _walk(packed):
        if name == HEADERS:
            table = found[name] = {}
            for entry, _, offset, after in _entries(packed, value, end):
                text = entry.decode(errors='backslashreplace')
                if text not in table:
                    table[text] = _readable_value(packed, offset, after, entry)
        elif _KINDS[name] is _SHORT:
            found[name] = packed[value:end].decode(errors='backslashreplace')
        else:
            found[name] = int.from_bytes(packed[value:end], 'big')
    return found


def _readable_value(packed: bytes, offset: int, end: int, name: bytes) -> Any:
    try:
        return _decoded(packed, offset, end, name, 0)
    except InvalidProperties:
        return packed[offset + 1 : end]


def _walk(packed: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Yield each field: its name, and the offsets of its start, of its value, and of its end."""
    if len(packed) < 2:
        raise InvalidProperties('properties: cut short')
    flags = packed[0] << 8 | packed[1]
    if flags & _CONTINUED:
        raise InvalidProperties('properties: more flags than AMQP has properties')
    start, bit = 2, 0x8000
    for name, extent in _FIELDS:
        if flags & bit:
            value, end = _extent(packed, start, extent)
            if end > len(packed):
                raise InvalidProperties(f'{_shown(name)}: cut short')
            yield name, start, value, end
            start = end
        bit >>= 1
    if start < len(packed):
        raise InvalidProperties('properties: more bytes than the flags announce')


def _extent(packed: bytes, start: int, extent: tuple[int, int]) -> tuple[int, int]:
    """Where the value begins and ends; the end may be beyond that of *packed*."""
    prefix, size = extent
    value = start + prefix
    if prefix:
        size = int.from_bytes(packed[start:value], 'big')
    return value, value + size


def _entries(packed: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield each entry of a table: its name, and the offsets of its start, value type and end."""
    while start < end:
        offset = start + 1 + packed[start]
        if offset >= end:
            raise InvalidProperties('headers: cut short')
        name = packed[start + 1 : offset]
        after = _after(packed, offset, end, name)
        yield name, start, offset, after
        start = after


def _after(packed: bytes, offset: int, end: int, name: bytes) -> int:
    """Where the value ends whose type is at *offset*.

    :param name: the name of the header, for the error.
    """
    extent = _EXTENTS.get(packed[offset])
    if extent is None:
        raise InvalidProperties(f'headers: {_quoted(name)}: unknown type {packed[offset]:#04x}')
    _, after = _extent(packed, offset + 1, extent)
    if after > end:
        raise InvalidProperties(f'headers: {_quoted(name)}: cut short')
    return after


def _decoded_table(packed: bytes, start: int, end: int, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, _, offset, after in _entries(packed, start, end):
        text = _text(name, 'headers: a name')
        if text not in found:
            found[text] = _decoded(packed, offset, after, name, depth)
    return found


def _decoded(packed: bytes, offset: int, end: int, name: bytes, depth: int) -> Any:
    """The value whose type is at *offset* and which ends at *end*."""
    kind, start = packed[offset], offset + 1
    if kind in _NUMBERS:
        return _NUMBERS[kind].unpack_from(packed, start)[0]
    if kind == ord('S'):
        value = packed[start + 4 : end]
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if kind == ord('x'):
        return packed[start + 4 : end]
    if kind == ord('V'):
        return None
    if kind == ord('T'):
        return _time(packed[start:end], name)
    if kind == ord('D'):
        from decimal import Decimal

        return Decimal(int.from_bytes(packed[start + 1 : end], 'big', signed=True)).scaleb(
            -packed[start]
        )
    if depth == DEEPEST:
        raise InvalidProperties(f'headers: {_quoted(name)}: nested too deeply')
    if kind == ord('F'):
        return _decoded_table(packed, start + 4, end, depth + 1)
    return _decoded_array(packed, start + 4, end, name, depth + 1)


def _decoded_array(packed: bytes, offset: int, end: int, name: bytes, depth: int) -> list[Any]:
    found = []
    while offset < end:
        after = _after(packed, offset, end, name)
        found.append(_decoded(packed, offset, after, name, depth))
        offset = after
    return found


def _time(value: bytes, name: bytes) -> Any:
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(int.from_bytes(value, 'big'), UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        raise InvalidProperties(f'headers: {_quoted(name)}: time out of range') from None


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidProperties(f'{name}: not UTF-8') from None


def _shown(name: str) -> str:
    return 'headers' if name == HEADERS else name


def _quoted(name: bytes) -> str:
    """The name of a header, escaped and bounded."""
    quoted = ascii(name[:40].decode('utf-8', 'backslashreplace'))
    return quoted if len(quoted) <= 60 else f'{quoted[:57]}...'


# Writing.

def copied(
    packed: bytes,
    *,
    without: Collection[str] = (),
    without_headers: Callable[[bytes], bool] = is_broker_header,
    headers: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> bytes:
    """Pack properties again; what the arguments do not name stays the same, byte for byte.

    :param without: the properties to omit, by the names of :func:`decode`.
    :param without_headers: returns whether to omit a header, by its name as received; by default
        the headers are omitted that RabbitMQ itself writes.
    :param headers: headers to add, or to replace those of the same name; see :func:`encode`.
    :param defaults: properties to add if they are absent.
    :raises InvalidProperties: the properties cannot be walked.
    :raises TypeError, ValueError: a value in *headers* or *defaults* cannot be encoded.
    """
    added = _table_body(headers or {}, 0)
    replaced = {name.encode() for name in headers or ()}
    fields: dict[str, bytes] = {}
    for name, start, value, end in _walk(packed):
        if name in without:
            continue
        if name != HEADERS:
            fields[name] = packed[start:end]
            continue
        kept = [
            packed[first:after]
            for found, first, _, after in _entries(packed, value, end)
            if found not in replaced and not without_headers(found)
        ]
        # A table that contains only the broker's own headers was added by the broker.
        if kept or added or value == end:
            fields[name] = _with_length(b''.join((*kept, added)))
    if added and HEADERS not in fields:
        fields[HEADERS] = _with_length(added)
    for name, value in (defaults or {}).items():
        if name not in fields:
            fields[name] = _field(name, value)
    return _joined(fields, packed[1] & _UNUSED)


def encode(properties: Mapping[str, Any]) -> bytes:
    """Pack properties given by the names of :func:`decode`; those that are None are omitted.

    Header values are encoded as by py-amqp: ``str`` and ``bytes`` as long strings, and ``bool``,
    ``int``, ``float``, ``Decimal``, ``datetime`` (naive: UTC), ``None``, ``dict``, ``list`` and
    ``tuple`` as the corresponding types. A ``bytearray`` becomes a byte array, which is read back
    as ``bytes`` whatever it contains.

    :raises TypeError: there is no such property, or AMQP has no type for a value.
    :raises ValueError: a value does not fit.
    """
    fields = {
        name: _field(name, value) for name, value in properties.items() if value is not None
    }
    return _joined(fields, 0)


def _joined(fields: Mapping[str, bytes], flags: int) -> bytes:
    parts, bit = [b''], 0x8000
    for name, _ in _FIELDS:
        if name in fields:
            flags |= bit
            parts.append(fields[name])
        bit >>= 1
    parts[0] = flags.to_bytes(2, 'big')
    return b''.join(parts)


def _field(name: str, value: Any) -> bytes:
    kind = _KINDS.get(name)
    if kind is None:
        raise TypeError(f'not a property of a message: {name}')
    if kind is _SHORT:
        return _short(value, name)
    if kind is _LONG:
        return _with_length(_table_body(value, 0))
    try:
        return pack('>B' if kind is _OCTET else '>Q', value)
    except error:
        kind_of = TypeError if not isinstance(value, int) else ValueError
        raise kind_of(f'{name}: expected a number that fits, got {value!r:.40}') from None


def _short(value: Any, name: str) -> bytes:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f'{name}: expected a text, got {type(value).__name__}')
    try:
        encoded = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ValueError(f'{name}: cannot be encoded in UTF-8') from None
    if len(encoded) > _LONGEST_SHORT:
        raise ValueError(f'{name}: longer than {_LONGEST_SHORT} bytes')
    return bytes((len(encoded),)) + encoded


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(4, 'big') + data


def _table_body(table: Mapping[str, Any], depth: int) -> bytes:
    """Encode a table without its length."""
    if not isinstance(table, dict) and not hasattr(table, 'items'):
        raise TypeError(f'headers: expected a mapping, got {type(table).__name__}')
    parts: list[bytes] = []
    for name, value in table.items():
        encoded = _short(name, 'headers: a name')
        try:
            parts += encoded, _encoded(value, depth)
        except (error, OverflowError):
            raise ValueError(f'headers: {_quoted(encoded[1:])}: out of range') from None
    return b''.join(parts)


def _encoded(value: Any, depth: int) -> bytes:
    """Encode a value in a table, preceded by its type."""
    if isinstance(value, str):
        return b'S' + _with_length(value.encode('utf-8', 'surrogatepass'))
    if isinstance(value, bool):
        return b't\x01' if value else b't\x00'
    if isinstance(value, int):
        return pack('>ci', b'I', value) if -(2**31) <= value < 2**31 else pack('>cq', b'l', value)
    if isinstance(value, float):
        return pack('>cd', b'd', value)
    if value is None:
        return b'V'
    if isinstance(value, (bytes, bytearray)):
        return (b'S' if isinstance(value, bytes) else b'x') + _with_length(bytes(value))
    if hasattr(value, 'utctimetuple'):
        return pack('>cQ', b'T', _seconds(value))
    if hasattr(value, 'as_tuple'):
        return _decimal(value)
    if depth == DEEPEST:
        raise ValueError('headers: nested too deeply')
    if isinstance(value, dict):
        return b'F' + _with_length(_table_body(value, depth + 1))
    if isinstance(value, (list, tuple)):
        return b'A' + _with_length(b''.join(_encoded(item, depth + 1) for item in value))
    raise TypeError(f'headers: AMQP has no type for {type(value).__name__}')


def _seconds(value: Any) -> int:
    from datetime import UTC

    return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def _decimal(value: Any) -> bytes:
    if not value.is_finite():
        raise OverflowError
    exponent = min(value.as_tuple().exponent, 0)
    return pack('>cBi', b'D', -exponent, int(value.scaleb(-exponent)))
