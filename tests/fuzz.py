"""Random deliveries, of which each is made by a seed and its number alone.

A delivery is what a publisher may write that respects nothing, and what a handler may do with it
that respects nothing either. ``python -m tests.fuzz SEED NUMBER`` shows one.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.oddities import EXCEPTIONS, RESULTS

FRAME_MAX = 131072
"""bytes of a frame, as RabbitMQ and clihelper agree on by default"""

HEADER_ROOM = FRAME_MAX - 8 - 12
"""bytes of properties that a content header of that size has room for"""

MAX_BODY = 200_000
"""bytes, of the consumer's configuration"""

ATTRIBUTES = (
    'body', 'attempts', 'returns', 'properties', 'headers', 'content_type', 'content_encoding',
    'exchange', 'routing_key', 'origin', 'redelivered', 'reply_to', 'correlation_id',
)  # fmt: skip
"""what a handler may read of a message"""

SETTLINGS = (
    *[()] * 12, ('ack',), ('reject',), ('requeue',), ('ack', 'ack'),
    ('reject', 'ack'), ('ack', 'requeue'), ('ack in a thread',),
    ('ack in a thread', 'reject in a thread', 'ack'), ('reject in a thread',),
    ('ack in a thread that is not waited for',),
)  # fmt: skip
"""what a handler may do itself to settle a message"""


@dataclass(frozen=True)
class Delivery:
    """What a publisher has written.

    :ivar routing_key: with which it is published, as bytes.
    :ivar packed: the properties, as they are in a content header.
    :ivar kinds: what was done to the properties; what the body is.
    """

    number: int
    routing_key: bytes
    packed: bytes
    body: bytes
    kinds: tuple[str, str]


@dataclass(frozen=True)
class Act:
    """What the handler does with a delivery.

    :ivar reads: the attributes that it reads, in this order.
    :ivar settles: what it does to settle it itself.
    :ivar result: a key of :data:`~tests.oddities.RESULTS`, which it returns; or empty.
    :ivar error: a key of :data:`~tests.oddities.EXCEPTIONS`, which it raises; or empty.
    """

    reads: tuple[str, ...]
    settles: tuple[str, ...]
    result: str
    error: str


def delivery(seed: int, number: int, queue: str) -> Delivery:
    """One delivery.

    :param queue: what the names of the queues begin with to which replies are to go.
    """
    chance = Random(f'{seed} delivery {number}')
    kind, content_type, encoding, body = _body(chance, number)
    fields = _fields(chance, queue)
    if content_type is not None:
        fields['content_type'] = short(content_type)
    if encoding is not None:
        fields['content_encoding'] = short(encoding)
    mutation = _one_of(chance, MUTATIONS)
    packed = MUTATIONS[mutation](chance, fields)
    routing_key = chance.choice((b'orders.new', b'', b'\xe9', b'x' * 255, b'a\0\n', 'é'.encode()))
    return Delivery(number, routing_key, packed, body, (mutation, kind))


def act(seed: int, number: int) -> Act:
    """What the handler does with that delivery, each time that it is run."""
    chance = Random(f'{seed} act {number}')
    reads = tuple(chance.choices(ATTRIBUTES, k=chance.choice((0, 0, 1, 3, 26))))
    settles = chance.choice(SETTLINGS)
    if chance.random() < 0.45:
        return Act(reads, settles, chance.choice(tuple(RESULTS)), '')
    return Act(reads, settles, '', chance.choice(tuple(EXCEPTIONS)))


RARE = frozenset({
    'large', 'too large', 'many headers', 'headers that nearly fill a frame',
    'headers larger than a frame',
})  # fmt: skip
"""what costs time, and is made less often"""


def _one_of(chance: Random, kinds: dict[str, Any]) -> str:
    kind = chance.choice(tuple(kinds))
    if kind in RARE and chance.random() < 0.6:
        return _one_of(chance, kinds)
    return kind


def number_in(body: bytes) -> int | None:
    """The number of the delivery that a body is of; None: it says none."""
    found = re.search(rb'#(\d+)#', body[:200].replace(b'\0', b''))
    return None if found is None else int(found[1])


# Bodies.

