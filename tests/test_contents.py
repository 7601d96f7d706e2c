"""Messages put together from their frames: whatever a publisher has written, and nothing else."""

from __future__ import annotations

import contextlib
import random
import resource
import struct
import threading
import tracemalloc

import amqp
import pytest
from amqp.exceptions import UnexpectedFrame

from clihelper.amqp import properties
from clihelper.amqp.frames import HEARTBEAT_FRAME, LARGEST_FRAME, Delivery, HeadersTooLarge
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.rabbitmq import LEAST_KEPT, RabbitMQTransport
from tests.frames import Ends, delivery, frame, header, short

LATIN = 'é'.encode('latin-1')


@pytest.fixture
def wire():
    wire = Ends()
    wire.expect(1, wire.got.append)
    yield wire
    with contextlib.suppress(ConnectionResetError):  # an error has ended it
        wire.close()


def came(wire, *pieces, road='short'):
    """What is handed over when the frames have come; with a heartbeat in between, not at once."""
    stream = list(pieces)
    if road == 'long':
        stream.insert(1, HEARTBEAT_FRAME)
    sent = b''.join(stream)
    for start in range(0, len(sent), 50_000):  # what a socket takes before it is read
        wire.far.sendall(sent[start : start + 50_000])
        wire.connection.take()
    return wire.got


# What a publisher has written is no fault of the connection

ODD = {
    'content_type': b'\x80\x00' + short(b'text/' + LATIN),
    'correlation_id': b'\x04\x00' + short(LATIN),
    'app_id': b'\x00\x08' + short(LATIN),
    'the name of a header': b'\x20\x00' + struct.pack('>I', 3) + short(LATIN) + b'V',
    'a type of a header': b'\x20\x00' + struct.pack('>I', 3) + short('a') + b'?',
    'cut short': b'\x80\x00\x09text',
    'no content type': b'\x80\x00',
    'more than announced': b'\x00\x00\x00',
    'more flags': b'\x80\x01\x00\x00' + short('text/plain'),
}


@pytest.mark.parametrize('road', ['short', 'long'])
@pytest.mark.parametrize('what', ODD)
def test_properties_that_cannot_be_decoded_are_the_message_s_own_fault(wire, what, road):
    bad = delivery(2, b'bad', properties=ODD[what])
    got, good = came(wire, *bad, *delivery(3, b'good'), road=road)
    assert (got.body, got.packed, got.delivery_tag) == (b'bad', ODD[what], 2)
    assert (got.exchange, got.routing_key) == (b'shop', b'order.2')
    for _ in range(2):  # the second time, too
        with pytest.raises(InvalidProperties):
            got.properties  # noqa: B018
        with pytest.raises(InvalidProperties):
            got.headers  # noqa: B018
    assert good.body == b'good'
    assert good.headers is None


@pytest.mark.parametrize('road', ['short', 'long'])
@pytest.mark.parametrize('body', [b'', b'x'])
def test_a_routing_key_that_is_not_utf_8_is_kept_as_it_came(wire, road, body):
    (got,) = came(wire, *delivery(1, body, key=b'caf' + LATIN), road=road)
    assert got.routing_key == b'caf' + LATIN
    assert got.origin == b'\x01' + short('shop') + short(b'caf' + LATIN)
    for _ in range(2):
        with pytest.raises(InvalidProperties, match='routing key: not UTF-8'):
            got.delivery_info  # noqa: B018


@pytest.mark.parametrize('field', ['content_type', 'content_encoding'])
@pytest.mark.parametrize('text', [b'', b'a', 'é'.encode(), LATIN, b'a' * 255])
def test_the_type_and_the_encoding_are_read_as_all_properties_are(field, text):
    packed = properties.encode({field: text, 'priority': 1})
    for raw in (packed, packed[:-2], packed[:3], packed[:2], packed[:1] + b'\x01' + packed[2:]):
        got = Delivery(None, 1, b'\x00\x00\x00', raw, b'')
        try:
            expected = properties.decode(raw)[field]
        except InvalidProperties:
            if raw[1] or not text.isascii() or len(raw) < len(text) + 3:
                with pytest.raises(InvalidProperties):
                    getattr(got, field)
        else:
            assert getattr(got, field) == expected


def test_properties_are_decoded_once():
    got = Delivery(None, 1, b'\x00\x00\x00', properties.encode({'application_headers': {}}), b'')
    assert got.headers is got.headers


