"""The consumer as its user runs it: on RabbitMQ, and on kombu's memory transport.

Each test is run with one message at a time, with several in threads, and with several coroutines.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path

import kombu
import pytest

from clihelper.testing import Program
from tests.broker import Broker
from tests.faults import send, take

ONCE = '  retry: {attempts: 1}\n'
"""in the AMQP section: what fails is a dead letter"""

PROGRAM = str(Path(__file__).parent / 'programs' / 'consumer.py')


@pytest.fixture(autouse=True, params=['one', 'threads', 'coroutines'])
def kind(request, monkeypatch):
    """How many messages are handled at a time, and by what."""
    monkeypatch.setenv('KIND', request.param)
    return request.param


@pytest.fixture
def configure(tmp_path, broker, queue_name, kind):
    """Writes a configuration; returns its path."""

    def write(url=None, more='', queue='{}'):
        path = tmp_path / 'obedient.yml'
        path.write_text(
            f'Application: {{wake_interval: 3600, go: {tmp_path}/go}}\n'
            f'AMQP:\n  url: {url or broker.url()}\n  queues: {{{queue_name}: {queue}}}\n{more}'
            + ('  threads: 4\n' if kind == 'threads' else '')
        )
        return str(path)

    return write


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@contextlib.contextmanager
def consuming(config):
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        program.wait_ready(30)
        yield program


def wait_for(channel, queue, timeout=10):
    """The next message of *queue*, acknowledged; the broker may be busy giving it back."""
    found = []
    tag = channel.basic_consume(queue, callback=found.append, no_ack=True)
    channel.connection.client.drain_events(timeout=timeout)
    channel.basic_cancel(tag)
    return channel.message_to_python(found[0])


def count(channel, queue):
    return channel.queue_declare(queue, passive=True).message_count


def test_a_message_is_handled_and_acknowledged(configure, channel, queue_name):
    with consuming(configure()) as program:
        send(channel, queue_name, {'do': 'nothing'})
        program.wait_line(f"got {{'do': 'nothing'}} from {queue_name}")
        assert program.stop() == 0
    assert count(channel, queue_name) == 0


@pytest.mark.parametrize(
    ('word', 'reason', 'exception'),
    [
        ('fail', 'exception', 'ConnectionResetError'),
        ('time_out', 'exception', 'TimeoutError'),
        ('exit', 'exception', 'SystemExit'),
        ('interrupt', 'exception', 'KeyboardInterrupt'),
        ('reject', 'rejected', 'Reject'),
        ('publish_nowhere', 'exception', 'PublishError'),
        ('cancel', 'exception', 'CancelledError'),
        ('group', 'exception', 'ExceptionGroup'),
    ],
)
def test_a_message_whose_handler_fails_is_a_dead_letter_and_the_next_is_handled(
    configure, channel, queue_name, word, reason, exception, kind
):
    if word in ('cancel', 'group') and kind != 'coroutines':
        return  # a coroutine's own ways to fail
    with consuming(configure(more=ONCE)) as program:
        send(channel, queue_name, {'do': word}, correlation_id='7', headers={'mine': 1})
        send(channel, queue_name, 'after')
        for _ in range(2):  # in any order, with several at a time
            program.wait_line('got ')
        assert program.stop() == 0
        assert not [line for line in program.lines if 'lost the broker' in line]
    (dead,) = take(channel, f'{queue_name}.dead')
    assert dead.payload == {'do': word}
    assert dead.properties['correlation_id'] == '7'
    assert dead.headers['mine'] == 1
    assert dead.headers['x-clihelper-reason'] == reason
    assert dead.headers['x-clihelper-exception'] == exception
    assert dead.headers['x-clihelper-queue'] == queue_name
    assert count(channel, queue_name) == 0


def test_bad_bodies_are_dead_letters_and_never_logged(configure, channel, queue_name, kind):
    bad = [
        (b'{"secret', 'application/json', 'undecodable'),
        (b'secret\xff', 'text/plain', 'undecodable'),
        (b'\x80\x04secret.', 'application/x-python-serialize', 'unaccepted'),
        (b'secret' * 200, 'text/plain', 'oversize'),
    ]
    with consuming(configure(more='  max_body: 1000\n')) as program:
        for body, content_type, _ in bad:
            send(channel, queue_name, body, content_type=content_type, content_encoding='utf-8')
        send(channel, queue_name, 'after')
        for _ in [*bad, 'after']:
            program.wait_line("dead-lettered|got 'after'")
        assert program.stop() == 0
        assert not [line for line in program.lines if 'secret' in line]
    dead = take(channel, f'{queue_name}.dead')
    # py-amqp decodes what it can by the character set.
    bodies = [b.encode() if isinstance(b, str) else bytes(b) for b in (d.body for d in dead)]
    reasons = [letter.headers['x-clihelper-reason'] for letter in dead]
    found = list(zip(bodies, reasons, strict=True))
    expected = [(body, why) for body, _, why in bad]
    assert (found if kind == 'one' else sorted(found)) == (
        expected if kind == 'one' else sorted(expected))


def test_a_requeued_message_comes_again(configure, channel, queue_name):
    with consuming(configure()) as program:
        send(channel, queue_name, 'requeue')
        program.wait_line("got 'requeue'")
        program.wait_line("got 'requeue'")
        assert program.stop() == 0
    assert count(channel, f'{queue_name}.dead') == 0


def test_a_handler_may_settle_once_by_itself(configure, channel, queue_name):
    with consuming(configure()) as program:
        send(channel, queue_name, 'ack_and_fail')
        program.wait_line('on_message failed after a message from .* was acknowledged')
        send(channel, queue_name, 'after')
        program.wait_line("got 'after'")
        assert program.stop() == 0
    assert count(channel, queue_name) == count(channel, f'{queue_name}.dead') == 0


def test_a_handler_may_publish_and_reply(configure, channel, queue_name):
    replies = channel.queue_declare(exclusive=True).queue
    with consuming(configure(more=ONCE)) as program:
        send(channel, queue_name, 'publish')
        program.wait_line("got {'do': 'nothing', 'again': True}")
        send(channel, queue_name, 'reply', reply_to=replies, correlation_id='42')
        send(channel, queue_name, 'reply', reply_to='nobody-there')
        program.wait_line('has nowhere to go')
        send(channel, queue_name, 'reply_badly', reply_to=replies)
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    (reply,) = take(channel, replies)
    assert reply.payload == {'to': '42'}
    assert reply.properties['correlation_id'] == '42'


def test_stopping_finishes_the_work_in_hand_and_gives_back_the_rest(
    configure, channel, queue_name, tmp_path, kind
):
    with consuming(configure(more='  concurrency: 4\n')) as program:
        for _ in range(9):
            send(channel, queue_name, 'work')
        in_hand = 1 if kind == 'one' else 4
        for _ in range(in_hand):
            program.wait_line("got 'work'")
        program.signal('TERM')
        if kind != 'one':
            program.wait_notified('STOPPING')
        (tmp_path / 'go').touch()
        assert program.wait() == 0
        assert sum('worked' in line for line in program.lines) == in_hand
    assert [message.body for message in take(channel, queue_name)] == ['work'] * (9 - in_hand)


def test_quit_abandons_the_work_in_hand_to_its_queue(configure, channel, queue_name):
    with consuming(configure()) as program:
        send(channel, queue_name, 'work')
        program.wait_line("got 'work'")
        program.signal('QUIT')
        assert program.wait() == 128 + 3
    (message,) = take(channel, queue_name)
    assert message.delivery_info['redelivered']


def test_what_a_crash_left_is_delivered_again(configure, channel, queue_name):
    with consuming(configure()) as program:
        send(channel, queue_name, 'die')
        assert program.wait() == 9
    assert wait_for(channel, queue_name).delivery_info['redelivered']


def test_heartbeats_flow_while_a_handler_is_busy(configure, channel, queue_name):
    with consuming(configure(more='  heartbeat: 1\n')) as program:
        send(channel, queue_name, 'sleep')
        program.wait_line('slept')
        send(channel, queue_name, 'after')
        program.wait_line("got 'after'")
        assert program.stop() == 0
        assert not [line for line in program.lines if 'lost the broker' in line]
        assert sum("got 'sleep'" in line for line in program.lines) == 1
    assert count(channel, queue_name) == 0


def test_without_dead_letters_a_failed_message_is_rejected(configure, channel, queue_name):
    with consuming(configure(more=ONCE + '  dead_letter: false\n')) as program:
        send(channel, queue_name, 'fail')
        program.wait_line('dropped a message from .*, as AMQP.dead_letter is false')
        assert program.stop() == 0
    assert count(channel, queue_name) == 0


def test_the_topology_is_declared(configure, channel, queue_name):
    config = configure(
        queue=f'{{exchange: {queue_name}, routing_keys: [order.*]}}',
        more=f'  exchanges: {{{queue_name}: {{type: topic}}}}\n'
        f'  dead_letter: {queue_name}.letters\n',
    )
    with consuming(config) as program:
        kombu.Producer(channel).publish('hello', exchange=queue_name, routing_key='order.new')
        kombu.Producer(channel).publish('lost', exchange=queue_name, routing_key='other')
        program.wait_line("got 'hello'")
        assert program.stop() == 0
    assert count(channel, f'{queue_name}.letters') == 0
    with pytest.raises(channel.connection.client.channel_errors):
        channel.queue_declare(queue_name, durable=False)


def fails(config, status):
    """Run the consumer to its end; its one line."""
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        assert program.wait(30) == status
        lines = [line for line in program.stderr if line.startswith('obedient: ')]
        assert len(lines) == 1
        return lines[0]


@pytest.mark.parametrize(
    ('url', 'said'),
    [
        ('amqp://guest:wrong@127.0.0.1:{port}//', 'refuses the credentials'),
        ('amqp://guest:guest@127.0.0.1:{port}/nowhere', 'no such vhost'),
    ],
)
def test_a_broker_that_refuses_is_an_error_of_the_user(configure, broker, url, said):
    line = fails(configure(url.format(port=broker.port)), 69)
    assert said in line
    assert 'wrong' not in line


def test_a_queue_that_is_not_as_declared_is_an_error_of_the_user(
    configure, channel, queue_name
):
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    line = fails(configure(queue='{durable: false}'), 69)
    assert f'AMQP.queues.{queue_name}' in line
    assert 'durable' in line


def test_declare_false_verifies_only(configure, channel, queue_name):
    config = configure(more=ONCE + '  declare: false\n')
    assert queue_name in fails(config, 69)
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    channel.queue_declare(f'{queue_name}.dead', durable=True, auto_delete=False)
    with consuming(config) as program:
        assert program.stop() == 0


def test_an_absent_broker_is_an_error_where_it_is_not_waited_for(configure):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    url = f'amqp://guest:secret@127.0.0.1:{port}//'
    line = fails(configure(url, more='  wait_for_broker: false\n'), 69)
    assert 'refused' in line
    assert 'secret' not in line


@pytest.mark.parametrize('signum', ['TERM', 'INT'])
def test_an_absent_broker_is_waited_for_until_a_signal(configure, signum):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    config = configure(f'amqp://guest:secret@127.0.0.1:{port}//')
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        program.wait_line('no broker: .*refused; next attempt')
        program.signal(signum)
        assert program.wait() == 75
        assert not [line for line in program.lines if 'secret' in line]


def test_connecting_to_a_silent_peer_is_ended_by_a_signal(configure):
    with socket.create_server(('127.0.0.1', 0)) as server:
        config = configure(f'amqp://127.0.0.1:{server.getsockname()[1]}//')
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            server.accept()
            program.signal('TERM')
            assert program.wait(3) == 75


class Swallowing:
    """A proxy to the broker that is silent from a client's first ``queue.declare`` on."""

    def __init__(self, port):
        self.server = socket.create_server(('127.0.0.1', 0))
        self.port = self.server.getsockname()[1]
        self.broker_port = port
        self.silent = threading.Event()
        self.ends = [self.server]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed under it
            while True:
                client, _ = self.server.accept()
                broker = socket.create_connection(('127.0.0.1', self.broker_port))
                self.ends += [client, broker]
                for serve in (self.ask, self.answer):
                    threading.Thread(target=serve, args=(client, broker), daemon=True).start()

    def ask(self, client, broker):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if b'\x00\x32\x00\x0a' in data:  # class 50, method 10
                    self.silent.set()
                    return
                broker.sendall(data)

    def answer(self, client, broker):
        with contextlib.suppress(OSError):
            while not self.silent.is_set() and (data := broker.recv(65536)):
                client.sendall(data)

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        for end in self.ends:
            end.close()