CHARSETS = (
    'utf-8', 'UTF8', 'latin-1', 'utf-16', 'utf-16le', 'ascii', 'utf-7', 'utf-32', 'cp037',
    'no-such', 'rot13', 'hex', 'base64', 'zlib', 'bz2', 'uu', 'quopri', 'idna', 'punycode',
    'undefined', 'unicode_escape', 'raw_unicode_escape', 'mbcs', 'oem', 'aliases', '../etc',
    'a' * 200, '', '"', 'utf-8"', '\0', 'é', '%s', 'utf-8; charset=latin-1', 'charmap',
    'utf_8_sig',
)  # fmt: skip


def _body(chance: Random, number: int) -> tuple[str, bytes | None, bytes | None, bytes]:
    """Its kind, its content type, its content encoding and itself."""
    mark = f'#{number}#'
    kind = _one_of(chance, BODIES)
    content_type, body = BODIES[kind](chance, mark)
    encoding = chance.choice((None, None, None, b'utf-8', b'latin-1', b'gzip', b'\xff', b'hex'))
    return kind, content_type, encoding, body


def _json(text: str, content_type: bytes = b'application/json') -> tuple[bytes, bytes]:
    return content_type, text.encode('utf-8', 'surrogatepass')


def _with_charset(chance: Random, mark: str) -> tuple[bytes, bytes]:
    charset = chance.choice(CHARSETS)
    try:
        body = f'{mark} é'.encode(charset)
    except (LookupError, ValueError, TypeError):
        body = f'{mark} \xe9'.encode('latin-1')
    if number_in(body) is None:
        body = mark.encode()
    kind = chance.choice(('text/plain', 'application/json', 'text/x'))
    return f'{kind};{chance.choice(("", " "))}charset={charset}'.encode(), body


BODIES: dict[str, Callable[[Random, str], tuple[bytes | None, bytes]]] = {
    'JSON': lambda chance, mark: _json(json.dumps({'id': mark, 'values': [1, 2.5, None]})),
    'JSON of another type': lambda chance, mark: _json(f'["{mark}"]', b'application/x+json; a=b'),
    'JSON, cut': lambda chance, mark: _json(f'{{"id": "{mark}", "values": [1, 2'),
    'JSON, deep': lambda chance, mark: _json(f'["{mark}", ' + '[' * 20_000),
    'JSON, deep and whole': lambda chance, mark: _json(
        f'["{mark}", ' + '[' * 900 + ']' * 900 + ']'
    ),
    'JSON, a number without end': lambda chance, mark: _json(f'["{mark}", {"9" * 5000}]'),
    'JSON, numbers that it has not': lambda chance, mark: _json(f'["{mark}", NaN, 1e999]'),
    'JSON, lone surrogates': lambda chance, mark: _json(f'["{mark}", "\\ud800", "\ud800"]'),
    'JSON, names twice': lambda chance, mark: _json(f'{{"id": "{mark}", "id": 2}}'),
    'JSON in UTF-16': lambda chance, mark: (b'application/json', f'["{mark}"]'.encode('utf-16')),
    'text': lambda chance, mark: (b'text/plain', f'{mark} text'.encode()),
    'text in UTF-16': lambda chance, mark: (b'text/plain', f'{mark} text'.encode('utf-16')),
    'text in Latin-1': lambda chance, mark: (b'text/plain', mark.encode() + b'\xe9\xff'),
    'with a charset': _with_charset,
    'bytes': lambda chance, mark: (None, mark.encode() + chance.randbytes(40)),
    'bytes of a type': lambda chance, mark: (b'application/octet-stream', mark.encode()),
    'of another type': lambda chance, mark: (b'image/png', mark.encode()),
    'of no type': lambda chance, mark: (chance.randbytes(20), mark.encode()),
    'large': lambda chance, mark: (b'text/plain', mark.encode() + b'x' * (MAX_BODY - 100)),
    'too large': lambda chance, mark: (b'text/plain', mark.encode() + b'x' * (MAX_BODY + 100)),
    'empty': lambda chance, mark: (chance.choice((None, b'text/plain', b'application/json')), b''),
}


# Properties: in bytes, so that nothing of what is tested makes them.

