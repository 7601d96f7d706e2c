"""What a peer says that no broker should."""

from __future__ import annotations

import struct
import sys
import time

import pytest

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.escaping import LONGEST, escaped
from clihelper.amqp.frames import LARGEST_FRAME
from clihelper.amqp.rabbitmq import RabbitMQTransport
from clihelper.testing import Program
from tests.faults import PROGRAM, write
from tests.frames import delivery, frame, header, short
from tests.peer import Peer

EVIL = b'bye\r\nCRITICAL root: all is lost \x1b[2J\x07 caf\xe9 \xe2\x80\xae'
SHOWN = r'bye\r\nCRITICAL root: all is lost \x1b[2J\x07 caf\xe9 \u202e'


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('', ''),
        ('café', 'café'),
        (EVIL, SHOWN),
        (b'\x00', r'\x00'),
        ('\ud800\N{LINE SEPARATOR}\N{NO-BREAK SPACE}', r'\ud800\u2028\xa0'),
        ('\\', '\\'),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown):
    assert escaped(text) == shown
    assert escaped(shown) == shown


@pytest.mark.parametrize('character', ['x', '\n', '\N{RIGHT-TO-LEFT OVERRIDE}', '\U000e0001'])
def test_what_is_said_is_bounded(character):
    assert len(escaped(character * 10**6)) == LONGEST
    assert escaped(character * 10**6).endswith('...')


def closing(signature, text, code=320):
    return struct.pack('>HHH', *signature, code) + short(text) + bytes(4)


@pytest.mark.parametrize('what', ['connection', 'channel'])
def test_the_reason_of_a_close_is_escaped(what):
    def refuse(peer, channel, payload):
        if payload.startswith(struct.pack('>HH', 50, 10)):
            signature, number = ((10, 50), 0) if what == 'connection' else ((20, 40), channel)
            peer.send(frame(1, number, closing(signature, EVIL)))
            return True
        return False

    with Peer(on_method=refuse) as peer:
        connection = Connection([peer.url], 0, 'test')
        connection.open()
        channel = connection.channel()
        with pytest.raises(Lost) as lost, connection.guard():
            channel.queue_declare('q')
        assert str(lost.value) == f'320 {SHOWN}'
        assert lost.value.__cause__.reply_text == SHOWN
        connection.drop()


def test_why_a_broker_takes_no_messages_is_escaped():
    with Peer() as peer:
        connection = Connection([peer.url], 0, 'test')
        reasons = []
        connection.on_blocked = reasons.append
        connection.open()
        peer.send(frame(1, 0, struct.pack('>HH', 10, 60) + short(EVIL)))
        peer.send(frame(1, 0, struct.pack('>HH', 10, 61)))
        while len(reasons) < 2:
            connection.wait(time.monotonic() + 5)
            connection.drain()
        assert reasons == [SHOWN, '']
        connection.drop()


def test_how_one_may_log_in_is_escaped():
    with Peer(mechanisms=EVIL.replace(b'\xe9', b'e')) as peer:
        connection = Connection([peer.url], 0, 'test')
        with pytest.raises(Unreachable) as unreachable:
            connection.open()
        assert 'bye\\r\\nCRITICAL, root' in str(unreachable.value)
        assert str(unreachable.value).isprintable()


def test_what_a_peer_says_is_one_line_of_the_log(tmp_path):
    with Peer() as peer:
        config = write(tmp_path, peer.url, 'q', heartbeat=0)
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            program.wait_ready(30)
            peer.send(frame(1, 0, closing((10, 50), EVIL)))
            program.wait_line('lost the broker: 320 bye')
            program.wait_line('consuming q')
            assert program.stop() == 0
            said = [line for line in program.lines if 'all is lost' in line]
            assert len(said) == 1
            assert SHOWN in said[0]


@pytest.mark.parametrize(
    ('proposed', 'agreed'),
    [(2**32 - 1, LARGEST_FRAME), (0, 131_072), (4096, 4096), (1, 4096), (300_000, 300_000)],
)
def test_the_size_of_frames_is_bounded(proposed, agreed):
    with Peer(tune=(0, proposed, 0)) as peer:
        wire = RabbitMQTransport(peer.url, 0, 5, 'test')
        wire.connect()
        assert wire.frame_max == agreed
        [tune_ok] = [each for each in peer.methods if each.startswith(b'\0\x0a\0\x1f')]
        assert struct.unpack_from('>HIH', tune_ok, 4)[1] == agreed
        wire.collect()


