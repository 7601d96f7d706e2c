"""Classic queues, quorum queues and streams: what each of them needs, on RabbitMQ."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import amqp
import kombu
import pytest

from clihelper import config
from clihelper.amqp.connection import Connection
from clihelper.amqp.declarer import Declarer
from clihelper.amqp.rabbitmq import RabbitMQTransport
from clihelper.amqp.retries import RetryQueues, step
from clihelper.amqp.settlement import LONGEST_DELAY
from clihelper.amqp.topology import AT_LEAST_ONCE, NOT_KEPT, UNUSED, Topology
from clihelper.testing import Program
from tests.broker import Broker
from tests.faults import send, take
from tests.proxy import Proxy

PROGRAM = str(Path(__file__).parent / 'programs' / 'stubborn.py')

KEPT = {'durable': True, 'auto_delete': False}


@pytest.fixture(scope='module')
def impatient():
    """A broker that waits 1 s for what takes minutes by default.

    That is for an acknowledgement, and until it gives back again what a queue had no room for.
    """
    limits = {
        'consumer_timeout': 1000,
        'channel_tick_interval': 500,
        'quorum_tick_interval': 500,
        'dead_letter_worker_publisher_confirm_timeout': 1000,
    }
    terms = ', '.join(f'{{{name}, {value}}}' for name, value in limits.items())
    with Broker(advanced_config=f'[{{rabbit, [{terms}]}}].') as broker:
        yield broker


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration, in which NAME is the test's own; returns its path."""

    def write(section, url=None):
        path = tmp_path / 'stubborn.yml'
        path.write_text(
            f'AMQP:\n  url: {url or broker.url()}\n{section}'.replace('NAME', queue_name)
        )
        return str(path)

    return write


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@contextlib.contextmanager
def consuming(path):
    with Program([sys.executable, PROGRAM, '-c', path, '-f']) as program:
        program.wait_ready(30)
        yield program


@contextlib.contextmanager
def wire(broker, vhost='/'):
    connection = RabbitMQTransport(broker.url(vhost), 0, 5, 'test')
    connection.connect()
    try:
        yield connection
    finally:
        connection.end(5)


def section_of(text):
    return config.parse(f'AMQP: {text}'.encode(), '/', appname='x', shown='x').amqp


def arguments_of(connection, name):
    """What the broker says of a queue."""
    options = {'durable': True, 'exclusive': False, 'auto_delete': False, 'arguments': {}}
    declarer = Declarer(connection.channel(), RabbitMQTransport.refusals)
    return declarer.arguments_of('here', name, options)


def establish(broker, section, delay, vhost='/'):
    """Declare what the section says, and the queues in which messages wait so many ms."""
    topology = Topology(section)
    with wire(broker, vhost) as connection:
        refusals = RabbitMQTransport.refusals
        declarer = Declarer(topology.establish(connection.channel(), refusals), refusals)
        for label in topology.queues:
            topology.declare_retries(declarer, label, delay)


def fill(channel, queue):
    """Publish until there is no more room."""
    message = amqp.Message('nothing', content_type='text/plain', delivery_mode=2)
    with contextlib.suppress(amqp.exceptions.MessageNacked):
        while True:
            channel.basic_publish_confirm(message, routing_key=queue)


def wait_for_expiry(channel, queue_name, milliseconds):
    """Wait until what was published to a queue with such a TTL before has left it."""
    come, wait = f'{queue_name}.come', f'{queue_name}.wait'
    channel.queue_declare(come, exclusive=True)
    channel.queue_declare(wait, exclusive=True, arguments={
        'x-message-ttl': milliseconds, 'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': come})  # fmt: skip
    send(channel, wait, 'now')
    channel.basic_consume(come, no_ack=True, callback=lambda message: None)
    channel.connection.client.drain_events(timeout=20)


# A queue that is full.


