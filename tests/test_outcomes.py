"""What one message does, and what is refused for it, concerns that message alone."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path

import kombu
import pytest

from clihelper.amqp import properties
from clihelper.amqp.connection import Connection
from clihelper.amqp.publisher import Publisher
from clihelper.testing import Program
from tests.faults import logged, send, take

PROGRAM = str(Path(__file__).parent / 'programs' / 'outcomes.py')

ONCE = '  retry: {attempts: 1}\n'
TWICE = '  retry: {attempts: 2, delay: 0.05}\n'


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration; returns its path."""

    def write(more='', queue='', daemon=''):
        path = tmp_path / 'outcomes.yml'
        path.write_text(
            f'Application: {{go: {tmp_path}/go}}\nDaemon: {{{daemon}}}\n'
            f'AMQP:\n  url: {broker.url()}\n  queues: {{{queue_name}: {{{queue}}}}}\n{more}'
        )
        return str(path)

    return write


@contextlib.contextmanager
def consuming(config):
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        program.wait_ready(30)
        yield program


@pytest.fixture
def send_packed(broker, queue_name):
    """Publishes a message with its properties as bytes, whatever they are."""

    def send(body, packed):
        connection = Connection([broker.url()], 0, 'test')
        connection.open()
        publisher = Publisher(connection)
        publisher.forward(body, '', queue_name, packed)
        publisher.wait_for_confirms()
        connection.close()

    return send


def odd(**given):
    """Properties in which each ``@@`` is an ``é`` of Latin-1, and a byte that is nothing."""
    return properties.encode({'content_type': 'text/plain', **given}).replace(b'@@', b'\xe9\xff')


def packed_of(broker, queue):
    """The properties of the next message of *queue*, as bytes; and its body."""
    connection = Connection([broker.url()], 0, 'test')
    connection.open()
    delivery = connection.transport.get(connection.channel(), queue)
    delivery.ack()
    connection.close()
    return delivery.packed, delivery.body


def ends_well(program, channel, queue_name):
    """The next good message is handled, on the same connection; then it stops."""
    send(channel, queue_name, 'nothing after')
    program.wait_line('done nothing after', 20)
    assert program.stop() == 0
    assert logged(program, 'lost the broker') == 0
    assert logged(program, 'consuming') == 1
    assert take(channel, queue_name) == []


LATIN_1 = {
    'content type': {'content_type': 'text/plain; x=@@'},
    'correlation id': {'correlation_id': 'a@@'},
    'app id': {'app_id': '@@'},
    'name of a header': {'application_headers': {'@@': 1}},
}


@pytest.mark.parametrize('body', [b'fail', b''])
@pytest.mark.parametrize('given', LATIN_1.values(), ids=LATIN_1)
def test_properties_that_cannot_be_decoded_are_kept_in_a_dead_letter(
    configure, broker, channel, queue_name, send_packed, given, body
):
    if not body:
        given = {**given, 'reply_to': '@@'}  # what an empty message has fail
    with consuming(configure(TWICE)) as program:
        send_packed(body or b'answer empty', odd(**given))
        program.wait_line('dead-lettered a message')
        ends_well(program, channel, queue_name)
    packed, kept = packed_of(broker, f'{queue_name}.dead')
    assert kept == (body or b'answer empty')
    assert properties.header(packed, 'x-clihelper-reason') == 'undecodable'
    for name in {*given} - {'application_headers'}:
        assert properties.read(packed, name) == properties.read(odd(**given), name)
    assert b'\xe9\xff' in packed


def test_headers_that_cannot_be_decoded_cannot_be_decoded_twice(
    configure, channel, queue_name, send_packed
):
    with consuming(configure(TWICE)) as program:
        send_packed(b'headers', odd(application_headers={'@@': 1}))
        program.wait_line('no headers')
        program.wait_line('no headers')
        program.wait_line(r'dead-lettered a message.*: undecodable')
        ends_well(program, channel, queue_name)


def test_workers_survive_what_cannot_be_decoded(configure, channel, queue_name, send_packed):
    config = configure(TWICE, daemon='workers: 2')
    with consuming(config) as program:
        for _ in range(4):
            send_packed(b'fail', odd(correlation_id='@@'))
        for _ in range(4):
            program.wait_line(r'dead-lettered a message.*: undecodable')
        assert program.stop() == 0
        assert logged(program, 'clihelper.amqp: consuming') == 2