def test_declaring_to_a_peer_that_fell_silent_is_ended_by_a_signal(configure, broker):
    proxy = Swallowing(broker.port)
    try:
        config = configure(f'amqp://guest:guest@127.0.0.1:{proxy.port}//')
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            assert proxy.silent.wait(10)
            program.signal('TERM')
            assert program.wait(3) == 75
    finally:
        proxy.close()


def test_a_second_address_is_tried(configure, broker, channel, queue_name):
    config = configure(f'[amqp://127.0.0.1:1//, {broker.url()}]')
    with consuming(config) as program:
        send(channel, queue_name, 'after')
        program.wait_line("got 'after'")
        assert program.stop() == 0


def test_a_deleted_queue_is_declared_again(configure, channel, queue_name):
    with consuming(configure()) as program:
        channel.queue_delete(queue_name)
        program.wait_line(r'lost the broker: .*; next attempt (in 0\.\d+ s|at once)')
        program.wait_line('consuming')
        send(channel, queue_name, 'after')
        program.wait_line("got 'after'")
        assert program.stop() == 0


def test_a_restarted_broker_is_consumed_from_again(configure, queue_name):
    with Broker() as node, consuming(configure(node.url())) as program:
        node.kill()
        program.wait_line('lost the broker')
        program.wait_line('no broker')
        node.start()
        program.wait_line('consuming')
        with kombu.Connection(node.url()) as connection, connection.channel() as channel:
            send(channel, queue_name, 'after')
            program.wait_line("got 'after'")
        assert program.stop() == 0


