"""Several messages at a time: what kills a process, what hangs, and what a stop leaves.

What one message at a time does as well is in ``test_consumer.py``, for each kind.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from clihelper.amqp.acknowledgement import ConcurrentAcknowledger
from clihelper.process.in_hand import PLACES, SUSPECTS, InHand
from clihelper.process.scoreboard import SLOTS, Scoreboard
from clihelper.testing import Program
from tests.forking import fork, status_of
from tests.test_acknowledgement import Channel
from tests.test_workers_amqp import Work, names

RETRY = 'retry: {attempts: 3, delay: 0}'

UVLOOP = str(Path(__file__).parent / 'programs' / 'on_uvloop.py')


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture(params=['threads', 'coroutines'])
def several(request, monkeypatch):
    """The keys of the AMQP section with which ten messages are handled at a time."""
    monkeypatch.setenv('KIND', request.param)
    return 'threads: 10' if request.param == 'threads' else 'concurrency: 10'


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
@pytest.mark.parametrize('fatal', ['segfault', 'exit'])
def test_what_kills_workers_is_found_and_its_neighbours_are_not_accused(
    work, several, fatal, kind
):
    work.configure(amqp=f'{several}\n  {RETRY}', kind=kind)
    with work.run() as program:
        work.send(*names(50), f'{fatal} first', *names(100)[50:], f'{fatal} second', 'last')
        # One of them may be dead-lettered twice: the other kills its process before the broker
        # has confirmed that.
        dead = []
        while len({letter.body for letter in dead}) < 2:
            dead += work.wait_dead()
        work.wait_done([*names(100), 'last'])
        assert program.stop() == 0
    runs = work.runs()
    # They may have died together at first, which tells of neither.
    assert runs['first'] in (3, 4)
    assert runs['second'] in (3, 4)
    assert {letter.body for letter in dead} == {f'{fatal} first', f'{fatal} second'}
    for letter in dead:
        assert letter.headers['x-clihelper-reason'] == 'crashed'


def test_one_coroutine_at_a_time_acknowledges_each_message(work, monkeypatch):
    monkeypatch.setenv('KIND', 'coroutines')
    work.configure(daemon='workers: 1', amqp='prefetch: 1\n  concurrency: 1')
    with work.run() as program:
        work.send(*names(5))
        work.wait_done(names(5))
        assert program.stop() == 0
    assert work.left() == 0


def eventfds(pid):
    folder = f'/proc/{pid}/fd'
    return sum('eventfd' in os.readlink(f'{folder}/{each}') for each in os.listdir(folder))


def test_threads_leave_no_descriptor_behind_at_a_reload(work):
    work.configure(daemon='', amqp='threads: 4')
    with work.run() as program:
        counts = []
        for _ in range(3):
            program.signal('HUP')
            program.wait_ready()
            counts.append(eventfds(program.pid))
        assert program.stop() == 0
    assert counts[2] <= counts[0]  # by the second one the threads of the first have ended


def test_with_one_attempt_no_neighbour_is_accused(work, several):
    work.configure(amqp=f'{several}\n  retry: {{attempts: 1}}')
    with work.run() as program:
        work.send('kill killer', *names(20))
        (dead,) = work.wait_dead()
        assert dead.body == 'kill killer'
        work.wait_done(names(20))
        assert program.stop() == 0
    assert work.runs()['killer'] == 2  # among others, and then alone
    assert work.channel.basic_get(f'{work.queue}.dead') is None


def test_a_process_alone_has_it_from_its_predecessor(work, several):
    state = work.folder / 'state'
    state.mkdir()
    work.configure(daemon=f'state_directory: {state}', amqp=f'{several}\n  {RETRY}')
    with work.run() as program:
        work.send('segfault poison', *names(20))
        assert program.wait() == -signal.SIGSEGV
    work.wait_killed()
    work.wait_killed()
    with work.run() as program:
        work.wait_done(names(20))
        (dead,) = work.wait_dead()
        assert program.stop() == 0
    assert dead.body == 'segfault poison'
    assert dead.headers['x-clihelper-reason'] == 'crashed'
    assert work.runs()['poison'] == 3


def test_a_coroutine_that_hangs_is_cancelled_and_the_others_go_on(work, monkeypatch):
    monkeypatch.setenv('KIND', 'coroutines')
    work.configure(amqp='handler_timeout: 0.5\n  retry: {attempts: 2, delay: 0}')
    with work.run() as program:
        work.send('hang stuck', *names(10))
        (dead,) = work.wait_dead()
        work.wait_done(names(10))
        assert program.stop() == 0
        assert not [line for line in program.lines if 'killed' in line]
    assert dead.headers['x-clihelper-reason'] == 'timeout'
    assert dead.headers['x-clihelper-attempts'] == 2
    assert dead.headers['x-clihelper-exception'] == 'HandlerTimeout'
    assert work.runs()['stuck'] == 2


def test_a_handler_that_holds_up_everything_is_killed(work, several):
    work.configure(daemon='workers: 1',
                   amqp=f'{several}\n  handler_timeout: 1\n  retry: {{attempts: 2}}')
    with work.run() as program:
        work.send('seize stuck', *names(10))
        program.wait_line('on_message has not returned for 1')
        program.wait_line('SIGABRT')
        (dead,) = work.wait_dead()
        work.wait_done(names(10))
        assert program.stop() == 0
    assert dead.body == 'seize stuck'
    assert dead.headers['x-clihelper-reason'] == 'timeout'


def test_a_stop_lets_a_hundred_coroutines_end_and_acknowledges_all(work, monkeypatch, figure):
    monkeypatch.setenv('KIND', 'coroutines')
    work.configure(daemon='', amqp='concurrency: 100')
    with work.run() as program:
        work.send(*(f'sleep {name}' for name in names(110)))
        work.wait_runs(100)
        began = time.monotonic()
        assert program.stop() == 0
        took = time.monotonic() - began
    figure('TERM with 100 coroutines of 2 s in hand', f'{took:.2f} s')
    assert took < 10
    assert work.runs('done').total() == 100
    work.wait_left(10)


@pytest.mark.parametrize('daemon', ['', 'workers: 2, '])
def test_on_uvloop(work, daemon):
    if sys.version_info >= (3, 15):
        return  # there is no wheel of it yet
    work.configure(daemon=f'{daemon}listen: "127.0.0.1:0"', amqp=RETRY)
    with Program([sys.executable, UVLOOP, '-c', str(work.file), '-f']) as program:
        program.wait_ready(30)
        port = int(program.wait_line(r'listens at (\d+)').group(1))
        for round in range(2):
            work.send('reply', 'raise')
            (letter,) = work.wait_dead()
            assert letter.body == 'raise'
            wait_logged(program, "uvloop.Loop got 'answer' in run 1", round + 1)
            wait_logged(program, "uvloop.Loop got 'raise' in run 3", round + 1)
            with urlopen(f'http://127.0.0.1:{port}/', timeout=10) as response:
                assert response.read() == b'hello'
            if round == 0:
                program.signal('HUP')
                program.wait_notified('RELOADING')
                program.wait_ready(30)
        assert program.stop() == 0
    work.wait_left(0)


def wait_logged(program, words, times):
    end = time.monotonic() + 20
    while sum(words in line for line in program.lines) < times:
        assert time.monotonic() < end, program.lines
        time.sleep(0.02)


def test_a_stop_past_its_deadline_gives_back_what_is_in_hand(work, several):
    work.configure(daemon='stop_timeout: 1', amqp=several)
    with work.run() as program:
        work.send(*(f'hang {name}' for name in names(5)))
        work.wait_runs(5)
        assert program.stop() == 143
    work.wait_left(5)


def test_a_lost_connection_has_all_that_is_in_hand_delivered_again(work, several, broker):
    work.configure(amqp=several.replace('10', '20'))
    with work.run() as program:
        work.send(*(f'gate {name}' for name in names(10)))
        work.wait_runs(10)
        broker.ctl('close_all_connections', 'test')
        wait_each(work, 2, 'run')  # the second time beside the first
        (work.folder / 'notes.open').touch()
        wait_each(work, 2, 'done')
        assert program.stop() == 0


def test_dead_letters_that_a_full_queue_refuses_are_not_all_published_again_at_once(
    work, several, broker
):
    """Else each time one of them would get in, as soon as each has been tried often."""
    dead = f'{work.queue}.dead'
    full = json.dumps({'max-length': 1, 'overflow': 'reject-publish'})
    broker.ctl('set_policy', f'full {dead}', f'^{dead}$', full)
    work.configure(daemon='workers: 1', amqp=f'{several}\n  retry: {{attempts: 1}}')
    with work.run() as program:
        work.send(*(f'fail {number}' for number in range(15)))
        assert len(work.wait_dead(15)) == 15
        assert program.stop() == 0
    broker.ctl('clear_policy', f'full {dead}')


def wait_each(work, times, what):
    end = time.monotonic() + 20
    while min(work.runs(what)[name] for name in names(10)) < times:
        assert time.monotonic() < end, work.runs(what)
        time.sleep(0.02)


# Acknowledgements.


def test_all_below_the_lowest_unsettled_message_go_with_one_frame():
    channel = Channel(range(1, 11))
    acknowledger = ConcurrentAcknowledger(channel.send, prefetch=10)
    for tag in range(1, 11):
        acknowledger.deliver(tag)
    for tag in (2, 4, 1):
        acknowledger.add(tag)
    acknowledger.flush()
    assert channel.frames == [(4, False), (2, True)]
    channel.frames.clear()
    for tag in (10, 3, 6, 5):
        acknowledger.add(tag)
    acknowledger.flush()
    assert channel.frames == [(10, False), (6, True)]
    assert acknowledger.lowest_unsettled == 7


@pytest.mark.parametrize('seed', range(50))
def test_each_message_is_acknowledged_once_in_whatever_order_they_end(seed):
    chance = random.Random(seed)
    channel = Channel(range(1, 501))
    acknowledger = ConcurrentAcknowledger(channel.send, prefetch=chance.choice([1, 10, 100]))
    in_hand, settled = [], set()
    tags = iter(range(1, 501))
    for _ in range(5000):
        if chance.random() < 0.5 and (tag := next(tags, None)) is not None:
            acknowledger.deliver(tag)
            in_hand.append(tag)
        elif in_hand:
            tag = in_hand.pop(chance.randrange(min(len(in_hand), 40)))
            settled.add(tag)
            if chance.random() < 0.1:
                channel.unsettled.remove(tag)  # rejected by itself
                acknowledger.release(tag)
            elif acknowledger.add(tag):
                acknowledger.flush()
        if chance.random() < 0.1:
            acknowledger.flush()
        assert channel.unsettled >= set(in_hand)
    acknowledger.flush()
    assert not channel.unsettled
    assert acknowledger.lowest_unsettled == 501


# What survives a process.


def test_what_kills_a_worker_that_was_added_is_found_too(work, several):
    work.configure(amqp=f'{several}\n  retry: {{attempts: 1}}')
    with work.run() as program:
        for number in range(3, 11):
            program.signal('TTIN')
            program.wait_line(f'worker {number} .* is ready')
        work.send(*names(7), 'exit killer', *names(20)[7:])  # the broker deals them out in turn
        (letter,) = work.wait_dead()
        work.wait_done(names(20))
        assert program.stop() == 0
    assert letter.body == 'exit killer'
    assert work.runs()['killer'] == 2  # among others, and then alone


def test_what_was_in_hand_at_a_death_is_suspect_until_it_is_settled():
    in_hand = InHand.anonymous(2)
    places = in_hand.places(1)
    kept = places.take(7)
    places.give_back(places.take(8))
    places.take(9)
    assert in_hand.holders(9) == {1}
    in_hand.record_death(1)
    assert [in_hand.is_suspect(mark) for mark in (7, 8, 9)] == [True, False, True]
    in_hand.forget(7)
    assert not in_hand.is_suspect(7)
    assert kept >= 0


def test_what_is_buried_while_it_is_looked_up_is_suspect(monkeypatch):
    """The supervisor may record the death between the two places where it is looked for."""
    scoreboard = Scoreboard.anonymous()
    scoreboard.in_hand = InHand.anonymous(1)
    scoreboard.in_hand.places(0).take(7)
    holders = scoreboard.in_hand.holders

    def bury_and_look(mark):
        scoreboard.slot(0).record_death()
        return holders(mark)

    monkeypatch.setattr(scoreboard.in_hand, 'holders', bury_and_look)
    assert scoreboard.is_suspect(7)


@pytest.mark.parametrize('index', [0, 6, SLOTS - 1])
def test_each_process_that_a_supervisor_can_have_is_recorded(index):
    scoreboard = Scoreboard.anonymous()
    scoreboard.in_hand = InHand.anonymous(SLOTS)
    slot = scoreboard.slot(index)
    slot.clear()  # as the supervisor does before it forks

    def handle():
        slot.claim()
        scoreboard.in_hand.places(index).take(7)

    assert status_of(fork(handle)) == 0
    assert scoreboard.is_suspect(7)
    slot.record_death()
    assert scoreboard.is_suspect(7)
    assert not scoreboard.in_hand.holders(7)


def test_looking_for_a_message_takes_no_memory_of_slots_that_are_not_used():
    in_hand = InHand.anonymous(SLOTS)
    in_hand.places(0).take(7)

    def look():
        before = shared_memory()
        assert in_hand.holders(7) == {0}
        assert shared_memory() - before < 1024

    assert status_of(fork(look)) == 0


def shared_memory():
    """What this process has of shared memory, in KiB."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'^RssShmem:\s*(\d+)', status, re.M)[1])


def test_more_messages_than_places_are_not_recorded():
    in_hand = InHand.anonymous(1)
    places = in_hand.places(0)
    assert [places.take(mark) >= 0 for mark in range(1, PLACES + 3)] == [
        *[True] * PLACES, False, False]
    for _ in range(SUSPECTS // PLACES + 1):  # the oldest suspects are forgotten
        in_hand.record_death(0)
        places = in_hand.places(0)
        for mark in range(1, PLACES + 1):
            places.take(mark)