NAMES = (
    'content_type', 'content_encoding', 'headers', 'delivery_mode', 'priority', 'correlation_id',
    'reply_to', 'expiration', 'message_id', 'timestamp', 'type', 'user_id', 'app_id',
    'cluster_id',
)  # fmt: skip

Fields = dict[str, bytes]


def short(data: bytes) -> bytes:
    """A short string."""
    return bytes((len(data),)) + data


def long(data: bytes) -> bytes:
    """A long string, or whatever else has its length in four bytes before it."""
    return struct.pack('>I', len(data)) + data


def entry(name: bytes, value: bytes) -> bytes:
    """A header: its name, and its value with the type before it."""
    return short(name) + value


def packed(fields: Fields, flags: int = 0) -> bytes:
    """Properties as they are in a content header.

    :param flags: further ones.
    """
    for bit, name in enumerate(NAMES):
        flags |= (0x8000 >> bit) * (name in fields)
    return struct.pack('>H', flags) + b''.join(fields[n] for n in NAMES if n in fields)


def _fields(chance: Random, queue: str) -> Fields:
    """Some properties, all of them sound."""
    return {
        name: make(chance, queue) for name, make in SOUND.items() if chance.random() < 0.5
    }


def _reply_to(chance: Random, queue: str) -> bytes:
    return short(chance.choice((
        *[f'{queue}.replies'] * 4, *[f'{queue}.missing'] * 4, '', 'x' * 255, 'é', 'a\nb\0',
        'amq.rabbitmq.reply-to.nobody', 'amq.rabbitmq.reply-to.g1h2AA5yZXBseQAA.x==',
        f'{queue}.dead.replies',
    )).encode())  # fmt: skip


SOUND: dict[str, Callable[[Random, str], bytes]] = {
    'headers': lambda chance, queue: long(b''.join(_headers(chance))),
    'delivery_mode': lambda chance, queue: chance.choice((b'\x01', b'\x02', b'\x02')),
    'priority': lambda chance, queue: bytes((chance.randrange(256),)),
    'correlation_id': lambda chance, queue: short(chance.choice((b'c', b'', b'c' * 255))),
    'reply_to': _reply_to,
    'expiration': lambda chance, queue: short(b'86400000'),
    'message_id': lambda chance, queue: short('m é \u2028\n'.encode()),
    'timestamp': lambda chance, queue: struct.pack('>Q', chance.choice((0, 2**40, 2**64 - 1))),
    'type': lambda chance, queue: short(b'order.created'),
    'app_id': lambda chance, queue: short(b'fuzz'),
    'cluster_id': lambda chance, queue: short(b'one'),
}

NUMBERS = dict(zip('bBUsuIilLfdt', 'bBhhHiIqqfd?', strict=True))
"""the types of numbers in a table, each with its format for struct"""

RETURNED = b'\x20\0' + long(entry(b'x-delivery-count', b'l' + struct.pack('>q', 99)))
"""properties of a message that was returned to its queue very often"""

KINDS = (*(kind for kind in NUMBERS if kind != 'U'), *'SxVTDFA')
"""the types of values that RabbitMQ takes"""


def _value(chance: Random, kind: str, depth: int = 0) -> bytes:
    """A value of that type, with its type before it."""
    if kind in 'fd':
        data = struct.pack(f'>{kind}', chance.choice((0.0, -1.5, 1e30)))
    elif kind in NUMBERS:
        size = struct.calcsize(f'>{NUMBERS[kind]}')
        data = chance.choice((bytes(size), b'\xff' * size, b'\x7f' + b'\xff' * (size - 1),
                              chance.randbytes(size)))  # fmt: skip
    elif kind == 'S':
        data = long(chance.choice((b'', b'text', 'é'.encode(), b'\xe9', b'\0', b's' * 3000)))
    elif kind == 'x':
        data = long(chance.randbytes(chance.randrange(9)))
    elif kind == 'V':
        data = b''
    elif kind == 'T':
        data = struct.pack('>Q', chance.choice((0, 2**31, 253402300799, 2**63, 2**64 - 1)))
    elif kind == 'D':
        data = struct.pack('>Bi', chance.randrange(256), chance.choice((0, 150, -1, 2**31 - 1)))
    else:
        data = long(b''.join(_nested(chance, kind, depth + 1)))
    return kind.encode() + data