@pytest.mark.parametrize(
    ('query', 'key', 'proposed', 'agreed'),
    [
        ('', 10, 60, 10),
        ('?heartbeat=5', 10, 60, 5),
        ('?heartbeat=20.5', 10, 60, 21),
        ('?heartbeat=0', 10, 60, 0),
        ('?heartbeat=5', 0, 60, 5),
        ('?heartbeat=5', 10, 3, 3),
        ('?heartbeat=5', None, 60, 0),  # nobody looks after the connection while it is idle
    ],
)
def test_the_heartbeat_of_a_url_wins(query, key, proposed, agreed):
    with Peer(tune=(0, 131072, proposed)) as peer:
        connection = Connection(['amqp://127.0.0.1:1', peer.url + query], key, 'test')
        connection.open_any()
        [tune_ok] = [each for each in peer.methods if each.startswith(b'\0\x0a\0\x1f')]
        assert struct.unpack_from('>HIH', tune_ok, 4)[2] == agreed
        connection.drop()


def test_a_broker_that_refuses_what_it_proposes_itself_is_reported():
    """RabbitMQ 4.1 and later with ``frame_max = 4096`` in its configuration."""
    def refuse(peer, channel, payload):
        opening = payload.startswith(b'\0\x0a\0\x28')
        if opening:
            peer.hang_up()
        return opening

    for proposed, said in ((4096, 'after proposing a frame_max of 4096; RabbitMQ 4.1'),
                           (8192, 'the broker has closed the connection|reset by peer')):
        with Peer(tune=(0, proposed, 0), on_method=refuse) as peer:
            connection = Connection([peer.url], 0, 'test')
            with pytest.raises(Unreachable, match=said):
                connection.open()


def test_a_consumer_takes_little_memory_whatever_is_announced(tmp_path):
    """300 MB of a body of 2**62 bytes; and the next connection is as good as any."""
    with Peer(tune=(0, 2**32 - 1, 0)) as peer:
        config = write(tmp_path, peer.url, 'q', heartbeat=0)
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            program.wait_ready(30)
            before = resident(program.pid)
            method, _, _ = delivery(1, b'x', tag=peer.tag.decode())
            peer.send(method, frame(2, 1, header(2**62, b'\0\0')))
            piece = frame(3, 1, bytes(LARGEST_FRAME - 8))
            for _ in range(300):
                peer.send(piece)
            grown = resident(program.pid) - before
            peer.send(frame(2, 1, header(2**63, b'\0\0')))
            program.wait_line('lost the broker')
            program.wait_line('consuming q')
            assert program.stop() == 0
            assert grown < 16_000_000


def resident(pid):
    """Bytes of memory that a process has."""
    with open(f'/proc/{pid}/statm') as file:
        return int(file.read().split()[1]) * 4096


def test_a_body_of_two_to_the_63_is_a_corrupt_frame(tmp_path):
    with Peer() as peer:
        config = write(tmp_path, peer.url, 'q', heartbeat=0)
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            program.wait_ready(30)
            method, _, _ = delivery(1, b'x', tag=peer.tag.decode())
            peer.send(method, frame(2, 1, header(2**63, b'\0\0')))
            program.wait_line('lost the broker: .*a content header that does not belong')
            assert program.stop() == 0


@pytest.mark.parametrize('fault', ['no body', 'a longer body'])
@pytest.mark.parametrize('alike', [False, True])
def test_nothing_is_acknowledged_that_was_not_handled(tmp_path, fault, alike):
    """A peer omits a frame, or sends another body than it has announced."""
    with Peer() as peer:
        config = write(tmp_path, peer.url, 'q', heartbeat=0)
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            program.wait_ready(30)
            tag = peer.tag.decode()
            stream = [
                delivery(number, b'm%d' % number, tag=tag, key='' if alike else None)
                for number in (2, 4, 6, 8)
            ]
            method, its_header, body = stream[2]
            wrong = frame(3, 1, b'm6m6') if fault == 'a longer body' else b''
            stream[2] = [method, its_header, wrong]
            peer.send(*(each for frames in stream for each in frames))
            program.wait_line('lost the broker: 505 a frame of type')
            program.wait_line('consuming q')
            assert program.stop() == 0
            handled = {line.split()[-1] for line in program.lines if ' got ' in line}
            assert handled <= {"b'm2'", "b'm4'"}
        settled = [each for each in peer.methods if each[:4] == struct.pack('>HH', 60, 80)]
        assert all(int.from_bytes(each[4:12], 'big') <= 4 for each in settled)
        assert not [each for each in peer.methods if each[:4] == struct.pack('>HH', 60, 90)]
