"""What a consumer does when its broker suffers: each fault is caused for real."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from pathlib import Path

import kombu
import pytest

from clihelper.amqp.connection import Connection
from clihelper.amqp.publisher import Publisher, PublishError
from tests.faults import consuming, ends, goes_on, logged, send, take, write

MIB = 1024 * 1024


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration; returns its path."""

    def configure(url=None, more='', wake_interval=3600, options=''):
        return write(tmp_path, url or broker.url(), queue_name, more, wake_interval,
                     options=options)

    return configure


@pytest.mark.parametrize('way', ['stop', 'kill', 'stop_app'])
def test_a_consumer_is_there_within_a_second_of_a_restarted_broker(
    configure, broker, queue_name, way, figure
):
    with consuming(configure()) as program:
        confirm = {'confirm_publish': True}
        with kombu.Connection(broker.url(), transport_options=confirm) as connection:
            with connection.channel() as channel:
                for number in range(10):
                    send(channel, queue_name, f'sleep 0.{number}', delivery_mode=2)
            program.wait_line('done sleep 0.1')
        if way == 'stop_app':
            broker.ctl('stop_app')
        else:
            getattr(broker, way)()
        program.wait_line('no broker: .*refused; next attempt')
        if way == 'stop_app':
            broker.ctl('start_app')
        else:
            broker.start()
        began = time.monotonic()
        program.wait_line('consuming', 30)
        took = time.monotonic() - began
        assert took < 2.5
        figure(f'broker restarted ({way}): consuming after', f'{took:.2f} s')
        if not logged(program, 'done sleep 0.9'):  # before the broker had stopped
            program.wait_line('done sleep 0.9', 30)
        assert all(logged(program, f'done sleep 0.{number}') for number in range(10))
        if way != 'kill':  # a broker that is killed may not have written the acknowledgement
            assert logged(program, 'got sleep 0.0') == 1
        assert program.stop() == 0


def test_a_frozen_broker_is_left_and_found_again(configure, broker, channel, queue_name):
    with consuming(configure()) as program:
        broker.pause()
        try:
            program.wait_line('lost the broker: the broker has been silent for [23]')
            program.wait_line('no broker: .*no answer; next attempt')
        finally:
            broker.resume()
        goes_on(program, channel, queue_name)
        assert program.stop() == 0


@pytest.mark.parametrize('signum', ['TERM', 'QUIT'])
def test_a_consumer_of_a_frozen_broker_ends_at_once(configure, broker, signum, figure):
    with consuming(configure()) as program:
        broker.pause()
        try:
            took = ends(program, signum, 0 if signum == 'TERM' else 131, 1)
            figure(f'{signum} to exit, broker frozen', took)
        finally:
            broker.resume()


@pytest.fixture
def impatient(broker):
    """Has the broker wait 3 s for an acknowledgement."""

    def set_limits(timeout, interval):
        # RabbitMQ looks at it at each tick: of a channel, and from 4.3 on of a quorum queue.
        broker.ctl('eval', f"""
            application:set_env(rabbit, consumer_timeout, {timeout}),
            application:set_env(rabbit, channel_tick_interval, {interval}),
            application:set_env(rabbit, quorum_tick_interval, {interval}).
        """)

    set_limits(3000, 1000)
    yield
    set_limits(1800000, 60000)


def test_a_delivery_that_is_acknowledged_too_late_comes_again(
    configure, broker, channel, queue_name, impatient
):
    """The broker closes the channel, or from RabbitMQ 4.3 on cancels the consumer.

    That has no time-out for a classic queue any more.
    """
    before = broker.log.count('unknown delivery tag')
    config = configure(more='  prefetch: 5\n', options='{arguments: {x-queue-type: quorum}}')
    with consuming(config) as program:
        send(channel, queue_name, 'sleep 5')
        program.wait_line('got sleep 5')
        program.wait_line('done sleep 5')
        program.wait_line(
            'lost the broker: .*(acknowledgement.*timed out|consumer_timeout).*; next attempt')
        program.wait_line('consuming')
        program.wait_line('got sleep 5 again')
        assert broker.log.count('unknown delivery tag') == before
        # It would go on like this for ever: that is for who has set the time to see.
        program.signal('QUIT')
        assert program.wait() == 131
    assert len(take(channel, queue_name)) == 1


@pytest.fixture
def alarm(broker):
    """Raises a memory alarm, and ends it."""
    fraction = '0.4'

    def alarm(raised=True):
        value = ['absolute', '1MB'] if raised else [fraction]
        broker.ctl('set_vm_memory_high_watermark', *value)

    yield alarm
    alarm(False)


def test_consuming_goes_on_under_a_memory_alarm(configure, broker, channel, queue_name, alarm):
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    for number in range(300):
        send(channel, queue_name, f'nothing {number}')
    send(channel, queue_name, 'last')
    channel.queue_declare(queue_name, passive=True)  # they are there
    alarm()
    with consuming(configure(more='  prefetch: 10\n')) as program:
        program.wait_line('done last')
        assert program.stop() == 0
    assert not take(channel, queue_name)


