"""Deliveries read from the wire, in whatever pieces they arrive."""

from __future__ import annotations

import contextlib
import random
import struct
import threading

import amqp
import pytest
from amqp.exceptions import UnexpectedFrame

from clihelper.amqp.frames import HEARTBEAT_FRAME, Contents, DeliveryTemplate
from clihelper.amqp.rabbitmq import RabbitMQTransport
from clihelper.amqp.url import parameters
from tests.frames import Ends, delivery, frame, short


@pytest.fixture
def wire():
    wire = Ends()
    yield wire
    wire.close()


def expected(number, body, correlation_id=None):
    return (number, body, bool(number % 2), 'shop', f'order.{number}', correlation_id)


@pytest.mark.parametrize(
    ('url', 'host', 'user', 'password', 'vhost'),
    [
        ('amqp://', 'localhost:5672', 'guest', 'guest', '/'),
        ('amqp://broker', 'broker:5672', 'guest', 'guest', '/'),
        ('amqp://u:p@broker:1//', 'broker:1', 'u', 'p', '/'),
        ('amqp://u:p@broker:1/%2F', 'broker:1', 'u', 'p', '/'),
        ('pyamqp://u:p%40%2f%C3%BC@broker/shop?x=1', 'broker:5672', 'u', 'p@/ü', 'shop'),
        ('amqp://u:p@x@broker/shop%2Fa', 'broker:5672', 'u', 'p@x', 'shop/a'),
        ('amqps://[::1]/', '[::1]:5671', 'guest', 'guest', '/'),
        ('amqp://[::1]:7/', '[::1]:7', 'guest', 'guest', '/'),
    ],
)
def test_an_url_says_where_and_as_whom_to_connect(url, host, user, password, vhost):
    said = parameters(url)
    assert said.pop('ssl') is ('amqps' in url)
    assert said == {'host': host, 'userid': user, 'password': password, 'virtual_host': vhost}


def test_complete_deliveries_take_the_short_road(wire, monkeypatch):
    monkeypatch.setattr(Contents, 'begin', None)
    frames = [f for n in range(1, 50) for f in delivery(n, b'x' * n)]
    wire.far.sendall(b''.join(frames))
    assert wire.connection.take()
    assert wire.got == [expected(n, b'x' * n) for n in range(1, 50)]
    assert not wire.connection.take()


@pytest.mark.parametrize('seed', range(30))
def test_it_does_not_matter_in_which_pieces_the_bytes_arrive(wire, seed):
    chance = random.Random(seed)
    stream, wanted = b'', []
    for number in range(1, 60):
        body = chance.randbytes(chance.choice([0, 1, 11, 100, 5000]))
        properties = {'correlation_id': str(number), 'priority': 3} if number % 3 else {}
        frames = delivery(
            number,
            body,
            channel=chance.choice([1, 2]),
            pieces=chance.choice([1, 1, 3]),
            properties=properties,
        )
        wanted.append(expected(number, body, properties.get('correlation_id')))
        # A heartbeat may stand between any two frames.
        stream += b''.join(f + chance.choice([b'', b'', HEARTBEAT_FRAME]) for f in frames)
    while stream:
        size = chance.choice([1, 7, 8, 12, 100, 1460, 20_000])
        wire.far.sendall(stream[:size])
        stream = stream[size:]
        wire.connection.take()
    assert wire.got == wanted


@pytest.mark.parametrize('kind', [None, '', 'text/plain', 'text/ü'])
@pytest.mark.parametrize('encoding', [None, 'utf-8'])
@pytest.mark.parametrize('road', ['short', 'long'])
def test_type_and_encoding_are_those_of_the_properties(wire, kind, encoding, road):
    got = []
    wire.expect(1, got.append)
    properties = {'content_type': kind, 'content_encoding': encoding, 'priority': 3}
    given = {name: value for name, value in properties.items() if value is not None}
    frames = delivery(7, b'x', properties=given)
    if road == 'long':
        frames.insert(1, HEARTBEAT_FRAME)
    wire.far.sendall(b''.join(frames))
    wire.connection.take()
    (message,) = got
    assert (message.content_type, message.content_encoding) == (kind, encoding)
    assert message.properties == given