@pytest.mark.parametrize('queue_type', ['classic', 'quorum'])
def test_a_message_that_waits_for_its_next_run_is_kept_until_its_queue_has_room(
    configure, impatient, queue_name, queue_type
):
    section = (
        f'  queues: {{NAME: {{arguments: {{x-queue-type: {queue_type}, x-max-length: 2,'
        ' x-overflow: reject-publish}}}\n'
    )
    path = configure(section, impatient.url())
    establish(impatient, config.load(path, appname='x').amqp, 500)
    with kombu.Connection(impatient.url()) as connection, connection.channel() as channel:
        channel.confirm_select()
        with consuming(path) as program:
            send(channel, queue_name, 'later 0.5')
            program.wait_line('will run again in 0.5 s')
            assert program.stop() == 0
        fill(channel, queue_name)
        wait_for_expiry(channel, queue_name, 500)
        with consuming(path) as program:
            program.wait_line("run 2 of 'later 0.5'")
            assert program.stop() == 0


def test_a_retry_queue_of_an_earlier_version_is_used_as_it_is(configure, channel, queue_name):
    name = f'{queue_name}.retry.0.1s'
    there = {'x-message-ttl': 100, 'x-dead-letter-exchange': '',
             'x-dead-letter-routing-key': queue_name}  # fmt: skip
    channel.queue_declare(name, arguments={**there, 'x-expires': 3600100}, **KEPT)
    with consuming(configure('  queues: {NAME: }\n  retry: {delay: 0.1}\n')) as program:
        send(channel, queue_name, 'fail 1')
        program.wait_line(
            f"AMQP.retry: x-queue-type is classic instead of quorum in the queue '{name}' that"
            f' exists, which is used as it is until you delete it: {NOT_KEPT}'
        )
        program.wait_line("run 2 of 'fail 1'")
        assert program.stop() == 0


def test_a_queue_that_gives_nothing_back_is_no_retry_queue(configure, channel, queue_name):
    name = f'{queue_name}.retry.0.1s'
    channel.queue_declare(name, **KEPT)
    with consuming(configure('  queues: {NAME: }\n  retry: {delay: 0.1}\n')) as program:
        send(channel, queue_name, 'fail 1')
        program.wait_line(f"x-message-ttl is 100 here, but not set in the queue '{name}'")
        program.wait_line("run 2 of 'fail 1'")
        assert program.stop() == 0


def test_nothing_is_published_to_a_retry_queue_that_a_crash_would_lose(broker, queue_name):
    section = section_of(f'{{url: "{broker.url()}", queues: {{{queue_name}: }}}}')
    topology = Topology(section)
    connection = Connection.of(section, 'test')
    connection.open()
    try:
        topology.establish(connection.channel(), connection.refusals)
        name, pause = RetryQueues(topology, section['retry']).queue(connection, queue_name, 1)
        assert name == f'{queue_name}.retry.1s'
        assert 1.5 < pause <= 2
        another = RetryQueues(topology, section['retry'])
        assert another.queue(connection, queue_name, 1) == (name, 0)
    finally:
        connection.close()
    with wire(broker) as connection:
        assert arguments_of(connection, name) == {
            **AT_LEAST_ONCE,
            'x-message-ttl': 1000,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': queue_name,
            'x-expires': UNUSED + 1000,
        }


def test_the_longest_name_leaves_room_for_those_that_are_made_of_it(broker, channel):
    name = 'é' * 120
    topology = Topology(section_of(f'{{queues: {{{name}: }}}}'))
    with wire(broker) as connection:
        open_channel = topology.establish(connection.channel(), RabbitMQTransport.refusals)
        declarer = Declarer(open_channel, RabbitMQTransport.refusals)
        assert topology.declare_retries(declarer, name, step(LONGEST_DELAY))
        longest = topology.name_of_retries(name, step(LONGEST_DELAY))
        assert len(longest.encode()) == 255
        declarer.channel.queue_declare(longest, passive=True)
    for queue in (longest, f'{name}.dead', name):
        channel.queue_delete(queue)


# The type that a queue has.