@pytest.mark.parametrize('seed', range(20))
def test_any_properties_and_any_names_are_handed_over(wire, seed):
    """Bytes are changed at random; the message behind is handed over all the same."""
    chance = random.Random(seed)
    good = properties.encode(
        {'content_type': 'text/plain', 'correlation_id': 'c', 'application_headers': {'a': [1]}}
    )
    sent = []
    for number in range(1, 200):
        packed = bytearray(good)
        for _ in range(chance.choice([0, 1, 3])):
            packed[chance.randrange(len(packed))] = chance.randrange(256)
        packed = bytes(packed[: chance.choice([2, len(packed), len(packed)])])
        key, body = chance.randbytes(chance.randrange(4)), b'x' * chance.choice([0, 1, 100])
        sent.append((number, packed, key, body))
        pieces = chance.choice([1, 1, 3])
        wire.far.sendall(
            b''.join(delivery(number, body, properties=packed, key=key, pieces=pieces))
        )
        wire.connection.take()
        for name in ('properties', 'content_type', 'content_encoding', 'delivery_info'):
            with contextlib.suppress(InvalidProperties):
                getattr(wire.got[-1], name)
    found = [(got.delivery_tag, got.packed, got.routing_key, got.body) for got in wire.got]
    assert found == sent


# What contradicts the layout of frames is

METHOD, HEADER, BODY = delivery(1, b'abc')

CORRUPT = {
    'no body': [METHOD, HEADER],
    'no header': [METHOD, BODY],
    'no method': [HEADER, BODY],
    'a body alone': [BODY],
    'two methods': [METHOD, METHOD, HEADER, BODY],
    'two headers': [METHOD, HEADER, HEADER, BODY],
    'a longer body': [METHOD, HEADER, frame(3, 1, b'abcdef')],
    'a shorter body': [METHOD, HEADER, frame(3, 1, b'ab')],
    'too long in its second frame': [METHOD, HEADER, frame(3, 1, b'ab'), frame(3, 1, b'cd')],
    'an empty frame of a body': [METHOD, HEADER, frame(3, 1, b''), BODY],
    'a body for none': [*delivery(1, b''), frame(3, 1, b'a')],
    'a header of another class': [METHOD, frame(2, 1, header(3, b'\0\0', 50)), BODY],
    'a weight': [METHOD, frame(2, 1, struct.pack('>HHQ', 60, 1, 3) + b'\0\0'), BODY],
    'no properties': [METHOD, frame(2, 1, header(3, b'')), BODY],
    'a header that is cut short': [METHOD, frame(2, 1, b'\0\x3c\0\0\0'), BODY],
    'no end of the body': [METHOD, frame(2, 1, header(2**63, b'\0\0')), BODY],
    'a type that is none': [METHOD, HEADER, frame(4, 1, b'abc')],
    'an unknown channel': delivery(1, b'abc', channel=9),
    'a method that is cut short': [frame(1, 1, METHOD[7:-3]), HEADER, BODY],
    'a method that is too long': [frame(1, 1, METHOD[7:-1] + b'x'), HEADER, BODY],
    'a method of four bytes': [frame(1, 1, METHOD[7:11]), HEADER, BODY],
}


@pytest.mark.parametrize('road', ['short', 'long'])
@pytest.mark.parametrize('what', CORRUPT)
def test_a_corrupt_message_ends_the_connection_and_nothing_is_delivered(wire, what, road):
    before = [piece for number in (2, 4) for piece in delivery(number, b'xyz', key='')]
    first = CORRUPT[what][0]
    stream = [*before, *CORRUPT[what], *delivery(6, b'xyz', key='')]
    if road == 'long':
        stream.insert(7, HEARTBEAT_FRAME)
    wire.far.sendall(b''.join(stream))
    with pytest.raises((UnexpectedFrame, amqp.RecoverableConnectionError)):
        wire.connection.take()
    allowed = [2, 4, 1] if what == 'a body for none' else [2, 4]
    assert [got.delivery_tag for got in wire.got] == allowed, first


ALIKE = [delivery(number, b'abc', key='') for number in (2, 4, 6, 8)]