@pytest.mark.parametrize('seed', range(20))
def test_deliveries_that_are_alike_are_taken_apart_the_same_way(wire, seed):
    chance = random.Random(seed)
    stream, wanted = b'', []
    for number in range(2, 400, 2):  # even ones are not redelivered
        body = chance.randbytes(chance.choice([1, 100, 100, 300]))
        odd = chance.random() < 0.05
        key, tag = ('other' if odd else 'same'), number + (chance.random() < 0.05)
        channel = 2 if chance.random() < 0.05 else 1
        identity = f'{tag:04}' + 'x' * (chance.random() < 0.05)
        stream += b''.join(
            delivery(
                tag, body, channel=channel, key=key, properties={'correlation_id': identity}
            )
        )
        wanted.append((tag, body, bool(tag % 2), 'shop', key, identity))
    cut = chance.randrange(len(stream))
    for part in (stream[:cut], stream[cut:]):
        wire.far.sendall(part)
        wire.connection.take()
    assert wire.got == wanted


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('place', range(1, 171))
def test_a_changed_byte_is_not_overlooked_among_what_is_alike(monkeypatch, place):
    """Whatever byte it is: what a mould takes is what would have been taken without one."""
    frames = [b''.join(delivery(number, b'x' * 100, key='same')) for number in (2, 4, 6, 8)]
    assert len(frames[0]) == 170
    changed = bytearray(frames[2])
    changed[-place] ^= 1
    stream = b''.join([*frames[:2], bytes(changed), frames[3]])
    results = []
    for moulds in (True, False):
        ends = Ends()
        if not moulds:
            monkeypatch.setattr(DeliveryTemplate, 'take', lambda self, data, position: position)
        ends.far.sendall(stream)
        try:
            ends.connection.take()
        except Exception as error:
            results.append((ends.got, type(error)))
        else:
            results.append((ends.got, None))
        with contextlib.suppress(ConnectionResetError):  # an error may have closed it
            ends.close()
    assert results[0] == results[1]


def test_frames_of_two_channels_may_be_interleaved(wire):
    one, two = delivery(1, b'one'), delivery(2, b'two', channel=2)
    wire.far.sendall(b''.join([one[0], two[0], two[1], one[1], one[2], two[2]]))
    wire.connection.take()
    assert wire.got == [expected(1, b'one'), expected(2, b'two')]


def test_a_delivery_for_nobody_known_goes_back(wire):
    wire.far.sendall(b''.join(delivery(7, b'x', tag='other')))
    wire.connection.take()
    assert wire.got == []
    assert wire.far.recv(100) == frame(1, 1, struct.pack('>HHQB', 60, 90, 7, 1))


def test_py_amqp_finds_what_was_fetched_and_not_used(wire):
    method, header, body = delivery(1, b'x' * 10)
    wire.far.sendall(method + header)
    wire.connection.take()
    wire.far.sendall(body)
    wire.connection.drain_events(timeout=1)
    assert wire.got == [expected(1, b'x' * 10)]


@pytest.mark.parametrize('place', [0, 1, 2])
def test_a_corrupt_frame_delivers_nothing(wire, place):
    frames = delivery(1, b'x' * 10)
    frames[place] = frames[place][:-1] + b'\x00'
    wire.far.sendall(b''.join(frames))
    with pytest.raises(UnexpectedFrame):
        wire.connection.take()
    assert wire.got == []


def test_a_frame_that_is_too_large_is_not_waited_for(wire):
    wire.far.sendall(struct.pack('>BHI', 1, 1, 200_000) + b'x')
    with pytest.raises(UnexpectedFrame, match='a frame of 200000 bytes'):
        wire.connection.take()


