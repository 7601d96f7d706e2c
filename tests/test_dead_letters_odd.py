"""Dead letters that no program would write: each is shown, replayed and dropped as any other."""

from __future__ import annotations

import json
import struct

import kombu
import pytest

from clihelper.amqp.dead_letters import RENEWED_AT
from clihelper.amqp.properties import encode
from tests.test_dead_letters import Desk

QUEUE = 'x-clihelper-queue'

PLAIN = b'\x00\x00'
"""Packed properties, of which there are none."""


def with_headers(table):
    """Packed properties that consist of a table of headers, without its length."""
    return b'\x20\x00' + struct.pack('>I', len(table)) + table


def entry(name, kind, value):
    """One header."""
    return bytes([len(name)]) + name + kind + value


def nested(depth):
    """Tables within each other."""
    table = entry(b'deep', b'V', b'')
    for _ in range(depth):
        table = entry(b'deep', b'F', struct.pack('>I', len(table)) + table)
    return table


def headers(**values):
    return encode({'application_headers': values})


# RabbitMQ sorts the headers where a quorum queue adds one, and here they are sorted already.
ODD = {
    'correlation id': encode({'correlation_id': b'caf\xe9', 'message_id': b'\xff\n'}),
    'content type': encode({'content_type': b'text/caf\xe9', 'content_encoding': b'\xff'}),
    'name of a header': with_headers(entry(b'caf\xe9', b't', b'\x01')),
    'a header': headers(mine=b'caf\xe9', more=[{'a': b'\xff'}]),
    'types': with_headers(
        entry(b'a', b'b', b'\xff')
        + entry(b'b', b'f', struct.pack('>f', 1.5))
        + entry(b'c', b'D', b'\x02\x00\x00\x00\x07')
        + entry(b'd', b'T', struct.pack('>Q', 2**64 - 1))
        + entry(b'e', b'x', b'\x00\x00\x00\x02\xff\x00')
        + entry(b'f', b'V', b'')
    ),
    'deeply nested': with_headers(nested(500)),
    'huge': headers(mine='x' * 100_000),
    'control characters': headers(**{'\x1b[0m': 1, 'mine': '\x1b[31m\n\u202e'}),
    'x-death': headers(**{'x-death': [{'queue': 5, 'reason': [1]}, 7]}),
    'x-death, a number': headers(**{'x-death': 5}),
    'counts': headers(**{'x-delivery-count': 'many', 'x-acquired-count': 2**40}),
    'said': headers(
        **{
            f'x-clihelper-{name}': value
            for name, value in {
                'attempts': {'a': 1}, 'reason': 5, 'exception': ['x'], 'message': b'\xff',
                'time': 1.5, 'host': None, 'application': True,
            }.items()
        }
    ),  # fmt: skip
    'long': headers(**{'x-clihelper-exception': 'E' * 50_000}),
}
"""Packed properties, by what is odd in them."""


@pytest.fixture
def desk(tmp_path, broker, queue_name):
    confirm = {'confirm_publish': True}
    connection = kombu.Connection(broker.url(), transport_options=confirm)
    with connection, connection.channel() as channel:
        yield Desk(tmp_path, broker.url(), channel, queue_name)


@pytest.fixture(params=['classic', 'quorum'])
def odd_desk(request, tmp_path, broker, queue_name):
    """A desk with all odd letters, each between two plain ones; the body says which it is."""
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        desk = Desk(tmp_path, broker.url(), channel, queue_name)
        channel.queue_delete(desk.dead)
        arguments = {'x-queue-type': request.param}
        channel.queue_declare(desk.dead, durable=True, auto_delete=False, arguments=arguments)
        for name, packed in ODD.items():
            put(channel, desk.dead, PLAIN, b'plain')
            put(channel, desk.dead, packed, name.encode())
        put(channel, desk.dead, PLAIN, b'plain')
        yield desk


def put(channel, queue, packed, body=b'odd'):
    """Publish with properties as they are."""
    key = queue.encode()
    frames = (
        (1, struct.pack('>HHHB', 60, 40, 0, 0) + bytes([len(key)]) + key + b'\x00'),
        (2, struct.pack('>HHQ', 60, 0, len(body)) + packed),
        (3, body),
    )
    for kind, payload in frames:
        head = struct.pack('>BHI', kind, channel.channel_id, len(payload))
        channel.connection.transport.write(head + payload + b'\xce')
    channel.queue_declare(queue, passive=True)  # then it has been taken in


def taken(desk, queue):
    """The properties of the messages in a queue, as they came, by body."""
    found = {}
    with desk.connected() as connection:
        channel = connection.channel()
        while (delivery := connection.transport.get(channel, queue)) is not None:
            found[delivery.body] = delivery.packed
    return found