def test_publishing_waits_for_the_end_of_a_memory_alarm_and_says_so(
    configure, channel, queue_name, alarm, tmp_path
):
    with consuming(configure()) as program:
        send(channel, queue_name, f'publish {queue_name}')
        program.wait_line('published in')
        send(channel, queue_name, 'work')
        send(channel, queue_name, f'publish {queue_name}')
        send(channel, queue_name, 'last')
        program.wait_line('got work')
        alarm()
        (tmp_path / 'go').touch()
        program.wait_line('blocked: the broker takes no messages')
        while 'blocked' not in program.wait_notified('STATUS')['STATUS']:
            pass
        alarm(False)
        program.wait_line('published in')
        program.wait_line('done last')
        program.wait_notified('STATUS')
        assert logged(program, 'publishing is not blocked any more') == 1
        assert not logged(program, 'lost the broker')
        assert program.stop() == 0


def test_a_stop_under_a_memory_alarm_leaves_it_unknown_whether_a_message_arrives(
    configure, channel, queue_name, alarm, tmp_path
):
    with consuming(configure()) as program:
        send(channel, queue_name, f'publish {queue_name}')
        program.wait_line('published in')
        send(channel, queue_name, 'work')
        send(channel, queue_name, f'publish {queue_name}')
        program.wait_line('got work')
        alarm()
        (tmp_path / 'go').touch()
        program.wait_line('blocked')
        ends(program, 'TERM', 0, 1.7)
        assert logged(program, 'no answer before the stop; it is unknown whether it arrives') == 1


def test_publishing_under_a_memory_alarm_is_bounded(broker, channel, alarm, monkeypatch):
    monkeypatch.setattr('clihelper.amqp.publisher.CONFIRM_TIMEOUT', 0.5)
    target = channel.queue_declare(exclusive=True).queue
    connection = Connection([broker.url()], 1, 'test')
    connection.open()
    alarm()
    try:
        publisher = Publisher(connection)
        publisher.send('late', '', target, {})
        began = time.monotonic()
        with pytest.raises(PublishError) as caught:
            publisher.wait_for_confirms()
        assert time.monotonic() - began < 1
        assert caught.value.unknown
    finally:
        connection.drop()


def test_what_cannot_be_published_is_told_and_the_connections_stay(
    configure, channel, queue_name
):
    with consuming(configure()) as program:
        for words, said in (
            ('no-such-queue', 'no queue gets it'),
            ('key no-such-exchange', "404 NOT_FOUND - no exchange 'no-such-exchange'"),
            ('no-such-queue', 'no queue gets it'),
        ):
            send(channel, queue_name, f'publish {words}')
            program.wait_line(f'publish failed in 0.*: .*{said}')
        send(channel, queue_name, f'publish {queue_name}')
        program.wait_line('published in')
        program.wait_line('got published')
        assert not logged(program, 'lost the broker')
        assert program.stop() == 0


def test_a_connection_that_is_left_leaves_no_thread(broker):
    """One that wakes up while the interpreter ends may abort the process."""
    for leave in (Connection.drop, Connection.close):
        connection = Connection([broker.url()], 1, 'test')
        connection.open()
        assert 'heartbeat' in [thread.name for thread in threading.enumerate()]
        leave(connection)
        assert 'heartbeat' not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ('change', 'undo', 'said'),
    [
        (
            ('change_password', 'worker', 'other'),
            ('change_password', 'worker', 'secret'),
            'refuses the credentials',
        ),
        (
            ('clear_permissions', '-p', 'shop', 'worker'),
            ('set_permissions', '-p', 'shop', 'worker', '.*', '.*', '.*'),
            'no such vhost, or no permission for it',
        ),
    ],
)
def test_a_broker_that_refuses_later_is_asked_again_seldom(
    configure, broker, queue_name, change, undo, said
):
    broker.ctl('add_vhost', 'shop')
    broker.ctl('add_user', 'worker', 'secret')
    try:
        broker.ctl('set_permissions', '-p', 'shop', 'worker', '.*', '.*', '.*')
        url = broker.url('shop').replace('guest:guest', 'worker:secret')
        with consuming(configure(url)) as program:
            broker.ctl(*change)
            broker.ctl('close_all_connections', '--vhost', 'shop', 'a test')
            program.wait_line('lost the broker: ')
            program.wait_line(f'{said}; next attempt in 30')
            broker.ctl(*undo)
            program.signal('HUP')  # an operator need not wait
            program.wait_line('consuming')
            assert program.stop() == 0
            assert not logged(program, 'secret')
    finally:
        broker.ctl('delete_user', 'worker')
        broker.ctl('delete_vhost', 'shop')


def resident(pid, word):
    status = Path(f'/proc/{pid}/status').read_text()
    return int(next(line for line in status.splitlines() if line.startswith(word)).split()[1])