def _nested(chance: Random, kind: str, depth: int) -> Iterator[bytes]:
    for _ in range(chance.randrange(4)):
        value = _value(chance, chance.choice(KINDS[:-2] if depth > 3 else KINDS), depth)
        yield entry(b'n', value) if kind == 'F' else value


OF_THE_BROKER = (
    b'x-death', b'x-first-death-queue', b'x-first-death-reason', b'x-last-death-exchange',
    b'x-delivery-count', b'x-acquired-count', b'x-stream-offset',
)  # fmt: skip

OF_CLIHELPER = (
    b'x-clihelper-attempts', b'x-clihelper-reason', b'x-clihelper-exchange',
    b'x-clihelper-routing-key', b'x-clihelper-exception', b'x-clihelper-message',
    b'x-clihelper-queue', b'x-clihelper-time', b'x-clihelper-host', b'x-clihelper-application',
    b'x-clihelper-properties', b'x-clihelper-', b'x-clihelper',
)  # fmt: skip


def _headers(chance: Random) -> Iterator[bytes]:
    for _ in range(chance.randrange(6)):
        name = chance.choice((
            b'mine', b'', b'n' * 255, 'é'.encode(), b'a\0\nb', chance.choice(OF_THE_BROKER),
            chance.choice(OF_CLIHELPER), b'x-delivery-count', b'x-clihelper-attempts',
        ))  # fmt: skip
        yield entry(name, _value(chance, chance.choice(KINDS)))


# What is done to properties that were sound.

def _with_header(fields: Fields, *entries: bytes) -> Fields:
    return {**fields, 'headers': long(b''.join(entries))}


def _flip(chance: Random, fields: Fields) -> bytes:
    data = bytearray(packed(fields))
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _cut(chance: Random, fields: Fields) -> bytes:
    data = packed(fields)
    return data[: chance.randint(2, len(data))]


def _extend(chance: Random, fields: Fields) -> bytes:
    return packed(fields) + chance.randbytes(chance.choice((1, 2, 300)))


def _insert(chance: Random, fields: Fields) -> bytes:
    data = packed(fields)
    place = chance.randint(2, len(data))
    return data[:place] + chance.randbytes(chance.randint(1, 9)) + data[place:]


def _latin_1(chance: Random, fields: Fields) -> bytes:
    name = chance.choice(
        ('content_type', 'content_encoding', 'correlation_id', 'reply_to', 'message_id', 'type',
         'app_id', 'cluster_id'))  # fmt: skip
    return packed({**fields, name: short(chance.choice((b'\xe9', b'text/\xff', b'a\x80b')))})


def _wrong_length(chance: Random, fields: Fields) -> bytes:
    name = chance.choice(('headers', 'correlation_id', 'type'))
    data = bytearray(fields.get(name, long(entry(b'n', b'V')) if name == 'headers' else b'\x01x'))
    place = chance.choice((0, 3)) if name == 'headers' else 0
    data[place] = chance.choice((0, 1, data[place] ^ 1, 127, 255))
    return packed({**fields, name: bytes(data)})


def _wrong_length_inside(chance: Random, fields: Fields) -> bytes:
    value = b'S' + struct.pack('>I', chance.choice((0, 2, 5, 2**31, 2**32 - 1))) + b'abc'
    return packed(_with_header(fields, entry(b'before', b't\x01'), entry(b'n', value)))


def _unknown_type(chance: Random, fields: Fields) -> bytes:
    value = bytes((chance.choice((0, 0x5A, 0xFF)),)) + bytes(8)
    return packed(_with_header(fields, entry(b'before', b't\x01'), entry(b'n', value)))


def _nested_deeply(chance: Random, fields: Fields) -> bytes:
    value = b'V'
    for _ in range(chance.choice((50, 99, 100, 101, 200, 600))):
        is_table = chance.random() < 0.5
        value = b'F' + long(entry(b'n', value)) if is_table else b'A' + long(value)
    return packed(_with_header(fields, entry(b'deep', value)))