@pytest.mark.parametrize(
    'third',
    [
        ALIKE[2][:2],
        [ALIKE[2][0], frame(2, 1, header(4, b'\0\0'))],
        [ALIKE[2][0], ALIKE[2][2], b''],
        [*ALIKE[2][1:], b''],
        [*ALIKE[2][:2], frame(3, 1, b'abcdef')],
        [*ALIKE[2][:2], frame(3, 1, b'a')],
        [ALIKE[2][0], frame(2, 1, header(3, b'\0\0', 50)), ALIKE[2][2]],
        [ALIKE[2][0], frame(2, 1, header(2**63, b'\0\0')), ALIKE[2][2]],
    ],
)
@pytest.mark.parametrize('split', [False, True])
def test_among_messages_that_are_alike_a_corrupt_one_is_noticed(wire, third, split):
    """They take the shortest road, and the rest of the third may come with the fourth."""
    stream = [*ALIKE[0], *ALIKE[1], *third]
    if split and len(third) == 2:
        wire.far.sendall(b''.join(stream))
        wire.connection.take()
        stream = []
    wire.far.sendall(b''.join([*stream, *ALIKE[3]]))
    with pytest.raises(UnexpectedFrame):
        wire.connection.take()
    assert [got.delivery_tag for got in wire.got] == [2, 4]


def test_a_message_whose_body_does_not_come_is_given_up(wire, monkeypatch):
    now = 100.0
    monkeypatch.setattr('clihelper.amqp.rabbitmq.time.monotonic', lambda: now)
    wire.far.sendall(METHOD + HEADER + frame(3, 1, b'ab'))
    assert wire.connection.take()
    for _ in range(10):
        now += 1
        wire.far.sendall(HEARTBEAT_FRAME + b''.join(delivery(1, b'other', channel=2))[:40])
        wire.far.sendall(b''.join(delivery(1, b'other', channel=2))[40:])
        assert wire.connection.take()
    now += 10.5
    wire.far.sendall(HEARTBEAT_FRAME)
    with pytest.raises(UnexpectedFrame, match='a message has begun, and does not end'):
        wire.connection.take()
    assert wire.got[0][0] == 1  # of the other channel
    assert len(wire.got) == 10


# Sizes

def test_a_header_may_be_larger_than_a_frame(wire):
    packed = properties.encode({'application_headers': {'x': 'y' * 900_000}})
    got = came(wire, *delivery(1, b'abc', properties=packed))
    assert got[0].packed == packed


def test_a_header_may_not_be_of_any_size(wire):
    wire.far.sendall(METHOD + struct.pack('>BHI', 2, 1, LARGEST_FRAME) + b'x')
    with pytest.raises(UnexpectedFrame, match=f'a frame of {LARGEST_FRAME} bytes'):
        wire.connection.take()


