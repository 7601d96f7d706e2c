"""AMQP.breaker: a queue whose handler fails again and again is not consumed for a while."""

from __future__ import annotations

import pytest

from tests.paused import Paused, Queue
from tests.test_pausing import ALL

BREAKER = 'breaker: {failures: 3, within: 30, pause: 0.5}'


@pytest.fixture
def queue(broker, queue_name):
    queue = Queue(broker.url(), queue_name)
    yield queue
    queue.close()


@pytest.fixture
def start(tmp_path, broker, queue_name):
    """Makes the program, to be entered."""

    def make(**options):
        return Paused(tmp_path, options.pop('url', broker.url()), queue_name, **options)

    return make


@pytest.mark.parametrize(('kind', 'daemon'), ALL)
def test_no_message_is_lost_or_accused_while_what_it_needs_is_away(
    start, queue, tmp_path, kind, daemon
):
    (tmp_path / 'broken').touch()
    with start(kind=kind, daemon=daemon, more=f'  {BREAKER}\n',
               amqp='retry: {attempts: 4, delay: 0}') as program:
        queue.send(*range(30))
        program.wait_line(r'3 failures within 30 s, the last: OSError: the database is away')
        assert program.status()['paused'][queue.name]['by'] == 'breaker'
        program.wait_line('the message that was tried has failed')
        program.wait_line('the message that was tried has failed')
        (tmp_path / 'broken').unlink()
        program.wait_line('one message is tried')
        program.wait_notes(30)
        assert sorted(map(int, program.bodies())) == list(range(30))
        assert program.status()['paused'] == {}
        assert program.stop() == 0
    queue.wait_left(0)
    assert queue.dead() == []


def test_a_message_that_always_fails_does_not_keep_others_from_being_tried(
    start, queue, tmp_path
):
    (tmp_path / 'broken').touch()
    with start(more='  breaker: {failures: 1, within: 30, pause: 0.2}\n') as program:
        queue.send('bad', *['good'] * 3)
        program.wait_notes(3)
        assert program.stop() == 0
    queue.wait_left(1)


def test_failures_further_apart_do_not_open_it(start, queue, tmp_path):
    (tmp_path / 'broken').touch()
    with start(more='  breaker: {failures: 2, within: 0.001, pause: 60}\n',
               amqp='retry: {attempts: 1}') as program:
        for number in range(3):
            queue.send(number)
            program.wait_notes(number + 1, 'run')
        queue.send('good')
        program.wait_notes(1)
    assert len(queue.dead()) == 3


def test_a_queue_can_be_without(start, queue, tmp_path):
    (tmp_path / 'broken').touch()
    with start(more=f'  {BREAKER}\n', options='breaker: false',
               amqp='retry: {attempts: 1}') as program:
        queue.send(*range(5), 'good')
        program.wait_notes(1)
    assert len(queue.dead()) == 5


def test_resume_closes_a_breaker(start, queue, tmp_path):
    (tmp_path / 'broken').touch()
    with start(more='  breaker: {failures: 3, within: 30, pause: 3000}\n') as program:
        queue.send(*range(5))
        program.wait_line('3 failures within 30 s')
        (tmp_path / 'broken').unlink()
        program.do('resume', queue.name)
        program.wait_notes(3)
        assert program.stop() == 0


def test_it_is_shown(start, queue, tmp_path):
    (tmp_path / 'broken').touch()
    with start(more='  breaker: {failures: 1, within: 30, pause: 3000}\n') as program:
        queue.send(1)
        program.wait_line('1 failure within 30 s')
        assert f'queue {queue.name}: its breaker is open, for ' in program.do('status')
        assert f'clihelper_queue_paused{{queue="{queue.name}",by="breaker"}} 1' in program.do(
            'metrics')
        fact = program.status()['paused'][queue.name]
        assert fact['until'] - fact['since'] == pytest.approx(3000, abs=1)


def test_a_worker_that_is_killed_while_it_tries_leaves_that_to_another(start, queue, tmp_path):
    (tmp_path / 'broken').touch()
    with start(daemon='workers: 2', more=f'  {BREAKER}\n') as program:
        queue.send(*range(3))
        program.wait_line('3 failures within 30 s')
        (tmp_path / 'broken').unlink()
        queue.channel.queue_purge(queue.name)
        queue.send('slow')
        program.wait_notes(4, 'run')
        program.kill_worker(program.notes('run')[-1][2])
        (tmp_path / 'go').touch()
        program.wait_notes(1)
        queue.send('good')
        program.wait_notes(2)
