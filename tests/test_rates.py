"""AMQP.rate and a queue's: how many messages all workers of the daemon handle at most."""

from __future__ import annotations

import time

import pytest

from tests.paused import Paused, Queue
from tests.test_pausing import ALL


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


def times(program, count):
    """When so many messages began."""
    program.wait_notes(count, 'run')
    return sorted(when for when, *_ in program.notes('run'))[:count]


@pytest.mark.parametrize(('kind', 'daemon'), ALL)
def test_a_rate_holds_over_all_workers(start, queue, kind, daemon):
    with start(kind=kind, daemon=daemon, options='rate: 50/s') as program:
        queue.send(*range(200))
        program.wait_notes(10, 'run')
        begun = times(program, 160)
        first, last = begun[10], begun[-1]
        assert (len(begun) - 11) / (last - first) == pytest.approx(50, rel=0.1)
        assert program.stop() == 0
    queue.wait_left(200 - len(program.bodies('run')))


def test_it_is_exact_over_a_minute(start, queue, figure):
    with start(daemon='workers: 4', amqp='rate: 3000/m') as program:
        queue.send(*range(4000))
        program.wait_notes(1, 'run')
        begun = program.notes('run')[0][0]
        time.sleep(60 - (time.monotonic() - begun))
        minute = [when for when, *_ in program.notes('run') if when <= begun + 60]
    figure('messages in a minute by 4 workers at 3000/m', str(len(minute)))
    assert len(minute) == pytest.approx(3000, rel=0.02)


def test_a_slow_rate_prefetches_little_and_stops_at_once(start, queue):
    with start(options='rate: 5/h') as program:
        queue.send(*range(10))
        program.wait_notes(1)
        queue.wait_left(9)
        begun = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - begun < 2
    assert program.bodies() == ['0']
    queue.wait_left(9)


def test_the_rate_of_a_queue_and_that_of_all_hold_together(start, queue):
    with start(options='rate: 100/s', amqp='rate: 20/s') as program:
        queue.send(*range(60))
        begun = times(program, 50)
        assert 39 / (begun[-1] - begun[10]) == pytest.approx(20, rel=0.1)


def test_order_is_kept(start, queue):
    with start(options='rate: 100/s') as program:
        queue.send(*range(100))
        program.wait_notes(100)
        assert program.bodies() == [str(number) for number in range(100)]


@pytest.mark.parametrize('rate', ['0/s', '10', '10/d', '-1/s', '1/0'])
def test_another_rate_is_a_fault_of_one_line(tmp_path, rate):
    from clihelper import config
    from clihelper.errors import ConfigurationError

    file = tmp_path / 'rate.yml'
    file.write_text(f'AMQP: {{queues: {{q: {{rate: {rate}}}}}}}\n')
    with pytest.raises(ConfigurationError, match='a rate such as 10/s, 900/m or 5/h'):
        config.load(str(file), appname='rated')