def test_a_body_that_is_too_large_is_not_kept(wire):
    size, piece = LEAST_KEPT + 1, frame(3, 1, b'x' * 100_000)
    tracemalloc.start()
    try:
        wire.far.sendall(METHOD + frame(2, 1, header(size, b'\x08\x00\x05')))
        wire.connection.take()
        for _ in range(size // 100_000):
            wire.far.sendall(piece)
            while wire.connection.take():
                pass
        wire.far.sendall(frame(3, 1, b'x' * (size % 100_000)) + b''.join(delivery(3, b'next')))
        wire.connection.take()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    large, following = wire.got
    assert (large.body, large.announced, large.delivery_tag) == (b'', size, 1)
    assert large.properties == {'priority': 5}
    assert (following.body, following.announced) == (b'next', 4)


def test_a_body_that_is_announced_takes_no_memory_before_it_comes():
    ends = Ends(max_body=2**40)
    try:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ends.far.sendall(METHOD + frame(2, 1, header(2**41, b'\0\0')) + frame(3, 1, b'x' * 9))
        assert ends.connection.take()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
    finally:
        ends.close()


# What is said in between

def test_what_comes_right_behind_the_answer_is_delivered_in_order(wire):
    """An empty message, too, at the head of the queue."""
    channel, got = wire.connection.channels[2], []
    answer = frame(1, 2, struct.pack('>HH', 60, 21) + short('tag'))
    first = delivery(1, b'', channel=2, tag='tag')
    wire.far.sendall(answer + b''.join([*first, *delivery(2, b'x', channel=2, tag='tag')]))
    wire.connection.consume(channel, 'queue', 'tag', got.append)
    assert [(each.delivery_tag, each.body) for each in got] == [(1, b''), (2, b'x')]
    wire.far.recv(100)  # basic.consume; nothing was rejected
    wire.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.far.recv(100)


def test_what_was_on_its_way_when_all_is_given_back_is_discarded(wire):
    """What stands behind the answer is not, though it comes in the same bytes."""
    answer = frame(1, 1, struct.pack('>HH', 60, 111))
    others = delivery(9, b'other channel', channel=2)
    before = [piece for tag in (2, 4, 6) for piece in delivery(tag, b'old', key='')]
    before += delivery(8, b'')
    behind = [piece for tag in (10, 12, 14) for piece in delivery(tag, b'new', key='')]
    wire.expect(2, wire.got.append)
    acknowledger = wire.connection.acknowledger(wire.connection.channels[1], 100)
    acknowledger.add(1)
    wire.far.sendall(b''.join([*before, *others, answer, *behind]))
    wire.connection.recover(wire.connection.channels[1])
    assert [got.delivery_tag for got in wire.got] == [9, 10, 12, 14]
    acknowledged = frame(1, 1, struct.pack('>HHQB', 60, 80, 1, 1))
    assert wire.far.recv(100) == acknowledged + frame(1, 1, struct.pack('>HHB', 60, 110, 1))


def test_what_a_channel_has_begun_ends_with_it(wire):
    """Its number may be used again."""
    closing = frame(1, 1, struct.pack('>HHH', 20, 40, 404) + short('no') + b'\0\0\0\0')
    wire.far.sendall(METHOD + HEADER)
    wire.connection.take()
    wire.connection.channels[1].collect()
    channel = wire.connection.Channel(wire.connection, 1)
    wire.expect(1, wire.got.append)
    wire.far.sendall(b''.join(delivery(5, b'new')) + closing)
    with pytest.raises(amqp.NotFound):
        wire.connection.take()
    assert [got.delivery_tag for got in wire.got] == [5]
    assert channel.channel_id is None


def test_a_message_that_was_got_for_nobody_goes_back(wire):
    """The call that waited for it has ended."""
    method = struct.pack('>HHQ?', 60, 71, 5, False) + short('') + short('q') + bytes(4)
    assert came(wire, frame(1, 1, method), HEADER, BODY) == []
    assert wire.far.recv(100) == frame(1, 1, struct.pack('>HHQB', 60, 90, 5, 1))


# On RabbitMQ

@pytest.fixture
def connection(broker):
    connection = RabbitMQTransport(broker.url(), 0, 5, 'test')
    connection.connect()
    yield connection
    connection.collect()


@pytest.fixture
def channel(connection, queue_name):
    channel = connection.channel()
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    return channel


def publish(connection, channel, body, key, packed, **options):
    connection.write(connection.encode_or_publish(channel, body, '', key, packed, **options))


def wait_for(connection, found, number):
    while len(found) < number:
        connection.drain_events(timeout=10)


LATIN_PROPERTIES = b'\x9c\x00' + short(b'text/' + LATIN) + b'\x02\x05' + short(LATIN) + b''


@pytest.mark.parametrize('body', [b'', b'body'])
def test_latin_1_comes_through_rabbitmq_and_ends_nothing(connection, channel, queue_name, body):
    packed = LATIN_PROPERTIES
    for _ in range(2):
        publish(connection, channel, body, queue_name, packed)
    got = connection.get(channel, queue_name)
    assert (got.packed, got.body) == (packed, body)
    with pytest.raises(InvalidProperties):
        got.headers  # noqa: B018
    found = []
    connection.consume(channel, queue_name, 'tag', found.append)
    publish(connection, channel, b'good', queue_name, b'\0\0')
    wait_for(connection, found, 2)
    assert [(each.packed, each.body) for each in found] == [(packed, body), (b'\0\0', b'good')]


@pytest.mark.parametrize('body', [b'', b'body'])
@pytest.mark.parametrize('packed', [b'\0\0', LATIN_PROPERTIES])
def test_a_message_that_comes_back_has_bytes_for_its_body(connection, channel, body, packed):
    returned, confirmed = [], []
    connection.confirm(channel, lambda *each: confirmed.append(each), confirmed.append,
                       lambda *each: returned.append(each))
    publish(connection, channel, body, 'nowhere', packed)
    publish(connection, channel, body, 'nowhere', packed, mandatory=False)
    wait_for(connection, confirmed, 2)
    ((error, exchange, key, message),) = returned
    assert (error.reply_code, exchange, key, message.body) == (312, '', 'nowhere', body)
    assert message.packed == packed


def test_a_reply_that_cannot_be_decoded_is_no_fault_of_the_connection(connection, channel):
    got = []

    def on_reply(delivery):
        got.append(delivery.properties['correlation_id'])

    reply_to = connection.consume_replies(channel, 'replies', on_reply)
    packed = properties.encode({'reply_to': reply_to})
    asked = channel.queue_declare('', exclusive=True).queue
    publish(connection, channel, b'', asked, packed)
    address = connection.get(channel, asked).properties['reply_to']
    for correlation_id in (LATIN, b'c'):
        packed = properties.encode({'correlation_id': correlation_id})
        publish(connection, channel, b'', address, packed)
    wait_for(connection, got, 1)
    assert got == ['c']


def test_headers_that_are_too_large_are_an_error_before_anything_is_written(
    connection, channel, queue_name
):
    def headers(size):
        return {'x': 'é' + 'y' * (size - 2)}  # the first character is two bytes

    def packed(size):
        return properties.encode({'application_headers': headers(size)})

    room = connection.frame_max - len(packed(2)) + 2 - 8 - 12
    publish(connection, channel, b'1', queue_name, packed(room))
    for given in (packed(room + 1), {'headers': headers(room + 1)}):
        with pytest.raises(HeadersTooLarge, match='a frame of 131072 bytes: 1 too many') as raised:
            publish(connection, channel, b'2', queue_name, given)
        assert raised.value.excess == 1
    assert connection.get(channel, queue_name).packed == packed(room)
    assert connection.get(channel, queue_name) is None


def test_a_header_that_the_broker_itself_makes_too_large_is_taken(
    connection, channel, queue_name
):
    """It adds x-death."""
    arguments = {
        'x-message-ttl': 1, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': queue_name
    }  # fmt: skip
    channel.queue_declare(f'{queue_name}.ttl', arguments=arguments)
    found = []
    connection.consume(channel, queue_name, 'tag', found.append)
    packed = properties.encode({'application_headers': {'x': 'y' * 130_900}})
    publish(connection, channel, b'large', f'{queue_name}.ttl', packed)
    wait_for(connection, found, 1)
    publish(connection, channel, b'next', queue_name, b'\0\0')
    wait_for(connection, found, 2)
    assert len(found[0].packed) > connection.frame_max
    assert found[0].headers['x-death'][0]['reason'] == 'expired'
    assert found[1].body == b'next'


def test_messages_are_settled_in_any_thread_while_others_are_written(
    connection, channel, queue_name
):
    """py-amqp's buffer for frames would be written by several threads at once."""
    got, number = [], 600
    for each in range(number):
        publish(connection, channel, b'%d' % each, queue_name, b'\0\0')
    connection.consume(channel, queue_name, 'tag', got.append)
    wait_for(connection, got, number)
    threads = [
        threading.Thread(target=lambda part: [each.ack() for each in part], args=(got[start::3],))
        for start in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        publish(connection, channel, b'x' * 3000, '', b'\0\0')
        channel.basic_qos(0, 100, False)
    assert channel.queue_declare(queue_name, passive=True).message_count == 0
    channel.close()
    channel = connection.channel()
    assert channel.queue_declare(queue_name, passive=True).message_count == 0


def test_nothing_of_what_is_given_back_is_acknowledged_later(connection, channel, queue_name):
    """Again and again while deliveries are in flight, some acknowledged and some kept."""
    for each in range(300):
        publish(connection, channel, b'%d' % each, queue_name, b'\0\0')
    channel.basic_qos(0, 100, False)
    acknowledger = connection.acknowledger(channel, 100)
    got, done = [], []
    connection.consume(channel, queue_name, 'tag', got.append)
    for _ in range(30):
        wait_for(connection, got, 7)
        for message in got[:7]:
            if message is got[3]:
                acknowledger.keep(message.delivery_tag)
            else:
                acknowledger.add(message.delivery_tag)
                done.append(message.body)
        got.clear()
        connection.recover(channel)
    while len(done) < 300:
        wait_for(connection, got, 1)
        acknowledger.add(got[0].delivery_tag)
        acknowledger.flush()
        done.append(got.pop(0).body)
    assert channel.queue_declare(queue_name, passive=True).message_count == 0
    assert sorted(map(int, done)) == list(range(300))
    assert channel.is_open


def test_a_message_of_a_channel_that_is_closed_cannot_be_settled(
    connection, channel, queue_name
):
    publish(connection, channel, b'x', queue_name, b'\0\0')
    got = connection.get(channel, queue_name)
    channel.close()
    for settle in (got.ack, got.reject, got.requeue):
        with pytest.raises(amqp.RecoverableConnectionError, match='channel is closed'):
            settle()