@pytest.mark.parametrize('size', [100_000, 130_700, 130_980])
def test_headers_as_large_as_a_frame_are_dead_lettered(
    configure, broker, channel, queue_name, send_packed, size
):
    with consuming(configure(ONCE)) as program:
        send_packed(b'fail', odd(application_headers={'large': 'x' * size, 'small': 1}))
        program.wait_line('dead-lettered a message')
        ends_well(program, channel, queue_name)
    packed, body = packed_of(broker, f'{queue_name}.dead')
    assert body == b'fail'
    assert properties.header(packed, 'x-clihelper-reason') == 'exception'
    assert (properties.header(packed, 'large') is None) == (size == 130_980)


def test_headers_as_large_as_a_frame_are_run_again(configure, channel, queue_name, send_packed):
    with consuming(configure(TWICE)) as program:
        send_packed(b'fail', odd(application_headers={'large': 'x' * 130_980}))
        program.wait_line('run 1 of fail')
        program.wait_line('run 2 of fail')
        program.wait_line('dead-lettered a message')
        ends_well(program, channel, queue_name)


@pytest.mark.parametrize('word', ['odd', 'long_text', 'long_name', 'stopped'])
def test_an_exception_may_be_of_any_kind(configure, channel, queue_name, word):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, word)
        program.wait_line(r'dead-lettered a message.*: exception', 20)
        ends_well(program, channel, queue_name)
        assert logged(program, f'run 1 of {word}') == 1
        assert max(map(len, program.lines)) < 200_000
    (dead,) = take(channel, f'{queue_name}.dead')
    assert len(dead.headers['x-clihelper-message'].encode()) <= 1024
    assert len(dead.headers['x-clihelper-exception'].encode()) <= 255


def test_a_reply_that_is_empty_may_have_nowhere_to_go(configure, channel, queue_name):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, 'answer empty', reply_to='nobody')
        program.wait_line('has nowhere to go')
        ends_well(program, channel, queue_name)
    assert take(channel, f'{queue_name}.dead') == []


def test_a_number_that_json_has_not_is_no_reply(configure, channel, queue_name):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, 'answer nan', reply_to='nobody')
        program.wait_line('dead-lettered a message')
        ends_well(program, channel, queue_name)
    (dead,) = take(channel, f'{queue_name}.dead')
    assert 'cannot be encoded as JSON' in dead.headers['x-clihelper-message']


@pytest.fixture
def small_messages(broker):
    """From when it is called on, the broker takes no more than 1 MiB."""
    before = []
    yield lambda: before.append(broker.limit_messages(2**20))
    for size in before:
        broker.limit_messages(size)


def test_a_reply_that_the_broker_refuses_is_a_failure_of_its_message(
    configure, channel, queue_name, small_messages
):
    replies = channel.queue_declare(exclusive=True).queue
    small_messages()
    with consuming(configure(TWICE)) as program:
        send(channel, queue_name, 'answer large', reply_to=replies)
        program.wait_line('run 1 of answer')
        program.wait_line('run 2 of answer')
        program.wait_line('dead-lettered a message')
        ends_well(program, channel, queue_name)


@pytest.mark.parametrize('exchange', ['', 'arguments: {x-dead-letter-exchange: amq.fanout}'])
def test_a_message_whose_copies_are_refused_is_run_again_and_left_to_its_exchange(
    configure, channel, queue_name, small_messages, exchange
):
    config = configure(TWICE, queue=exchange)
    with consuming(config) as program:
        assert program.stop() == 0
    left = channel.queue_declare(f'{queue_name}.left', durable=True, auto_delete=False).queue
    channel.queue_bind(left, 'amq.fanout')
    send(channel, queue_name, 'fail ' + 'x' * 2**21)
    small_messages()
    with consuming(config) as program:
        program.wait_line('run 1 of fail')
        program.wait_line('run 2 of fail')
        if exchange:
            program.wait_line('goes to the dead-letter exchange of its queue')
            ends_well(program, channel, queue_name)
            found = []
            while not found:  # the broker confirms nothing of its own
                found = take(channel, left)
            assert len(found) == 1
        else:
            program.wait_line('stays in its queue, unacknowledged: .*message size')
            send(channel, queue_name, 'nothing after')
            program.wait_line('done nothing after')
            assert program.stop() == 0
            assert logged(program, 'run 1 of fail') == 1
            assert len(take(channel, queue_name)) == 1
        assert logged(program, 'lost the broker') == 0
    channel.queue_delete(left)