def test_a_frame_that_does_not_end_is_given_up(wire, monkeypatch):
    """Its size may be wrong, and then what comes behind it is taken for a part of it."""
    now = 100.0
    monkeypatch.setattr('clihelper.amqp.rabbitmq.time.monotonic', lambda: now)
    method, header, body = delivery(1, b'x')
    wire.far.sendall(method + header + struct.pack('>BHI', 3, 1, 20_000) + body)
    assert wire.connection.take()
    for _ in range(10):
        now += 1
        wire.far.sendall(HEARTBEAT_FRAME)
        assert wire.connection.take()
    now += 1
    wire.far.sendall(HEARTBEAT_FRAME)
    with pytest.raises(UnexpectedFrame, match='does not end'):
        wire.connection.take()
    assert wire.got == []


def test_frames_that_end_are_given_time_each(wire, monkeypatch):
    now = 100.0
    monkeypatch.setattr('clihelper.amqp.rabbitmq.time.monotonic', lambda: now)
    stream = b''.join(frame for n in range(1, 20) for frame in delivery(n, b'x' * 50))
    for start in range(0, len(stream), 60):
        now += 6
        wire.far.sendall(stream[start : start + 60])
        wire.connection.take()
    assert len(wire.got) == 19


def test_what_an_error_has_left_is_acted_on_next(wire):
    closing = struct.pack('>HHH', 20, 40, 404) + short('no queue') + struct.pack('>HH', 60, 20)
    wire.far.sendall(frame(1, 1, closing) + b''.join(delivery(2, b'next', channel=2)))
    with pytest.raises(amqp.NotFound):
        wire.connection.take()
    assert wire.connection.take()
    assert wire.got == [expected(2, b'next')]
    assert not wire.connection.take()


@pytest.mark.parametrize('payload', [b'', b'\x00\x3c', b'\x00\x3c\x00\x3c\xff', b'\x77' * 9])
@pytest.mark.parametrize('channel', [0, 1, 9])
def test_frames_that_make_no_sense_are_an_error_of_the_connection(wire, payload, channel):
    wire.far.sendall(frame(1, channel, payload))
    with contextlib.suppress(*RabbitMQTransport.errors):
        while wire.connection.take():
            pass
    wire.far.sendall(b''.join(delivery(1, b'x', channel=channel)))
    with contextlib.suppress(*RabbitMQTransport.errors):
        while wire.connection.take():
            pass


def test_a_channel_that_the_broker_closes_stays_closed(wire):
    """Nothing is waited for, and no other one is opened in its place."""
    channel = wire.connection.channels[1]
    closing = struct.pack('>HHH', 20, 40, 406) + short('too late') + struct.pack('>HH', 60, 80)
    wire.far.sendall(frame(1, 1, closing))
    with pytest.raises(amqp.PreconditionFailed):
        wire.connection.take()
    assert wire.far.recv(100) == frame(1, 1, struct.pack('>HH', 20, 41))  # close-ok
    assert not wire.connection.has(channel)
    with pytest.raises(amqp.RecoverableConnectionError):
        channel.basic_ack(1)


def test_what_a_slow_peer_does_not_take_at_once_is_written_to_the_end(wire):
    data = random.Random(1).randbytes(8_000_000)
    got = []

    def read():
        while sum(map(len, got)) < len(data):
            got.append(wire.far.recv(100_000))

    reader = threading.Thread(target=read)
    reader.start()
    wire.connection.write(data)
    reader.join(timeout=10)
    assert b''.join(got) == data


def test_a_peer_that_reads_nothing_does_not_hold_up_who_writes(wire):
    wire.connection._write_timeout = 0.05
    with pytest.raises(TimeoutError):
        wire.connection.write(b'x' * 8_000_000)
    # What came behind the half of a frame would be taken for the rest of it.
    with pytest.raises(ConnectionAbortedError, match='not written to its end'):
        wire.connection.write(b'y')
    wire.connection._beat()  # in the thread of the heartbeats: it does not wait


def test_the_end_of_the_stream_is_an_error(wire):
    wire.far.close()
    with pytest.raises(ConnectionResetError):
        wire.connection.take()


def test_an_acknowledgement_is_one_frame_for_many(wire):
    acknowledger = wire.connection.acknowledger(wire.connection.channels[1], prefetch=1)
    assert acknowledger.add(7)
    acknowledger.flush()
    assert wire.far.recv(100) == frame(1, 1, struct.pack('>HHQB', 60, 80, 7, 1))
