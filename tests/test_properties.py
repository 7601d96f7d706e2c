"""Properties as bytes: read, copied, encoded; and what publishers write who know no UTF-8."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime
from decimal import Decimal

import amqp
import pytest

from clihelper.amqp import properties
from clihelper.amqp.properties import HEADERS, InvalidProperties, copied, decode, encode, header

EVERYTHING = {
    'content_type': 'text/plain', 'content_encoding': 'utf-8', 'delivery_mode': 2, 'priority': 9,
    'correlation_id': 'é', 'reply_to': 'r', 'expiration': '60000', 'message_id': 'm',
    'timestamp': 1764000000, 'type': 't', 'user_id': 'guest', 'app_id': 'a', 'cluster_id': 'c',
    HEADERS: {
        'text': 'é', 'yes': True, 'no': False, 'small': -5, 'large': 2**40, 'half': 0.5,
        'nothing': None, 'price': Decimal('-1.50'), 'at': datetime(2026, 1, 2, 3, 4, 5),
        'table': {'list': [1, 'a', {'deep': []}], 'empty': {}},
    },
}  # fmt: skip


def short(data):
    return bytes([len(data)]) + data


def table(*entries):
    body = b''.join(short(name) + value for name, value in entries)
    return struct.pack('>I', len(body)) + body


def with_headers(*entries):
    return b'\x20\x00' + table(*entries)


def text(data):
    return b'S' + struct.pack('>I', len(data)) + data


def fault_of(use, packed):
    try:
        use(packed)
    except InvalidProperties as error:
        return str(error)
    return ''


LATIN = b'\x86\x00' + short(b'text/\xe4') + short(b'\xfcber') + short(b'replies')
"""Content type, correlation id and reply_to."""


# decode

def test_what_was_encoded_is_decoded():
    assert decode(encode(EVERYTHING)) == EVERYTHING


def test_what_py_amqp_has_encoded_is_decoded_and_the_other_way_round():
    theirs = amqp.Message(**EVERYTHING)
    assert decode(theirs._serialize_properties()) == EVERYTHING
    theirs._load_properties(60, encode(EVERYTHING), 0)
    assert theirs.properties == EVERYTHING


def test_every_type_of_rabbitmq_is_decoded():
    found = decode(
        with_headers(
            (b'b', b'b\xff'), (b'B', b'B\xff'), (b's', b's\xff\xfe'), (b'u', b'u\xff\xfe'),
            (b'I', b'I\xff\xff\xff\xff'), (b'i', b'i\xff\xff\xff\xff'),
            (b'l', b'l' + b'\xff' * 8), (b'L', b'L' + b'\xff' * 8),
            (b'f', struct.pack('>cf', b'f', 0.5)), (b'd', struct.pack('>cd', b'd', 0.5)),
            (b't', b't\x02'), (b'V', b'V'), (b'x', b'x\x00\x00\x00\x02ab'),
            (b'D', b'D\x02\x00\x00\x00\x96'), (b'T', b'T' + bytes(8)),
        )
    )[HEADERS]  # fmt: skip
    assert found == {
        'b': -1, 'B': 255, 's': -2, 'u': 65534, 'I': -1, 'i': 2**32 - 1, 'l': -1, 'L': -1,
        'f': 0.5, 'd': 0.5, 't': True, 'V': None, 'x': b'ab', 'D': Decimal('1.5'),
        'T': datetime(1970, 1, 1),
    }  # fmt: skip


def test_a_long_string_that_is_not_utf_8_is_bytes():
    assert decode(with_headers((b'a', text(b'\xe4'))))[HEADERS] == {'a': b'\xe4'}


def test_of_headers_of_one_name_the_first_counts():
    packed = with_headers((b'a', text(b'first')), (b'a', text(b'second')))
    assert decode(packed)[HEADERS] == {'a': 'first'}
    assert header(packed, 'a') == 'first'


@pytest.mark.parametrize(
    ('packed', 'fault'),
    [
        (LATIN, 'content_type: not UTF-8'),
        (with_headers((b'\xe4', b'V')), 'headers: a name: not UTF-8'),
        (with_headers((b'a', b'F' + table((b'\xe4', b'V')))),
         'headers: a name: not UTF-8'),
        (with_headers((b'a', b'T' + b'\xff' * 8)), "headers: 'a': time out of range"),
        (with_headers((b'a', b'?')), "headers: 'a': unknown type 0x3f"),
        (with_headers((b'a', b'A\x00\x00\x00\x01?')), "headers: 'a': unknown type 0x3f"),
        (with_headers((b'a\n\x1b', b'?')), r"headers: 'a\n\x1b': unknown type 0x3f"),
        (with_headers((b'a', b'S\xff\xff\xff\xff')), "headers: 'a': cut short"),
        (with_headers((b'a', b'')), 'headers: cut short'),
        (b'\x20\x00\xff\xff\xff\xff', 'headers: cut short'),
        (b'\x10\x00', 'delivery_mode: cut short'),
        (b'\x04\x00\x05abc', 'correlation_id: cut short'),
        (b'\x80', 'properties: cut short'),
        (b'', 'properties: cut short'),
        (b'\x00\x00more', 'properties: more bytes than the flags announce'),
        (b'\x80\x01\x00\x00\x01a', 'properties: more flags than AMQP has properties'),
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_is_the_same_error_each_time(packed, fault):
    for _ in range(2):
        with pytest.raises(InvalidProperties) as raised:
            decode(packed)
        assert str(raised.value) == fault


def test_deep_nesting_is_an_error_and_no_recursion():
    value = b'A\x00\x00\x00\x00'
    for _ in range(5000):
        value = b'A' + struct.pack('>I', len(value)) + value
    packed = with_headers((b'deep', value), (b'a', b'b\x01'))
    with pytest.raises(InvalidProperties, match="headers: 'deep': nested too deeply"):
        decode(packed)
    assert header(packed, 'a') == 1
    assert copied(packed) == packed


def test_an_error_is_bounded_and_has_no_value():
    packed = with_headers((b'\n' * 255, b'?'))
    with pytest.raises(InvalidProperties) as raised:
        decode(packed)
    assert len(str(raised.value)) <= 120


# read, header

def test_one_property_is_read_as_it_came():
    assert properties.read(LATIN, 'correlation_id') == b'\xfcber'
    assert properties.read(LATIN, 'reply_to') == b'replies'
    assert properties.read(LATIN, 'message_id') is None


def test_one_header_is_found_among_others_that_cannot_be_decoded():
    packed = with_headers((b'\xe4', b'V'), (b'a', b'T' + b'\xff' * 8), (b'b', b'b\x07'))
    assert header(packed, 'b') == 7
    assert header(packed, 'c') is None
    assert header(LATIN, 'a') is None


def test_a_header_behind_what_cannot_be_walked_is_an_error():
    with pytest.raises(InvalidProperties, match='unknown type 0x3f'):
        header(with_headers((b'a', b'?'), (b'b', b'b\x07')), 'b')


# copied

def test_a_copy_is_the_same_byte_for_byte():
    for packed in (LATIN, encode(EVERYTHING), b'\x00\x00', b'\x20\x00' + table()):
        assert copied(packed) == packed


def test_properties_and_headers_are_left_out_of_a_copy():
    packed = encode(EVERYTHING)
    copy = copied(packed, without=('expiration', 'user_id'), without_headers=lambda name: (
        name in (b'text', b'table')
    ))  # fmt: skip
    expected = {**EVERYTHING, HEADERS: dict(EVERYTHING[HEADERS])}
    del expected['expiration'], expected['user_id']
    del expected[HEADERS]['text'], expected[HEADERS]['table']
    assert decode(copy) == expected


def test_the_headers_of_rabbitmq_itself_are_left_out_of_a_copy():
    names = (
        'x-death', 'x-first-death-queue', 'x-last-death-reason', 'x-delivery-count',
        'x-acquired-count', 'x-stream-offset', 'x-deaths', 'x-mine',
    )  # fmt: skip
    packed = encode({HEADERS: dict.fromkeys(names, 1)})
    assert list(decode(copied(packed))[HEADERS]) == ['x-deaths', 'x-mine']


def test_headers_are_added_to_a_copy_in_place_of_those_of_the_same_name():
    packed = with_headers((b'\xe4', text(b'\xe4')), (b'a', b'V'), (b'a', b'V'), (b'b', b'b\x01'))
    copy = copied(packed, headers={'a': 'new', 'c': 3})
    assert copy == with_headers(
        (b'\xe4', text(b'\xe4')), (b'b', b'b\x01'), (b'a', text(b'new')),
        (b'c', b'I\x00\x00\x00\x03'),
    )  # fmt: skip


def test_headers_are_added_where_there_were_none():
    copy = copied(LATIN, headers={'a': 'b'}, defaults={'delivery_mode': 2})
    assert copy == b'\xb6\x00' + short(b'text/\xe4') + table((b'a', text(b'b'))) + b'\x02' + (
        short(b'\xfcber') + short(b'replies')
    )


def test_defaults_replace_nothing():
    assert copied(encode({'delivery_mode': 1}), defaults={'delivery_mode': 2}) == encode(
        {'delivery_mode': 1}
    )


def test_what_cannot_be_walked_is_kept_whole_as_a_byte_array():
    broken = b'\x20\x00\xff\xff\xff\xff\xe4'
    with pytest.raises(InvalidProperties):
        copied(broken, headers={'a': 1})
    made = encode({'delivery_mode': 2, HEADERS: {'x-raw': bytearray(broken), 'a': 1}})
    assert header(made, 'x-raw') == broken


# encode

@pytest.mark.parametrize(
    ('given', 'kind', 'fault'),
    [
        ({'content_typ': 'a'}, TypeError, 'not a property of a message: content_typ'),
        ({'correlation_id': 5}, TypeError, 'correlation_id: expected a text, got int'),
        ({'correlation_id': 'a' * 256}, ValueError, 'correlation_id: longer than 255 bytes'),
        ({'correlation_id': '\ud800'}, ValueError, 'correlation_id: cannot be encoded in UTF-8'),
        ({'priority': 256}, ValueError, 'priority: expected a number that fits, got 256'),
        ({'priority': 'a'}, TypeError, "priority: expected a number that fits, got 'a'"),
        ({'timestamp': -1}, ValueError, 'timestamp: expected a number that fits, got -1'),
        ({HEADERS: 'a'}, TypeError, 'headers: expected a mapping, got str'),
        ({HEADERS: {'a': 2**64}}, ValueError, "headers: 'a': out of range"),
        ({HEADERS: {'a': Decimal('NaN')}}, ValueError, "headers: 'a': out of range"),
        ({HEADERS: {'a' * 256: 1}}, ValueError, 'headers: a name: longer than 255'),
        ({HEADERS: {5: 1}}, TypeError, 'headers: a name: expected a text, got int'),
        ({HEADERS: {'a': object()}}, TypeError, 'headers: AMQP has no type for object'),
    ],
)
def test_what_cannot_be_encoded_is_named(given, kind, fault):
    with pytest.raises(kind) as raised:
        encode(given)
    assert str(raised.value).startswith(fault)


def test_a_table_in_itself_cannot_be_encoded():
    endless: dict[str, object] = {}
    endless['a'] = [endless]
    with pytest.raises(ValueError, match='nested too deeply'):
        encode({HEADERS: endless})


def test_times_with_a_zone_and_without_are_the_same():
    naive, aware = datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert encode({HEADERS: {'a': naive}}) == encode({HEADERS: {'a': aware}})


def test_whatever_the_bytes_nothing_but_invalid_properties_is_raised():
    source = random.Random(1)
    whole = encode(EVERYTHING)
    for _ in range(5000):
        mutated = bytearray(whole)
        for _ in range(source.choice((1, 1, 2, 5, 20))):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        packed = bytes(mutated[: source.choice((len(mutated), source.randrange(len(mutated))))])
        for use in (
            decode,
            copied,
            lambda packed: header(packed, 'table'),
            lambda packed: copied(packed, headers={'a': 1}, without=('reply_to',)),
            lambda packed: properties.read(packed, 'cluster_id'),
        ):
            assert len(fault_of(use, packed)) <= 120
