"""The figures of a process in shared memory: what is written is what is read, whatever happens."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clihelper.process.scoreboard import SLOTS
from clihelper.process.statistics import (
    BUCKETS,
    OTHERS,
    QUEUES,
    READINGS,
    SAMPLE_INTERVAL,
    Statistics,
    bucket_of,
    upper_bound,
)
from clihelper.states import State


@pytest.fixture
def statistics():
    return Statistics.make(3)


def begin(statistics, index=0):
    process = statistics.slot(index)
    process.begin(index + 1)
    return process


def test_a_duration_is_in_the_bucket_whose_bound_is_at_most_a_quarter_larger():
    durations = [*range(5000), *(random.randrange(2**32) for _ in range(5000))]
    for microseconds in durations:
        bucket = bucket_of(microseconds)
        assert microseconds / 1e6 < upper_bound(bucket)
        if 8 <= microseconds < 2**31:
            assert upper_bound(bucket) <= microseconds * 1.25 / 1e6 + 1e-9
    assert bucket_of(2**60) == BUCKETS - 1
    assert all(upper_bound(each) < upper_bound(each + 1) for each in range(BUCKETS - 1))


def test_what_a_process_writes_is_read(statistics):
    process = begin(statistics, 1)
    process.set_state(State.SLEEPING)
    process.tell(broker='amqp://mq')
    process.count('ticks', 3)
    queue = process.queues['orders']
    for microseconds in (1, 2000, 3000, 2_000_000):
        queue.run(microseconds / 1e6)
    queue.count('failed')
    process.set_queue(queue)
    process.since[0] = 5.0
    statistics.tell(program='orders', gone='x')
    statistics.tell(gone=None)
    daemon, (found,), ended = statistics.read()
    assert daemon == {'program': 'orders'}
    assert (found.pid, found.state, found.since) == (os.getpid(), 'sleeping', 5.0)
    assert (found.in_hand, found.queue_in_hand) == (1, 'orders')
    assert found.report == {'worker': 2, 'broker': 'amqp://mq', 'queues': ['orders']}
    assert found.counted['ticks'] == 3
    figures = found.queues['orders']
    assert figures.runs == 4
    assert figures.outcomes['failed'] == 1
    assert figures.seconds == pytest.approx(2.005001)
    assert figures.quantile(0.5) == pytest.approx(0.002, rel=0.25)
    assert figures.quantile(0.99) == pytest.approx(2.0, rel=0.25)
    assert ended.queues == {}
    assert time.time() - found.started < 60


def test_the_figures_of_processes_that_have_ended_are_kept(statistics):
    for seconds in (0.001, 0.1):
        for index in (0, 2):
            process = begin(statistics, index)
            process.count('ticks')
            process.queues[f'q{index}'].run(seconds)
            process.queues[f'q{index}'].count('dead_letter')
            statistics.end(index)
    _, processes, ended = statistics.read()
    assert not processes
    assert ended.counted['ticks'] == 4
    assert {name: queue.runs for name, queue in ended.queues.items()} == {'q0': 2, 'q2': 2}
    assert ended.queues['q0'].seconds == pytest.approx(0.101)
    assert ended.queues['q0'].outcomes['dead_letter'] == 2
    assert ended.queues['q0'].acknowledged == 0


def test_a_slot_is_clean_for_the_next_process(statistics):
    process = begin(statistics)
    process.queues['old'].run(1.0)
    process.since[0] = 1.0
    statistics.end(0)
    begin(statistics).queues['new']
    (found,) = statistics.read()[1]
    assert {name: queue.runs for name, queue in found.queues.items()} == {'new': 0}
    assert found.in_hand == 0


def test_more_queues_than_there_is_room_for_are_counted_together(statistics):
    process = begin(statistics)
    for number in range(QUEUES + 10):
        process.queues[f'q{number}'].run(0.0)
    (found,) = statistics.read()[1]
    assert len(found.queues) == QUEUES
    assert found.queues[OTHERS].runs == 11
    assert sum(queue.runs for queue in found.queues.values()) == QUEUES + 10


def test_a_process_without_room_does_no_harm(statistics):
    begin(statistics, 3).queues['q'].run(1.0)
    statistics.end(3)
    _, processes, ended = statistics.read()
    assert not processes
    assert not ended.queues


def test_what_was_done_lately_is_known(statistics):
    process = begin(statistics)
    queue = process.queues['q']
    interval = int(time.monotonic() / SAMPLE_INTERVAL) - 40
    for _ in range(40):
        queue.run(0.1)
        queue.count('failed')
        interval += 1
        queue.sample(interval)
    queue.run(0.1)  # since the last sample
    (found,) = statistics.read()[1]
    now = (interval + 0.5) * SAMPLE_INTERVAL
    assert found.queues['q'].lately(now) == (13, 12)
    assert found.queues['q'].lately(now, 20.0) == (5, 4)
    assert found.queues['q'].lately(now + 300) == (1, 0)


def test_what_ended_processes_did_lately_is_known(statistics):
    for _ in range(3):
        queue = begin(statistics).queues['q']
        queue.run(0.1)
        queue.sample(int(time.monotonic() / SAMPLE_INTERVAL) - 30)
        queue.run(0.1)
        queue.run(0.1)
        queue.sample(int(time.monotonic() / SAMPLE_INTERVAL) - 3)
        queue.run(0.1)
        statistics.end(0)
    ended = statistics.read()[2]
    assert ended.queues['q'].runs == 12
    assert ended.queues['q'].lately(time.monotonic()) == (9, 0)


def test_a_report_is_never_read_by_halves(statistics):
    process = begin(statistics)
    texts = ['a' * 30000, 'b' * 10]
    over = threading.Event()

    def write():
        while not over.is_set():
            for text in texts:
                process.tell(text=text)

    process.tell(text=texts[0])
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3000):
            assert statistics.read()[1][0].report.get('text') in texts
    finally:
        over.set()
        writer.join()


def test_what_does_not_fit_into_a_report_is_left_out(statistics):
    process = begin(statistics)
    process.tell(text='x' * 40000)
    assert statistics.read()[1][0].report == {'worker': 1}
    process.tell(text='x')
    assert statistics.read()[1][0].report == {'worker': 1, 'text': 'x'}


def test_who_moves_figures_and_is_stopped_holds_up_nobody(statistics):
    begin(statistics)
    statistics._change()
    began = time.monotonic()
    assert len(statistics.read()[1]) == 1
    assert time.monotonic() - began < 1.0
    assert READINGS * 0.001 < 0.05


def test_nobody_can_shrink_the_memory(statistics):
    process = begin(statistics)
    for name in os.listdir('/proc/self/fd'):
        path = f'/proc/self/fd/{name}'
        if 'clihelper-statistics' in (os.readlink(path) if os.path.islink(path) else ''):
            with open(path, 'r+b') as file, pytest.raises(PermissionError):
                file.truncate(0)
    process.queues['q'].run(1.0)


def test_the_time_of_process_is_kept_when_the_process_has_ended(statistics):
    for seconds in (0.01, 0.02):
        process = begin(statistics)
        process.ticks.run(seconds)
        assert statistics.read()[1][0].ticks.runs == 1
        statistics.end(0)
    ended = statistics.read()[2].ticks
    assert ended.runs == 2
    assert ended.seconds == pytest.approx(0.03)
    assert ended.quantile(1.0) == pytest.approx(0.02, rel=0.25)


def test_each_process_that_a_supervisor_can_have_is_read():
    statistics = Statistics.make(SLOTS)
    for index in (0, 6, SLOTS - 1):
        begin(statistics, index).count('ticks')
    found = statistics.read()[1]
    assert [each.report['worker'] for each in found] == [1, 7, SLOTS]
    statistics.end(SLOTS - 1)
    _, found, ended = statistics.read()
    assert len(found) == 2
    assert ended.counted['ticks'] == 1


def test_slots_that_are_not_used_take_no_memory_and_no_time(figure):
    others = {*os.listdir('/proc/self/fd')}
    statistics = Statistics.make(SLOTS)
    begin(statistics)
    began = time.perf_counter()
    assert len(statistics.read()[1]) == 1
    figure('reading one of 2,048 slots', f'{(time.perf_counter() - began) * 1e3:.2f} ms')
    (path,) = [each for each in Path('/proc/self/fd').iterdir()
               if each.name not in others and each.exists()]
    assert path.stat().st_blocks * 512 < 2**20


def test_a_process_that_has_none_or_is_gone():
    done = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'],
                          capture_output=True, check=True)
    with pytest.raises(LookupError):
        Statistics.of_process(int(done.stdout))
    with pytest.raises(LookupError):
        Statistics.of_process(os.getppid())


OTHER = '''
import os, random, sys
from clihelper.process.statistics import Statistics

statistics = Statistics.make(3)
statistics.tell(program='other')
process = statistics.slot(0)
process.begin(1)
process.queues['orders'].run(0.1)
descriptor, *_ = [
    int(name) for name in os.listdir('/proc/self/fd')
    if os.path.exists(f'/proc/self/fd/{name}')
    and 'clihelper-statistics' in os.readlink(f'/proc/self/fd/{name}')]
assert not os.get_inheritable(descriptor)
if sys.argv[1:]:
    os.pwrite(descriptor, random.randbytes(os.fstat(descriptor).st_size - 512), 512)
print('there', flush=True)
sys.stdin.read()
'''


@contextlib.contextmanager
def other(*words):
    """Another process with statistics; yields how they look from here."""
    with subprocess.Popen([sys.executable, '-c', OTHER, *words], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b'there\n'
        yield Statistics.of_process(process.pid)


def test_those_of_another_process_can_be_read():
    with other() as statistics:
        daemon, (found,), _ = statistics.read()
    assert daemon == {'program': 'other'}
    assert found.queues['orders'].runs == 1


def test_garbage_is_no_report():
    with other('garbage') as statistics:
        daemon, processes, _ = statistics.read()
    assert isinstance(daemon, dict)
    assert all(isinstance(process.report, dict) for process in processes)