def _every_type(chance: Random, fields: Fields) -> bytes:
    """Those too that RabbitMQ does not take: "U", and numbers that are none."""
    entries = [entry(kind.encode(), _value(chance, kind)) for kind in (*KINDS, 'U')]
    for value in (float('nan'), float('-inf')):
        entries += entry(b'f', struct.pack('>cf', b'f', value)), entry(
            b'd', struct.pack('>cd', b'd', value))  # fmt: skip
    return packed(_with_header(fields, *entries[:chance.choice((len(KINDS), len(entries)))]))


def _of_one_name(chance: Random, fields: Fields) -> bytes:
    return packed(_with_header(fields, *[
        entry(chance.choice((b'same', b'x-clihelper-attempts')), _value(chance, kind))
        for kind in KINDS
    ]))  # fmt: skip


def _many(chance: Random, fields: Fields) -> bytes:
    return packed(_with_header(fields, *[entry(b'%d' % n, b'V') for n in range(5000)]))


def _nearly_too_large(chance: Random, fields: Fields) -> bytes:
    """Headers so large that what is added to them may be too much, in one value or in many."""
    name = chance.choice((b'large', b'x-clihelper-exchange', b'x-clihelper-routing-key',
                          b'x-death', b'x-clihelper-message'))  # fmt: skip
    left = HEADER_ROOM - len(packed(_with_header(fields, entry(name, b'S' + long(b'')))))
    size = left - chance.choice((0, 1, 20, 100, 500, 1200, 1600, 2000, 5000))
    return packed(_with_header(fields, entry(name, b'S' + long(b'x' * size))))


def _too_large(chance: Random, fields: Fields) -> bytes:
    """Larger than a frame, as a broker may make headers itself by adding to them."""
    size = HEADER_ROOM + chance.choice((1, 100, 5000))
    return packed(_with_header(fields, entry(b'large', b'S' + long(b'x' * size))))


def _of_clihelper(chance: Random, fields: Fields) -> bytes:
    return packed(_with_header(fields, *[
        entry(name, _value(chance, chance.choice(KINDS))) for name in OF_CLIHELPER
    ]))  # fmt: skip


def _of_the_broker(chance: Random, fields: Fields) -> bytes:
    return packed(_with_header(fields, *[
        entry(name, _value(chance, chance.choice(KINDS))) for name in OF_THE_BROKER
    ]))  # fmt: skip


def _of_extremes(chance: Random, fields: Fields) -> bytes:
    """Run, or returned, very often or never, by what its publisher says."""
    value = chance.choice((-(2**63), -1, 0, 1, 2, 10, 2**31 - 1, 2**31, 2**63 - 2, 2**63 - 1))
    name = chance.choice((b'x-clihelper-attempts', b'x-delivery-count', b'x-delivery-count'))
    return packed(_with_header(fields, entry(name, b'l' + struct.pack('>q', value))))


def _carbon_copies(chance: Random, fields: Fields) -> bytes:
    value = chance.choice((b'A' + long(b'S' + long(b'nowhere')), b'V', b'S' + long(b'nowhere')))
    return packed(_with_header(fields, entry(chance.choice((b'CC', b'BCC')), value)))


def _odd_expiration(chance: Random, fields: Fields) -> bytes:
    value = chance.choice((b'', b'soon', b'-1', b'86400000.5', b'9' * 30, b'\xff'))
    return packed({**fields, 'expiration': short(value)})


def _of_a_user(chance: Random, fields: Fields) -> bytes:
    return packed({**fields, 'user_id': short(chance.choice((b'guest', b'nobody', b'\xff')))})


def _more_flags(chance: Random, fields: Fields) -> bytes:
    return packed(fields, chance.choice((0x0001, 0x0002, 0x0003))) + b'\0\0' * chance.randrange(2)


MUTATIONS: dict[str, Callable[[Random, Fields], bytes]] = {
    'nothing': lambda chance, fields: packed(fields),
    'none': lambda chance, fields: b'\0\0',
    'flipped bits': _flip,
    'cut': _cut,
    'extended': _extend,
    'inserted': _insert,
    'Latin-1': _latin_1,
    'a wrong length': _wrong_length,
    'a wrong length in a header': _wrong_length_inside,
    'an unknown type': _unknown_type,
    'nested deeply': _nested_deeply,
    'every type': _every_type,
    'headers of one name': _of_one_name,
    'many headers': _many,
    'headers that nearly fill a frame': _nearly_too_large,
    'headers larger than a frame': _too_large,
    'headers of clihelper': _of_clihelper,
    'headers of the broker': _of_the_broker,
    'run or returned very often': _of_extremes,
    'carbon copies': _carbon_copies,
    'an odd expiration': _odd_expiration,
    'of a user': _of_a_user,
    'more flags': _more_flags,
}