def test_an_outcome_is_kept_while_the_dead_letters_are_full(
    configure, broker, channel, queue_name
):
    broker.ctl('set_policy', 'full', rf'^{queue_name}\.dead$',
               json.dumps({'max-length': 1, 'overflow': 'reject-publish'}))  # fmt: skip
    try:
        with consuming(configure(ONCE)) as program:
            for number in range(4):
                send(channel, queue_name, f'fail {number}')
            program.wait_line('run 1 of fail 3')
            program.wait_line('published again later')
            send(channel, queue_name, 'nothing before')
            program.wait_line('done nothing before')
            found = []
            while len(found) < 4:
                found += take(channel, f'{queue_name}.dead')
            ends_well(program, channel, queue_name)
            assert logged(program, 'run 1 of fail') == 4
        assert {dead.payload for dead in found} == {f'fail {number}' for number in range(4)}
    finally:
        broker.ctl('clear_policy', 'full')


def test_an_outcome_is_kept_under_a_memory_alarm(
    configure, broker, channel, queue_name, tmp_path
):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, 'fail early')
        program.wait_line('dead-lettered a message')
        for word in ('fail a', 'fail b', 'nothing c'):
            send(channel, queue_name, f'{word}')
        send(channel, queue_name, 'work')
        program.wait_line('run 1 of work')
        for word in ('fail x', 'fail y', 'nothing f'):
            send(channel, queue_name, f'{word}')
        broker.ctl('set_vm_memory_high_watermark', 'absolute', '1MB')
        try:
            (tmp_path / 'go').touch()
            program.wait_line('done nothing f', 10)
        finally:
            broker.ctl('set_vm_memory_high_watermark', '0.4')
        dead = set()
        while len(dead) < 5:
            dead |= {letter.payload for letter in take(channel, f'{queue_name}.dead')}
        ends_well(program, channel, queue_name)
        for word in ('fail x', 'fail y'):
            assert logged(program, f'run 1 of {word}') == 1


def test_an_outcome_is_kept_while_there_is_no_descriptor(configure, channel, queue_name):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, 'exhaust')
        program.wait_line('dead-lettered a message')
        program.wait_line('published again later: .*Too many open files')
        program.signal('USR2')
        found = []
        while not found:
            found = take(channel, f'{queue_name}.dead')
        ends_well(program, channel, queue_name)
        assert logged(program, 'run 1 of exhaust') == 1


def test_threads_and_the_return_of_a_handler_acknowledge_a_message_once(
    configure, channel, queue_name
):
    with consuming(configure()) as program:
        for _ in range(300):
            send(channel, queue_name, 'ack_in_thread')
        ends_well(program, channel, queue_name)


@pytest.mark.parametrize(
    ('word', 'status', 'line'),
    [
        ('publish', 0, 'in the child: .*a child'),
        ('exit', 7, ''),
        ('raise', 1, 'a process that on_message has forked failed'),
        ('return', 0, ''),
    ],
)
def test_a_child_of_a_handler_ends_without_touching_the_message(
    configure, channel, queue_name, word, status, line
):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, 'nothing first')
        send(channel, queue_name, f'fork {word}')
        program.wait_line(line)
        program.wait_line(f'the child ended with {status}')
        ends_well(program, channel, queue_name)
    assert take(channel, f'{queue_name}.dead') == []


@pytest.mark.parametrize(
    ('content_type', 'charset'),
    [
        ('text/plain; charset=iso-8859-1', 'latin-1'),
        ('text/plain;charset="utf-16le"', 'utf-16le'),
        ('application/json; charset=utf-16', 'utf-16'),
    ],
)
def test_the_charset_of_a_type_counts(configure, channel, queue_name, content_type, charset):
    with consuming(configure(ONCE)) as program:
        text = '"nothing é"' if 'json' in content_type else 'nothing é'
        kombu.Producer(channel).publish(
            text.encode(charset), routing_key=queue_name, content_type=content_type,
            content_encoding='binary',
        )  # fmt: skip
        program.wait_line('done nothing é$')
        ends_well(program, channel, queue_name)


def test_a_call_that_waits_in_a_thread_holds_up_no_publishing(broker, channel, queue_name):
    from tests.test_publishing import client_of

    channel.queue_declare(queue_name)
    with client_of(broker.url()) as (client, _):
        waiting = threading.Thread(
            target=lambda: pytest.raises(TimeoutError, client.call, 'x', '', queue_name, 3, {}))
        waiting.start()
        while channel.queue_declare(queue_name, passive=True).message_count == 0:
            pass
        client.publish('beside', '', queue_name, {})
        assert waiting.is_alive()
        assert client.queue_depth(queue_name) == 2
        channel.queue_purge(queue_name)
        waiting.join()
