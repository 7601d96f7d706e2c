"""Messages that fail, and are run again: on RabbitMQ, on classic and quorum queues, and beside."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
from pathlib import Path

import kombu
import pytest

from clihelper.testing import Program
from tests.broker import Broker
from tests.faults import send, take
from tests.proxy import Proxy

PROGRAM = str(Path(__file__).parent / 'programs' / 'stubborn.py')

TYPES = pytest.mark.parametrize('queue_type', ['classic', 'quorum'])


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration; returns its path."""

    def write(retry='', queue='{}', more='', url=None):
        path = tmp_path / 'stubborn.yml'
        path.write_text(
            f'AMQP:\n  url: {url or broker.url()}\n  queues: {{{queue_name}: {queue}}}\n'
            f'  retry: {{{retry}}}\n{more}'
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


def wait_for(channel, queue):
    """The body of the next message of *queue*; the broker may be busy giving it back."""
    found = []
    channel.basic_consume(queue, callback=found.append, no_ack=True)
    channel.connection.client.drain_events(timeout=20)
    return channel.message_to_python(found[0]).payload


def runs(program, word):
    """The numbers of the runs of messages that begin with *word*."""
    lines = '\n'.join(program.lines)
    return [int(number) for number in re.findall(rf"run (\d+) of '{word}", lines)]


@TYPES
def test_what_fails_is_run_again_later_and_then_a_dead_letter(
    configure, channel, queue_name, queue_type
):
    config = configure(
        'attempts: 3, delay: 0.1, factor: 3', f'{{arguments: {{x-queue-type: {queue_type}}}}}'
    )
    with consuming(config) as program:
        send(channel, queue_name, 'fail', headers={'mine': 1}, correlation_id='7')
        program.wait_line(r'failed in run 1 of 3 and will run again in 0.1 s')
        send(channel, queue_name, 'nothing')
        program.wait_line("run 1 of 'nothing'")
        program.wait_line("run 2 of 'fail'")
        program.wait_line(r'failed in run 2 of 3 and will run again in 0.3 s')
        program.wait_line(r'dead-lettered a message.*: exception')
        assert program.stop() == 0
        assert runs(program, 'fail') == [1, 2, 3]
    (dead,) = take(channel, f'{queue_name}.dead')
    assert dead.payload == 'fail'
    assert dead.properties['correlation_id'] == '7'
    assert dead.headers['mine'] == 1
    assert dead.headers['x-clihelper-attempts'] == 3
    assert dead.headers['x-clihelper-exception'] == 'ConnectionResetError'
    assert take(channel, queue_name) == []
    for delay in ('0.1', '0.3'):
        assert take(channel, f'{queue_name}.retry.{delay}s') == []


def test_what_succeeds_at_last_is_done_with(configure, channel, queue_name):
    with consuming(configure('delay: 0.1')) as program:
        send(channel, queue_name, 'fail 2')
        program.wait_line("run 3 of 'fail 2'")
        assert program.stop() == 0
    assert take(channel, queue_name) == take(channel, f'{queue_name}.dead') == []


def test_a_message_is_the_same_each_time_it_is_run(configure, channel, queue_name):
    config = configure(
        'delay: 0.1', f'{{exchange: {queue_name}, routing_keys: [order.*]}}',
        f'  exchanges: {{{queue_name}: {{type: topic}}}}\n',
    )  # fmt: skip
    with consuming(config) as program:
        send(channel, 'order.new', 'fail 1', exchange=queue_name)
        program.wait_line(f"run 1 .* by '{queue_name}' 'order.new'")
        program.wait_line(f"run 2 .* by '{queue_name}' 'order.new'")
        assert program.stop() == 0


@pytest.mark.parametrize('delay', ['0', '0.25'])
def test_a_handler_says_when(configure, channel, queue_name, delay):
    with consuming(configure('delay: 300')) as program:
        send(channel, queue_name, f'later {delay}')
        program.wait_line(f'will run again in {delay} s')
        program.wait_line("run 2 of 'later")
        assert program.stop() == 0
        assert not [line for line in program.lines if 'Traceback' in line]


def test_a_queue_that_goes_with_the_connection_has_retries_that_do(configure, channel, queue_name):
    config = configure('delay: 0.1', f"{{name: '', exchange: {queue_name}}}",
                       f'  exchanges: {{{queue_name}: {{type: fanout}}}}\n')  # fmt: skip
    with consuming(config) as program:
        send(channel, '', 'fail 1', exchange=queue_name)
        program.wait_line("run 2 of 'fail 1'")
        assert program.stop() == 0


@TYPES
def test_what_waits_survives_its_program(configure, channel, queue_name, queue_type):
    config = configure('delay: 1', f'{{arguments: {{x-queue-type: {queue_type}}}}}')
    with consuming(config) as program:
        send(channel, queue_name, 'fail 1')
        program.wait_line('will run again in 1 s')
        send(channel, queue_name, 'nothing')  # and so the first one is acknowledged
        program.wait_line("run 1 of 'nothing'")
        program.signal('KILL')
        program.wait()
    with consuming(config) as program:
        program.wait_line("run 2 of 'fail 1'")
        assert program.stop() == 0


def test_what_waits_survives_its_broker(tmp_path, queue_name):
    path = tmp_path / 'stubborn.yml'
    # What a queue has given back to one that did not take it yet is given again, by default after
    # three minutes.
    soon = '[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].'
    with Broker(advanced_config=soon) as broker:
        path.write_text(
            f'AMQP:\n  url: {broker.url()}\n  retry: {{delay: 2}}\n  queues:\n'
            '    one: {}\n    two: {arguments: {x-queue-type: quorum}}\n'
        )
        with consuming(str(path)) as program:
            with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
                # A broker that is killed within a second of making a quorum queue loses that: so
                # it is to be older.
                for queue in ('one', 'two'):
                    send(channel, queue, 'fail 1')
                    program.wait_line("run 2 of 'fail 1'")
                for queue in ('one', 'two'):
                    send(channel, queue, 'fail 1')
                    program.wait_line('will run again in 2 s')
            broker.kill()
            program.wait_line('lost the broker')
            broker.start()
            for _ in range(2):
                program.wait_line("run 2 of 'fail 1'", 30)
            assert program.stop() == 0


def test_with_declare_false_the_queues_of_the_schedule_must_exist(configure, channel, queue_name):
    config = configure('attempts: 3, delay: 0.1', more='  declare: false\n  dead_letter: false\n')
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        assert program.wait(30) == 69
        assert f"AMQP.retry, with declare: false: no queue '{queue_name}.retry.0.1s'" in (
            '\n'.join(program.lines)
        )
    for name, ttl in (('0.1', 100), ('0.2', 200)):
        channel.queue_declare(
            f'{queue_name}.retry.{name}s', durable=True, auto_delete=False,
            arguments={'x-message-ttl': ttl, 'x-dead-letter-exchange': '',
                       'x-dead-letter-routing-key': queue_name},
        )  # fmt: skip
    with consuming(config) as program:
        send(channel, queue_name, 'later 60')  # takes the longest there is
        program.wait_line("run 2 of 'later")
        assert program.stop() == 0


def test_without_a_record_of_what_was_in_hand_no_message_is_accused(
    configure, channel, queue_name
):
    config = configure('attempts: 2', '{arguments: {x-queue-type: quorum}}')
    with consuming(config) as program:
        assert program.stop() == 0
    for word in ('nothing a', 'die', 'nothing b'):
        send(channel, queue_name, word)
    for _ in range(4):
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            assert program.wait(30) == 9
            assert runs(program, 'die') == [1]
    assert take(channel, f'{queue_name}.dead') == []
    assert {message.payload for message in take(channel, queue_name)} >= {'die', 'nothing b'}


def test_a_requeued_message_is_not_counted(configure, channel, queue_name):
    config = configure('attempts: 1', '{arguments: {x-queue-type: quorum}}')
    with consuming(config) as program:
        send(channel, queue_name, 'requeue')
        program.wait_line("run 1 of 'requeue'")
        program.wait_line("run 1 of 'requeue'")
        assert program.stop() == 0
    assert take(channel, f'{queue_name}.dead') == []


def test_a_dead_letter_that_is_put_back_begins_anew(configure, channel, queue_name):
    with consuming(configure('attempts: 2, delay: 0.1')) as program:
        send(channel, queue_name, 'fail', headers={
            'x-clihelper-attempts': 2, 'x-clihelper-reason': 'exception'})  # fmt: skip
        program.wait_line("run 1 of 'fail'")
        program.wait_line("run 2 of 'fail'")
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    assert len(take(channel, f'{queue_name}.dead')) == 1


def test_all_that_is_not_settled_is_delivered_again(configure, channel, queue_name):
    with consuming(configure()) as program:
        for word in ('recover', 'nothing a', 'nothing b'):
            send(channel, queue_name, word)
        program.wait_line("run 1 of 'recover'")
        program.wait_line("run 1 of 'recover'")
        send(channel, queue_name, 'nothing c')  # behind all of them, in whatever order they are
        program.wait_line("run 1 of 'nothing c'")
        assert program.stop() == 0
        assert len(runs(program, 'nothing b')) == 1
    assert take(channel, queue_name) == []


def test_a_stop_while_a_handler_waits_for_a_silent_broker_gives_its_message_back(
    configure, broker, channel, queue_name, tmp_path
):
    with Proxy(broker.port) as proxy:
        config = configure('attempts: 1', url=proxy.url, more='  heartbeat: 60\n')
        env = {'GO': str(tmp_path / 'go')}
        with Program([sys.executable, PROGRAM, '-c', config, '-f'], env=env) as program:
            program.wait_ready(30)
            send(channel, queue_name, f'publish {queue_name}')
            program.wait_line("run 1 of 'publish")
            proxy.swallow()
            (tmp_path / 'go').touch()
            threading.Timer(0.2, program.signal, [signal.SIGTERM]).start()
            assert program.wait(10) == 0
            assert not [line for line in program.lines if 'dead letter' in line]
    assert wait_for(channel, queue_name) == f'publish {queue_name}'