@pytest.fixture(scope='module')
def vhost(broker):
    """A virtual host in which queues are quorum queues unless they are said to be of a type."""
    name = 'quorum by default'
    broker.ctl('add_vhost', name, '--default-queue-type', 'quorum')
    broker.ctl('set_permissions', '-p', name, 'guest', '.*', '.*', '.*')
    return name


def test_where_quorum_is_the_default_type_a_queue_and_its_dead_letters_are_of_it(
    configure, broker, queue_name, vhost
):
    path = configure('  queues: {NAME: }\n  retry: {attempts: 2, delay: 0.1}\n',
                     broker.url(vhost))  # fmt: skip
    with kombu.Connection(broker.url(vhost)) as connection, connection.channel() as channel:
        with consuming(path) as program:
            send(channel, queue_name, 'fail')
            program.wait_line('dead-lettered a message')
            assert program.stop() == 0
        assert len(take(channel, f'{queue_name}.dead')) == 1
    with wire(broker, vhost) as connection:
        for name in (queue_name, f'{queue_name}.dead'):
            assert arguments_of(connection, name) == {'x-queue-type': 'quorum'}


@pytest.mark.parametrize(('default', 'there'), [(True, 'classic'), (False, 'quorum')])
def test_a_queue_of_another_type_than_the_default_is_accepted_where_none_is_named(
    configure, broker, queue_name, vhost, default, there
):
    url = broker.url(vhost) if default else broker.url()
    path = configure('  queues: {NAME: }\n  retry: {attempts: 2, delay: 0.1}\n', url)
    with kombu.Connection(url) as connection, connection.channel() as channel:
        channel.queue_declare(queue_name, arguments={'x-queue-type': there}, **KEPT)
        with consuming(path) as program:
            send(channel, queue_name, 'fail')
            program.wait_line("run 2 of 'fail'")
            program.wait_line('dead-lettered a message')
            assert program.stop() == 0
        assert len(take(channel, f'{queue_name}.dead')) == 1
    with wire(broker, vhost if default else '/') as connection:
        found = arguments_of(connection, f'{queue_name}.dead')
        assert found == {'x-queue-type': there}


def test_it_is_accepted_where_the_name_leaves_no_room_for_the_reason(broker, channel):
    """RabbitMQ cuts its reply, and so it does not say which type the queue is of."""
    # The folder of a stream has a name that is 22 bytes longer, of 255 at most: with one that
    # is too long, RabbitMQ tries to make it without end.
    name = ('long' * 60)[:230]
    topology = Topology(section_of(f'{{queues: {{{name}: }}}}'))
    with wire(broker) as connection:
        for kind in ('quorum', 'stream', 'classic'):
            channel.queue_declare(name, arguments={'x-queue-type': kind}, **KEPT)
            again = topology.establish(connection.channel(), RabbitMQTransport.refusals)
            assert again.is_open
            assert topology.is_stream(name) == (kind == 'stream')
            channel.queue_delete(name)
            channel.queue_delete(f'{name}.dead')


def test_what_else_differs_is_an_error_all_the_same(configure, channel, queue_name):
    channel.queue_declare(
        queue_name, arguments={'x-queue-type': 'quorum', 'x-max-length': 7}, **KEPT
    )
    with Program([sys.executable, PROGRAM, '-c', configure('  queues: {NAME: }\n'), '-f']) as it:
        assert it.wait(30) == 69
        assert (
            f"AMQP.queues.{queue_name}: x-max-length is not set here, but 7 in the queue"
            f" '{queue_name}' that exists"
        ) in '\n'.join(it.stderr)


def test_the_arguments_of_a_queue_can_be_found_out(broker, channel, queue_name):
    there = {
        'x-queue-type': 'quorum', 'x-max-length': 7, 'x-overflow': 'reject-publish',
        'x-dead-letter-exchange': 'some where', 'x-dead-letter-routing-key': "it's",
        'x-delivery-limit': 3, 'x-message-ttl': 2**31, 'x-single-active-consumer': True,
    }  # fmt: skip
    channel.queue_declare(queue_name, arguments=there, **KEPT)
    with wire(broker) as connection:
        assert arguments_of(connection, queue_name) == there
        assert arguments_of(connection, f'{queue_name}.no') is None
        with pytest.raises(amqp.NotFound):  # the question has created nothing
            channel.queue_declare(f'{queue_name}.no', passive=True)