def test_odd_letters_are_listed_with_the_others(odd_desk):
    lines = odd_desk.run('list', '--each').splitlines()
    total = 2 * len(ODD) + 1
    assert lines[-1] == f'{total} of {total} dead letters in {odd_desk.dead}'
    assert all(line.isprintable() and len(line) < 2000 for line in lines)
    assert len(lines[1 : lines.index('')]) == total


def test_odd_letters_are_the_same_from_look_to_look(odd_desk):
    """Also when their queue has written headers of its own into them, and renewed ones."""
    ids = odd_desk.ids()
    assert len({*ids}) == len(ODD) + 1
    for _ in range(RENEWED_AT + 1):
        assert odd_desk.look('list') == 0
    assert odd_desk.ids() == ids


def test_a_letter_is_renewed_in_its_own_queue_alone(tmp_path, broker, queue_name):
    """The header CC would lead it to another one."""
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        desk = Desk(tmp_path, broker.url(), channel, queue_name, 'quorum')
        put(channel, desk.dead, headers(CC=[desk.queue]))
        assert len(desk.bodies(desk.queue)) == 1
        (identity,) = desk.ids()
        for _ in range(RENEWED_AT):
            assert desk.look('list') == 0
        assert desk.count(desk.queue) == 0
        assert desk.ids() == [identity]


def test_odd_letters_are_shown(odd_desk, capsys):
    ids = odd_desk.ids()
    for number, name in enumerate(ODD):
        identity = ids[2 * number + 1]
        assert odd_desk.look('show', identity) == 0
        shown = capsys.readouterr().out
        assert shown.endswith(f'\nbody:\n{name}\n')
        assert all(line.isprintable() for line in shown.splitlines())
        assert odd_desk.look('show', identity, '--json') == 0
        assert json.loads(capsys.readouterr().out)['body'] == name


def test_odd_letters_are_replayed_as_they_came(odd_desk):
    total = 2 * len(ODD) + 1
    assert odd_desk.run('replay', '--all') == f'replayed to {odd_desk.queue}: {total}\n'
    assert odd_desk.count(odd_desk.dead) == 0
    found = taken(odd_desk, odd_desk.queue)
    for name, packed in ODD.items():
        is_past = any(word in packed for word in (b'x-clihelper-', b'x-death', b'-count'))
        assert found[name.encode()] == (PLAIN if is_past else packed), name


def test_odd_letters_are_dropped(odd_desk):
    ids = odd_desk.ids()
    assert odd_desk.look('drop', *ids[1::2], '--yes') == 0
    assert odd_desk.bodies(odd_desk.dead) == [b'plain'] * (len(ODD) + 1)


def test_what_cannot_be_decoded_is_shown_escaped(desk):
    table = entry(b'caf\xe9', b'S', b'\x00\x00\x00\x02\xffx') + entry(b'none', b'V', b'')
    put(desk.channel, desk.dead, b'\xa0\x00\x04te\xe9/' + with_headers(table)[2:])
    assert '    content_type: te\\xe9/\n' in desk.run('show', '1')
    shown = json.loads(desk.run('show', '1', '--json'))
    assert shown['properties'] == {'content_type': 'te\\xe9/'}
    assert shown['headers'] == {'caf\\xe9': '\\xffx', 'none': None}


def test_letters_that_can_go_nowhere_are_kept_and_the_rest_goes(desk):
    origins = (b'caf\xe9', {'a': 1}, 5, 'q' * 300, 'gone', '\x1b\n')
    for origin in origins:
        put(desk.channel, desk.dead, headers(**{QUEUE: origin}))
    desk.die('behind')
    ids = desk.ids()
    assert desk.run('replay', '--all', status=69) == f'replayed to {desk.queue}: 1\n'
    lines = desk.stderr.splitlines()
    assert len(lines) == len(origins)
    for line, identity in zip(lines, ids, strict=False):
        assert line.startswith(f'clihelper dead-letters: {identity} is kept: ')
        assert line.isprintable()
        assert len(line) < 500
    assert desk.ids() == ids[:-1]


def test_a_stream_is_told_in_a_line(desk, broker):
    desk.channel.queue_delete(desk.dead)
    desk.channel.queue_declare(
        desk.dead, durable=True, auto_delete=False, arguments={'x-queue-type': 'stream'}
    )
    desk.die('one')
    for words in (['list'], ['show', '1'], ['replay', '--all'], ['drop', '--all', '--yes']):
        desk.run(*words, status=69)
        (line,) = desk.stderr.splitlines()
        assert line.startswith(f'clihelper: {desk.dead} is a stream: ')


def test_letters_in_any_script_are_listed_on_any_terminal(desk, monkeypatch):
    desk.die('одно', exception='Ошибка')
    monkeypatch.setenv('PYTHONIOENCODING', 'latin-1')
    assert '\\u041e' in desk.run('list')
    assert '\\u041e' in desk.run('list', '--each')