# What RabbitMQ is expected to take.

EXTENTS = dict(zip(NAMES, (1, 1, 4, -1, -1, 1, 1, 1, 1, -8, 1, 1, 1, 1), strict=True))
"""of each property: how many bytes its length has, or, negative, how many it has itself"""


def is_taken(packed: bytes) -> bool:
    """Whether RabbitMQ takes properties, as far as one can tell, and bears them.

    Else it closes the channel or the connection.
    """
    try:
        fields = dict(_fields_of(packed))
        headers = set(_entries_of(fields.get('headers', b''), b'F'))
    except (ValueError, IndexError, struct.error):
        return False
    expiration = fields.get('expiration', b'0')
    return (
        len(packed) <= HEADER_ROOM
        and expiration.isdigit()
        and len(expiration) < 10
        and fields.get('user_id', b'guest') == b'guest'
        and fields.get('delivery_mode') in (None, b'\x01', b'\x02')
        and fields.get('reply_to') != b'amq.rabbitmq.reply-to'
        and not any(name in (b'CC', b'BCC') and kind != b'A' for name, kind in headers)
        # Where that is no array of tables as it writes them, dead-lettering ends its queue.
        and (b'x-death', b'A') not in headers
    )


def _fields_of(packed: bytes) -> Iterator[tuple[str, bytes]]:
    flags, place = int.from_bytes(packed[:2], 'big'), 2
    for bit, name in enumerate(NAMES):
        if flags & 0x8000 >> bit:
            value, place = _piece(packed, place, EXTENTS[name])
            yield name, value
    if place != len(packed):
        raise ValueError('there is more')


def _entries_of(data: bytes, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a table or an array: the name of each, and the type of its value."""
    place = 0
    while place < len(data):
        name = b''
        if kind == b'F':
            name, place = _piece(data, place, 1)
        its_kind = data[place : place + 1]
        value, place = _piece(data, place + 1, _extent_of(its_kind.decode('latin-1')))
        if its_kind in (b'F', b'A'):
            for _ in _entries_of(value, its_kind):
                pass
        elif its_kind in (b'f', b'd') and not math.isfinite(
            struct.unpack(f'>{its_kind.decode()}', value)[0]
        ):
            raise ValueError('no number')
        yield name, its_kind


def _extent_of(kind: str) -> int:
    if kind not in KINDS:
        raise ValueError('no type')
    if kind in NUMBERS:
        return -struct.calcsize(f'>{NUMBERS[kind]}')
    return {'V': 0, 'T': -8, 'D': -5}.get(kind, 4)


def _piece(data: bytes, place: int, extent: int) -> tuple[bytes, int]:
    """A value, and where what is behind it begins."""
    size = -extent
    if extent > 0:
        size = int.from_bytes(data[place : place + extent], 'big')
        place += extent
    if place + size > len(data):
        raise ValueError('cut short')
    return data[place : place + size], place + size


def shown(seed: int, number: int) -> str:
    """One delivery for people to read."""
    made, does = delivery(seed, number, 'queue'), act(seed, number)
    rows: dict[str, Any] = {
        'properties': made.kinds[0],
        'body': f'{made.kinds[1]}, {len(made.body)} bytes',
        'handler reads': ', '.join(does.reads) or 'nothing',
        'handler settles': ', '.join(does.settles) or 'nothing',
        'handler': f'raises {does.error}' if does.error else f'returns {does.result}',
        'routing key': made.routing_key,
        'packed': f'{len(made.packed)} bytes {made.packed[:300]!r}',
        'raw body': made.body[:300],
    }
    return '\n'.join(f'{name:16} {value}' for name, value in rows.items())


if __name__ == '__main__':
    print(shown(int(sys.argv[1]), int(sys.argv[2])))