@pytest.fixture
def large_messages(broker):
    """The broker takes 128 MiB, as by default before RabbitMQ 4.0."""
    before = broker.limit_messages(128 * MIB)
    yield
    broker.limit_messages(before)


def test_a_body_of_64_mib_takes_bounded_memory(
    configure, large_messages, channel, queue_name, figure
):
    with consuming(configure()) as program:
        send(channel, queue_name, 'first')
        program.wait_line('done first')
        before = resident(program.pid, 'VmRSS')
        send(channel, queue_name, b'x' * 64 * MIB, content_type='text/plain',
             content_encoding='utf-8')
        send(channel, queue_name, 'after')
        program.wait_line('done after', 30)
        peak = (resident(program.pid, 'VmHWM') - before) / 1024
        figure('a body of 64 MiB: more memory at the peak', f'{peak:.0f} MiB')
        assert peak < 3.5 * 64
        assert program.stop() == 0
    (dead,) = take(channel, f'{queue_name}.dead')
    assert dead.headers['x-clihelper-reason'] == 'oversize'
    assert len(dead.body) == 64 * MIB


def test_a_compression_bomb_does_not_go_off(configure, channel, queue_name, figure):
    zeros = b'0' * 64 * MIB
    bomb, gzipped = zlib.compress(zeros, 9), gzip.compress(zeros, 9)
    del zeros
    with consuming(configure()) as program:
        send(channel, queue_name, 'first')
        program.wait_line('done first')
        before = resident(program.pid, 'VmRSS')
        for kind, encoding in (
            ('text/plain', 'zlib'), ('text/plain', 'gzip'), ('application/json', 'gzip'),
            ('application/x-gzip', 'binary'),
        ):
            send(channel, queue_name, bomb, content_type=kind, content_encoding=encoding)
        for data, encoding in ((bomb, 'deflate'), (gzipped, 'gzip')):
            for kind in ('text/plain', 'application/json', 'application/octet-stream'):
                send(channel, queue_name, data, content_type=kind, content_encoding=encoding)
        send(channel, queue_name, bomb, content_type='text/plain', content_encoding='utf-8',
             compression='zlib')
        send(channel, queue_name, 'after')
        program.wait_line('done after', 30)
        peak = (resident(program.pid, 'VmHWM') - before) / 1024
        assert peak < 48  # AMQP.max_body is 16 MiB, and zlib puts pieces together
        figure('compression bombs of 64 MiB: more memory at the peak', f'{peak:.1f} MiB')
        assert program.stop() == 0
    dead = take(channel, f'{queue_name}.dead')
    reasons = [letter.headers['x-clihelper-reason'] for letter in dead]
    assert reasons == [
        *['undecodable'] * 3, 'unaccepted', *['oversize'] * 6, 'undecodable']


DEBUG = """\
Logging:
  formatters: {plain: {format: '%(levelname)s %(name)s %(message)s'}}
  handlers: {console: {class: logging.StreamHandler, formatter: plain}}
  root: {level: DEBUG, handlers: [console]}
"""


def test_a_password_is_nowhere(configure, broker, queue_name):
    """In what is written at any level, in notifications, in ps, and in dead letters."""
    secret = 'gEhEiM'
    broker.ctl('add_vhost', 'vault')
    broker.ctl('add_user', 'teller', secret)
    try:
        for user in ('guest', 'teller'):
            broker.ctl('set_permissions', '-p', 'vault', user, '.*', '.*', '.*')
        url = broker.url('vault').replace('guest:guest', f'teller:{secret}')
        closed = f'amqp://teller:{secret}@127.0.0.1:1//'
        more = f'  retry: {{attempts: 1}}\n{DEBUG}'
        with consuming(configure(f'[{closed}, {url}]', more)) as program:
            with kombu.Connection(broker.url('vault')) as connection:
                channel = connection.channel()
                send(channel, queue_name, 'publish nowhere')
                send(channel, queue_name, 'publish_and_raise nowhere')
                program.wait_line('dead-lettered a message')
                send(channel, queue_name, 'after')
                program.wait_line('done after')
                (dead,) = take(channel, f'{queue_name}.dead')
            broker.ctl('change_password', 'teller', 'other')
            broker.ctl('close_all_connections', '--vhost', 'vault', 'a test')
            program.wait_line('lost the broker')
            program.wait_line('refuses the credentials; next attempt in 30')
            command = Path(f'/proc/{program.pid}/cmdline').read_text()
            assert program.stop() == 0
            assert logged(program, 'DEBUG')
            shown = '\n'.join([*program.lines, *map(str, program.notifications)])
    finally:
        broker.ctl('delete_user', 'teller')
        broker.ctl('delete_vhost', 'vault')
    everything = f'{shown}{command}{dead.headers}{dead.properties}'
    assert 'teller:**@' in everything
    for word in (secret, 'Z0VoRWlN'):  # and in Base64
        assert word not in everything