def test_a_restart_by_hangup_loses_nothing(configure, channel, queue_name, tmp_path):
    with consuming(configure()) as program:
        for _ in range(3):
            send(channel, queue_name, 'work')
        program.wait_line("got 'work'")
        program.signal('HUP')
        (tmp_path / 'go').touch()
        for word, times in (('worked', 3), ('consuming', 2)):
            while sum(word in line for line in program.lines) < times:
                program.wait_line('worked|consuming')
        assert program.stop() == 0
    assert count(channel, queue_name) == 0


@pytest.mark.parametrize(('queue', 'url', 'said'), [
    ('{durable: false}', None, 'durable'),
    ('{}', 'amqp://guest:wrong@127.0.0.1:{port}//', 'refuses the credentials'),
])
def test_a_reload_that_the_broker_refuses_is_undone(
    configure, broker, channel, queue_name, queue, url, said
):
    with consuming(configure()) as program:
        configure(url and url.format(port=broker.port), queue=queue)
        program.signal('HUP')
        program.wait_line(f'the reload failed, the old configuration is set up again: .*{said}')
        ready = program.wait_notified('READY')
        assert ready['STATUS'].startswith('running with the old configuration; the reload failed')
        send(channel, queue_name, 'work')
        program.wait_line("got 'work'")
        assert program.stop('QUIT') == 131
        assert 'wrong' not in str(program)


def test_the_memory_transport_needs_no_broker(configure, queue_name):
    with consuming(configure('memory://')) as program:
        program.wait_line('process')
        assert program.stop() == 0
        assert not [line for line in program.lines if 'WARNING' in line]
