"""Quorum queues count how often a message is returned, and drop it: none is lost by that."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from pathlib import Path

import kombu
import pytest

from clihelper.testing import TIMEOUT, Program
from tests.faults import send, take
from tests.proxy import Proxy

PROGRAM = str(Path(__file__).parent / 'programs' / 'outcomes.py')

LIMIT = 4
ROUNDS = 2 * LIMIT
MESSAGES = ROUNDS + 4


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration; returns its path."""

    def write(arguments=f'x-delivery-limit: {LIMIT}', more='', url=None, daemon=''):
        path = tmp_path / 'outcomes.yml'
        path.write_text(
            f'Application: {{go: {tmp_path}/go}}\n'
            f'Daemon: {{{daemon}}}\n'
            f'AMQP:\n  url: {url or broker.url()}\n  queues:\n'
            f'    {queue_name}: {{arguments: {{x-queue-type: quorum, {arguments}}}}}\n{more}'
        )
        return str(path)

    return write


@contextlib.contextmanager
def consuming(config):
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        program.wait_ready(30)
        yield program


def done(programs):
    lines = '\n'.join(line for program in programs for line in program.lines)
    return re.findall(r'done (?:work|nap) (\d+)', lines)


def handle_the_rest(config, go, programs, channel, queue_name):
    """All that have not been handled are there still, and nobody has accused one."""
    go.touch()
    with consuming(config) as program:
        programs.append(program)
        while len(set(done(programs))) < MESSAGES:
            program.wait_line('done work', 20)
        assert program.stop() == 0
    assert set(done(programs)) == {str(number) for number in range(MESSAGES)}
    assert take(channel, f'{queue_name}.dead') == []
    # Of a message whose renewal was interrupted there are two, and it is handled again.
    left = {message.payload for message in take(channel, queue_name)}
    assert left <= {f'work {number}' for number in range(MESSAGES)}


@pytest.mark.parametrize('daemon', ['', 'state_directory: {}'])
def test_orderly_stops_return_prefetched_messages_as_often_as_they_come(
    configure, channel, queue_name, tmp_path, daemon
):
    config, go = configure(daemon=daemon.format(tmp_path)), tmp_path / 'go'
    programs: list[Program] = []
    for round in range(ROUNDS):
        with consuming(config) as program:
            programs.append(program)
            for number in range(MESSAGES if not round else 0):
                send(channel, queue_name, f'work {number}')
            program.wait_line('of work')
            program.signal('TERM')
            go.touch()
            assert program.wait() == 0
            go.unlink()
    assert len(set(done(programs))) == ROUNDS
    handle_the_rest(config, go, programs, channel, queue_name)


@pytest.mark.parametrize('daemon', ['', 'state_directory: {}'])
def test_processes_that_are_killed_return_prefetched_messages_as_often_as_they_come(
    configure, channel, queue_name, tmp_path, daemon
):
    config, go = configure(daemon=daemon.format(tmp_path)), tmp_path / 'go'
    programs: list[Program] = []
    more = '  retry: {attempts: 100}\n'
    config = configure(daemon=daemon.format(tmp_path), more=more)
    for round in range(ROUNDS):
        with consuming(config) as program:
            for number in range(MESSAGES if not round else 0):
                send(channel, queue_name, f'work {number}')
            program.wait_line('of work')
            program.signal('KILL')
            program.wait()
    handle_the_rest(config, go, programs, channel, queue_name)


def test_lost_connections_return_prefetched_messages_as_often_as_they_come(
    configure, broker, channel, queue_name
):
    with Proxy(broker.port) as proxy, consuming(configure(url=proxy.url)) as program:
        for number in range(MESSAGES):
            send(channel, queue_name, f'nap {number}')
        for _ in range(ROUNDS):
            program.wait_line('of nap')
            proxy.reset()
            program.wait_line('consuming', 20)
        while len(set(done([program]))) < MESSAGES:
            program.wait_line('done nap', 20)
        assert program.stop() == 0
    assert take(channel, f'{queue_name}.dead') == []
    # Where a connection was lost between a renewal and its acknowledgement, there are two of them.
    left = {message.payload for message in take(channel, queue_name)}
    assert left <= {f'nap {number}' for number in range(MESSAGES)}


def test_a_message_that_has_killed_too_many_processes_is_not_dropped_either(
    configure, broker, channel, queue_name, tmp_path
):
    """It is to be dead-lettered, without another run, but may come back before that is done."""
    config = configure(daemon=f'state_directory: {tmp_path}', more='  retry: {attempts: 1}\n')
    with consuming(config) as program:
        send(channel, queue_name, 'work 0')
        program.wait_line('of work')
        program.signal('KILL')
        program.wait()
    while lose_one(broker, queue_name) < LIMIT:
        pass
    (tmp_path / 'go').touch()
    with consuming(config) as program:
        program.wait_line('published a message anew')
        program.wait_line('done work 0')
        assert program.stop() == 0
    assert take(channel, f'{queue_name}.dead') == []