# Streams.

STREAM = """\
  retry: {attempts: 2, delay: 0.1}
  queues:
    NAME:
      arguments: {x-queue-type: stream}
      consumer_arguments: {x-stream-offset: first}
"""


def test_what_fails_in_a_stream_is_run_again_and_dead_lettered_beside_it(
    configure, channel, queue_name
):
    path = configure(STREAM)
    with consuming(path) as program:
        for word in ('requeue_once', 'fail 1', 'fail', 'nothing'):
            send(channel, queue_name, word)
        program.wait_line("run 1 of 'requeue_once'")
        program.wait_line("run 1 of 'requeue_once'")
        for _ in range(2):
            program.wait_line('run 2 of ')
        assert program.stop() == 0
    command = [sys.executable, '-m', 'clihelper', 'dead-letters', '-c', path, 'replay', '--all']
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f'replayed to {queue_name}: 1\n'
    (replayed,) = take(channel, f'{queue_name}.retry')
    assert replayed.payload == 'fail'
    assert not {'x-stream-offset', 'x-clihelper-queue'} & replayed.headers.keys()
    assert in_stream(channel, queue_name) == [
        'requeue_once', 'fail 1', 'fail', 'nothing']  # fmt: skip


def test_the_longest_name_that_a_stream_may_have_is_one_that_the_broker_makes_a_folder_of(
    configure, channel, queue_name
):
    rest = 'x' * (233 - len(queue_name))
    with consuming(configure(STREAM.replace('NAME', f'NAME{rest}'))) as program:
        send(channel, queue_name + rest, 'hello')
        program.wait_line("run 1 of 'hello'")
        assert program.stop() == 0
    path = configure(STREAM.replace('NAME', f'NAME{rest}x'))
    done = subprocess.run(
        [sys.executable, PROGRAM, '-c', path, '--check'],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 78
    assert re.fullmatch(r'.*:\d+:5: AMQP.queues.*: expected a name of at most 233 bytes, got 234:'
                        r' the broker keeps a stream in a folder <vhost>_<queue>_<time>\n',
                        done.stderr)


def in_stream(channel, queue):
    """The bodies of a stream that a reader of its own finds there, up to ``nothing``."""
    found = []
    channel.basic_qos(0, 10, False)
    channel.basic_consume(
        queue,
        callback=lambda message: found.append(channel.message_to_python(message).payload),
        arguments={'x-stream-offset': 'first'},
    )
    while 'nothing' not in found:
        channel.connection.client.drain_events(timeout=20)
    return found


def test_what_waits_for_its_next_run_survives_the_program_that_reads_a_stream(
    configure, broker, channel, queue_name
):
    path = configure(STREAM.replace('first', 'next'))
    establish(broker, config.load(path, appname='x').amqp, 1000)
    with consuming(path) as program:
        send(channel, queue_name, 'later 1')
        program.wait_line('will run again in 1 s')
        send(channel, queue_name, 'nothing')
        program.wait_line("run 1 of 'nothing'")
        program.signal('KILL')
        program.wait()
    with consuming(path) as program:
        program.wait_line("run 2 of 'later 1'")
        assert program.stop() == 0
        assert not [line for line in program.lines if "'nothing'" in line]


def test_after_a_reconnection_a_stream_is_read_on(configure, broker, channel, queue_name):
    """Not from the beginning, and not behind what has been published meanwhile."""
    for offset in ('first', 'next'):
        queue = f'{queue_name}.{offset}'
        path = configure(STREAM.replace('NAME', queue).replace('first', offset))
        with Proxy(broker.port) as proxy:
            text = Path(path).read_text().replace(broker.url(), proxy.url)
            Path(path).write_text(text + '  prefetch: 1\n')
            with consuming(path) as program:
                send(channel, queue, 'nothing 1')
                send(channel, queue, 'fail 1')  # its copy is not published at once
                program.wait_line("run 1 of 'fail 1'")
                proxy.reset()
                send(channel, queue, 'nothing 2')
                program.wait_line('lost the broker')
                program.wait_line("run 1 of 'fail 1'")
                program.wait_line("run 1 of 'nothing 2'")
                program.wait_line("run 2 of 'fail 1'")
                assert program.stop() == 0
                assert len([line for line in program.lines if "'nothing 1'" in line]) == 1


def test_a_stream_is_found_out_where_nothing_is_declared(broker, channel, queue_name):
    channel.queue_declare(queue_name, arguments={'x-queue-type': 'stream'}, **KEPT)
    for name in (f'{queue_name}.retry', f'{queue_name}.dead'):
        channel.queue_declare(name, arguments={'x-queue-type': 'quorum'}, **KEPT)
    topology = Topology(section_of(f'{{declare: false, queues: {{{queue_name}: }}}}'))
    with wire(broker) as connection:
        topology.establish(connection.channel(), RabbitMQTransport.refusals)
    assert topology.is_stream(queue_name)
    assert [name for _, name, _ in topology.consumers] == [queue_name, f'{queue_name}.retry']
    assert topology.return_queue(queue_name) == f'{queue_name}.retry'


# How long a handler may take.


@pytest.mark.parametrize('more', ['  handler_timeout: 60\n', ''])
def test_a_quorum_queue_waits_for_as_long_as_a_handler_may_take(
    configure, impatient, queue_name, more
):
    """From RabbitMQ 4.3 on; before that, only the broker's operator says how long."""
    section = f'  queues: {{NAME: {{arguments: {{x-queue-type: quorum}}}}}}\n{more}'
    with wire(impatient) as connection:
        is_told = Declarer(connection.channel(), ()).version >= (4, 3) and bool(more)
    path = configure(section, impatient.url())
    with kombu.Connection(impatient.url()) as connection, connection.channel() as channel:
        with consuming(path) as program:
            send(channel, queue_name, 'sleep 3')
            program.wait_line('slept')
            send(channel, queue_name, 'nothing')
            program.wait_line("run 1 of 'nothing'")
            runs = [line for line in program.lines if "of 'sleep 3'" in line]
            assert program.stop() == 0
        assert (len(runs) == 1) == is_told


@pytest.mark.parametrize(
    ('section', 'milliseconds'),
    [
        ('handler_timeout: 600, prefetch: 10', 6_060_000),
        ('handler_timeout: 0.5, prefetch: 10', 1_800_000),  # RabbitMQ's default, at least
        ('handler_timeout: 86400, prefetch: 100', 2**32 - 1),
        ('prefetch: 10', None),
    ],
)
def test_it_is_told_the_time_for_all_that_is_prefetched(
    broker, channel, queue_name, section, milliseconds
):
    section = section_of(
        f'{{queues: {{named: {{name: {queue_name}, arguments: {{x-queue-type: quorum}}}},'
        f' found: {{name: {queue_name}.found}}, classic: {{name: {queue_name}.classic}},'
        f' other: {{name: {queue_name}.other, arguments: {{x-queue-type: quorum}},'
        f' consumer_arguments: {{x-consumer-timeout: 7}}}}}}, {section}}}'
    )
    found = f'{queue_name}.found'
    channel.queue_declare(found, arguments={'x-queue-type': 'quorum'}, **KEPT)
    topology = Topology(section)
    with wire(broker) as connection:
        connection.server_properties['version'] = '4.3.0'
        topology.establish(connection.channel(), RabbitMQTransport.refusals)
    said = {
        label: arguments.get('x-consumer-timeout')
        for label, _, arguments in topology.consumers
    }
    assert said == {'named': milliseconds, 'found': milliseconds, 'classic': None, 'other': 7}