def test_a_message_that_has_killed_too_many_processes_waits_for_its_dead_letter_without_a_run(
    configure, broker, channel, queue_name, tmp_path
):
    dead = f'{queue_name}.dead'
    full = json.dumps({'max-length': 1, 'overflow': 'reject-publish'})
    broker.ctl('set_policy', f'full {dead}', f'^{dead}$', full)
    config = configure(
        'x-delivery-limit: 20', '  retry: {attempts: 1}\n', daemon=f'state_directory: {tmp_path}')
    with consuming(config) as program:
        for _ in range(3):
            send(channel, dead, 'before')
        send(channel, queue_name, 'work 0')
        program.wait_line('of work')
        program.signal('KILL')
        program.wait()
    for _ in range(2):
        with consuming(config) as program:
            program.wait_line('has not taken the copy')
            program.signal('KILL')
            program.wait()
            assert 'run 1 of' not in '\n'.join(program.lines)
    with consuming(config) as program:
        program.wait_line('has not taken the copy')
        wide = json.dumps({'max-length': 100, 'overflow': 'reject-publish'})
        broker.ctl('set_policy', f'full {dead}', f'^{dead}$', wide)
        letters = []
        end = time.monotonic() + 30
        while not letters or letters[-1].payload == 'before':
            assert time.monotonic() < end, program
            letters += take(channel, dead)
        assert program.stop() == 0
    assert letters[-1].headers['x-clihelper-reason'] == 'crashed'
    (tmp_path / 'go').touch()
    with consuming(config) as program:  # it is forgotten then: the next of its kind is run
        send(channel, queue_name, 'work 0')
        program.wait_line('done work 0')


def lose_one(broker, queue):
    """Lose a connection that has the message; how often it has been returned then."""
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        end = time.monotonic() + TIMEOUT
        while (message := channel.basic_get(queue)) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        return message.headers.get('x-delivery-count', 0) + 1


def test_a_message_may_be_requeued_without_end(configure, channel, queue_name):
    with consuming(configure()) as program:
        send(channel, queue_name, 'requeue 25')
        program.wait_line('done requeue')
        assert program.stop() == 0
    assert take(channel, queue_name) == take(channel, f'{queue_name}.dead') == []


@pytest.mark.parametrize('word', ['requeue', 'return'])
def test_a_message_is_requeued_while_its_queue_is_full(
    configure, broker, channel, queue_name, tmp_path, word
):
    """It cannot be published anew, and another return would have it dropped."""
    with consuming(configure(more='  prefetch: 1\n')) as program:
        for text in ('work', f'{word} {LIMIT + 3}', 'nothing'):
            send(channel, queue_name, text)
        program.wait_line('of work')
        broker.ctl('set_policy', 'full', f'^{queue_name}$',
                   json.dumps({'max-length': 0, 'overflow': 'reject-publish'}))  # fmt: skip
        try:
            (tmp_path / 'go').touch()
            for _ in range(LIMIT + 3):
                program.wait_line(f'run 1 of {word}')
            program.wait_line('done nothing')
        finally:
            broker.ctl('clear_policy', 'full')
        assert program.stop() == 0
    assert take(channel, queue_name) == take(channel, f'{queue_name}.dead') == []


def test_what_is_published_anew_keeps_what_its_publisher_gave_it(configure, channel, queue_name):
    with consuming(configure()) as program:
        assert program.stop() == 0
    send(channel, queue_name, 'fail', headers={'mine': 1}, message_id='m', priority=3,
         expiration=3600, correlation_id='c', headers_of_mine=2)  # fmt: skip
    for _ in range(LIMIT // 2):  # returned
        with kombu.Connection(channel.connection.client.as_uri(include_password=True)) as other:
            assert other.channel().basic_get(queue_name)
    with consuming(configure(more='  retry: {attempts: 1}\n')) as program:
        program.wait_line('published a message anew')
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    (dead,) = take(channel, f'{queue_name}.dead')
    assert dead.headers['mine'] == 1
    assert not dead.headers.get('x-delivery-count')
    assert dead.headers['x-clihelper-attempts'] == 1
    assert dead.headers['x-clihelper-routing-key'] == queue_name
    assert dead.properties['message_id'] == 'm'


def test_a_copy_is_not_taken_for_a_cycle_of_dead_letters(configure, channel, queue_name):
    """Its original has expired out of the same queue once, and was moved back."""
    config = configure(arguments='', more='  retry: {attempts: 2, delay: 0.1}\n')
    with consuming(config) as program:
        death = {'queue': queue_name, 'reason': 'expired', 'count': 1, 'exchange': '',
                 'routing-keys': [queue_name]}  # fmt: skip
        retries = {**death, 'queue': f'{queue_name}.retry.0.1s'}
        send(channel, queue_name, 'fail', headers={
            'x-death': [death, retries], 'x-first-death-queue': queue_name,
            'x-first-death-reason': 'expired', 'x-first-death-exchange': '', 'mine': 1,
        })  # fmt: skip
        program.wait_line('run 2 of fail')
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    (dead,) = take(channel, f'{queue_name}.dead')
    own = {name for name in dead.headers if not name.startswith('x-clihelper-')}
    assert own - {'x-delivery-count'} == {'mine'}
