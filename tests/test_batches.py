"""Batches: several messages of one queue, handled by one call; in each loop."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from math import inf
from pathlib import Path

import kombu
import pytest

import clihelper
from clihelper.amqp.acknowledgement import ConcurrentAcknowledger
from clihelper.amqp.batches import BatchedMessage, Collector
from clihelper.amqp.settlement import Outcome
from clihelper.errors import ConfigurationError, Error
from clihelper.testing import Harness, Program
from tests.test_acknowledgement import Channel
from tests.test_concurrency import RETRY
from tests.test_workers_amqp import Work, names

ONE_BATCH = 'batch: {size: 10, wait: 600}'


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture(params=['one', 'threads', 'coroutines'])
def kind(request, monkeypatch):
    """The keys of the AMQP section with which one or several batches are handled at a time."""
    monkeypatch.setenv(
        'KIND', 'coroutines for batches' if request.param == 'coroutines' else 'batches')
    return {'one': '', 'threads': 'threads: 3\n  ', 'coroutines': 'concurrency: 3\n  '}[
        request.param]


def batches(work):
    """The sizes of the batches, in the order of their calls."""
    return [int(note[1]) for note in work.notes() if note[0] == 'batch']


def wait_pending(work, count):
    """Until so many messages are with the program, and none in the queue."""
    end = time.monotonic() + 10
    while True:
        ready, consumers = work.channel.queue_declare(work.queue, passive=True)[1:]
        if not ready and consumers:
            return
        assert time.monotonic() < end, (ready, count)
        time.sleep(0.02)


# What a batch is.


def test_a_batch_has_as_many_as_it_may_or_what_came_in_time(work, kind):
    work.configure(daemon='', amqp=f'{kind}prefetch: 1\n  batch: {{size: 10, wait: 0.2}}')
    with work.run() as program:
        work.send(*names(25))
        work.wait_done(names(25))
        assert program.stop() == 0
    assert batches(work) == [10, 10, 5]  # although the prefetch is 1
    assert work.left() == 0


def test_a_batch_is_of_one_queue(work, kind, tmp_path):
    other = f'{work.queue}-other'
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}')
    with work.file.open('a') as file:
        file.write(f'    {other}: {{}}\n')
    with work.run() as program:
        producer = kombu.Producer(work.channel)
        for number in range(10):
            for queue, name in ((work.queue, 'mine'), (other, 'its')):
                producer.publish(f'{name}{number}', routing_key=queue, content_type='text/plain')
        work.wait_runs(20, what='done')
        assert program.stop() == 0
    runs = [note[1] for note in work.notes() if note[0] == 'run']
    if 'threads' not in kind:  # two of them handle both batches at once
        assert {name[:3] for name in runs[:10]} in ({'min'}, {'its'})
    assert batches(work) == [10, 10]
    assert work.left() == 0
    assert work.channel.queue_declare(other, passive=True).message_count == 0


def test_those_of_several_queues_come_in_the_order_in_which_their_wait_is_over():
    collector = Collector(2, 1.0)
    for number, queue in enumerate('abbccb'):
        collector.add([message(queue)], float(number))
    assert len(collector) == 6
    # a is due at 1, b at 2, and complete; c at 4, and complete; the second b at 6.
    assert [(batch.queue, len(batch.messages)) for batch in taken(collector, 4.0)] == [
        ('a', 1), ('b', 2), ('c', 2)]
    assert collector.due == 6.0
    assert collector.take(5.9) is None
    assert collector.take(6.0) is not None
    assert collector.due == inf


def test_halves_come_before_everything_else():
    collector = Collector(2, 0.0)
    first = [message('a') for _ in range(5)]
    collector.add([message('b')], 0.0)
    collector.split('a', first)
    assert [batch.messages for batch in taken(collector, 1.0)][:2] == [first[:2], first[2:]]


def message(queue, body=b''):
    delivery = kombu.message.Message(body=body, delivery_info={'redelivered': False})
    return BatchedMessage(delivery, queue, lambda *_: None)


def taken(collector, now):
    while (batch := collector.take(now)) is not None:
        yield batch


# What becomes of its messages.


def test_only_what_fails_is_run_again_and_dead_lettered(work, kind):
    work.configure(daemon='', amqp=f'{kind}batch: {{size: 20}}\n'
                   '  retry: {attempts: 2, delay: 0}')
    with work.run() as program:
        work.send(*names(15), 'fail culprit', 'reject foreign', *names(20)[15:])
        dead = work.wait_dead(2)
        work.wait_done(names(20))
        assert program.stop() == 0
        halved = [line for line in program.lines if 'run again in halves' in line]
    letters = {letter.body: letter.headers for letter in dead}
    assert letters['fail culprit']['x-clihelper-reason'] == 'exception'
    assert letters['fail culprit']['x-clihelper-attempts'] == 2
    assert letters['reject foreign']['x-clihelper-reason'] == 'rejected'
    assert letters['reject foreign']['x-clihelper-attempts'] == 1
    assert set(work.runs('done').values()) == {1}
    assert halved
    assert work.left() == 0


def test_what_the_handler_settles_is_left_out(work, kind):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}\n  retry: {{attempts: 1}}')
    with work.run() as program:
        work.send('ack one', 'discard two', 'fail three', *names(7))
        (dead,) = work.wait_dead()
        work.wait_done(names(7))
        assert program.stop() == 0
    assert dead.body == 'fail three'
    assert (work.runs()['one'], work.runs()['two']) == (1, 1)
    assert work.left() == 0


def test_requeue_returns_all_of_them(work, kind):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}')
    with work.run() as program:
        work.send('requeue', *names(9))
        work.wait_done(names(9))
        assert program.stop() == 0
    assert batches(work) == [10, 10]
    assert work.left() == 0


def test_what_is_returned_again_and_again_is_not_dropped(work, kind):
    work.configure(daemon='', amqp=f'{kind}batch: {{size: 5}}', kind='quorum')
    with work.run() as program:
        work.send('return it', *names(4))
        work.wait_done(['it', *names(4)], timeout=60)
        assert program.stop() == 0
    assert work.runs()['it'] >= 30
    assert work.left() == 0


def test_bad_bodies_are_dead_letters_and_never_reach_it(work, kind):
    work.configure(daemon='', amqp=f'{kind}max_body: 100\n  {ONE_BATCH}')
    bad = {
        b'{"secret': ('application/json', 'undecodable'),
        b'\x80\x04secret.': ('application/x-python-serialize', 'unaccepted'),
        b'secret' * 20: ('text/plain', 'oversize'),
    }
    with work.run() as program:
        producer = kombu.Producer(work.channel)
        for body, (content_type, _) in bad.items():
            producer.publish(body, routing_key=work.queue, content_type=content_type,
                             content_encoding='binary')
        work.send(*names(7))
        dead = work.wait_dead(3)
        work.wait_done(names(7))
        assert program.stop() == 0
        assert not [line for line in program.lines if 'secret' in line]
    found = {bytes(letter.body): letter.headers['x-clihelper-reason'] for letter in dead}
    assert found == {body: reason for body, (_, reason) in bad.items()}
    assert batches(work) == [7]


def test_a_reply_that_nobody_would_get_is_told_once(work, kind):
    work.configure(daemon='', amqp=f'{kind}batch: {{size: 5}}', more='answer: 7')
    with work.run() as program:
        for _ in range(2):
            kombu.Producer(work.channel).publish(
                'm0', routing_key=work.queue, content_type='text/plain', reply_to='nowhere')
            work.wait_done(['m0'])
        work.wait_runs(2, what='done')
        assert program.stop() == 0
    assert len([line for line in program.lines if 'is sent to nobody' in line]) == 1
    assert work.left() == 0


# What kills, what hangs.


@pytest.mark.parametrize('queue', ['classic', 'quorum'])
@pytest.mark.parametrize('fatal', ['segfault', 'exit'])
def test_what_kills_workers_is_found_and_its_neighbours_are_not_accused(work, kind, fatal, queue):
    work.configure(amqp=f'{kind}batch: {{size: 25}}\n  {RETRY}', kind=queue)
    with work.run() as program:
        work.send(*names(50), f'{fatal} first', *names(100)[50:], f'{fatal} second', 'last')
        dead = work.wait_dead(2)
        work.wait_done([*names(100), 'last'])
        assert program.stop() == 0
    runs = work.runs()
    # They may have died together at first, which tells of neither.
    assert runs['first'] in (3, 4)
    assert runs['second'] in (3, 4)
    assert {letter.body for letter in dead} == {f'{fatal} first', f'{fatal} second'}
    assert {letter.headers['x-clihelper-reason'] for letter in dead} == {'crashed'}
    assert work.left() == 0


def test_a_process_alone_has_it_from_its_predecessor(work, kind):
    state = work.folder / 'state'
    state.mkdir()
    work.configure(daemon=f'state_directory: {state}', amqp=f'{kind}batch: {{}}\n  {RETRY}')
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
    assert work.runs()['poison'] == 3


def test_coroutines_that_hang_are_cancelled_and_one_is_to_blame(work, monkeypatch):
    monkeypatch.setenv('KIND', 'coroutines for batches')
    work.configure(daemon='workers: 1', amqp=f'{ONE_BATCH}\n  handler_timeout: 0.5\n'
                   '  retry: {attempts: 1}')
    with work.run() as program:
        work.send(*names(9), 'hang stuck')
        (dead,) = work.wait_dead()
        work.wait_done(names(9))
        assert program.stop() == 0
        assert not [line for line in program.lines if 'killed' in line]
    assert dead.body == 'hang stuck'
    assert dead.headers['x-clihelper-reason'] == 'timeout'
    assert 'on_messages has not returned' in dead.headers['x-clihelper-message']


def test_a_handler_that_holds_up_everything_is_killed(work, kind):
    work.configure(daemon='workers: 1', amqp=f'{kind}batch: {{}}\n  handler_timeout: 1\n'
                   '  retry: {attempts: 2}')
    with work.run() as program:
        work.send('seize stuck', *names(10))
        program.wait_line('has not returned for 1')
        (dead,) = work.wait_dead()
        work.wait_done(names(10))
        assert program.stop() == 0
    assert dead.body == 'seize stuck'
    assert dead.headers['x-clihelper-reason'] == 'timeout'


# A stop, a reload, a lost connection.


def test_a_stop_gives_back_what_is_collected_and_finishes_what_is_in_hand(work, kind):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}')
    with work.run() as program:
        work.send(*(f'gate {name}' for name in names(10)))
        work.wait_runs(1)
        work.send(*names(17)[10:])
        wait_pending(work, 17)
        program.signal('TERM')
        if kind:  # the main thread, if it handles no message, notices at once
            program.wait_line('SIGTERM')
        (work.folder / 'notes.open').touch()
        assert program.wait() == 0
    assert set(work.runs('done')) == set(names(10))
    work.wait_left(7)


def test_a_batch_that_fails_after_a_stop_goes_back(work, kind):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}\n  retry: {{attempts: 1}}')
    with work.run() as program:
        work.send(*names(8), 'gate m8', 'fail m9')
        work.wait_runs(9)
        program.signal('TERM')
        if kind:
            program.wait_line('SIGTERM')
        (work.folder / 'notes.open').touch()
        assert program.wait() == 0
    assert batches(work) == [10]
    work.wait_left(10)
    with work.run() as program:
        (dead,) = work.wait_dead()
        work.wait_done(names(9))
        assert program.stop() == 0
    assert dead.body == 'fail m9'


def test_an_idle_program_stops_at_once_with_messages_that_wait_for_more(work, kind):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}', kind='quorum')
    with work.run() as program:
        work.send(*names(7))
        wait_pending(work, 7)
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 5
    work.wait_left(7)
    assert not work.notes()


def test_a_stop_past_its_deadline_gives_back_what_is_in_hand(work, kind):
    work.configure(daemon='stop_timeout: 1', amqp=f'{kind}batch: {{size: 5}}')
    with work.run() as program:
        work.send(*(f'hang {name}' for name in names(5)))
        work.wait_runs(1)
        assert program.stop() == 143
    work.wait_left(5)


def test_a_reload_has_the_new_size(work, kind):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}')
    with work.run() as program:
        work.send(*names(5))
        wait_pending(work, 5)
        work.configure(daemon='', amqp=f'{kind}batch: {{size: 5, wait: 600}}')
        program.signal('HUP')
        work.wait_done(names(5))
        assert program.stop() == 0
    assert batches(work) == [5]


def test_a_lost_connection_has_what_is_collected_delivered_again(work, kind, broker):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}')
    with work.run() as program:
        work.send(*names(7))
        wait_pending(work, 7)
        broker.ctl('close_all_connections', 'test')
        program.wait_line('lost the broker')
        program.wait_line('consuming')
        work.close()
        work.__init__(work.folder, broker, work.queue)
        work.send(*names(10)[7:])
        work.wait_done(names(10))
        assert program.stop() == 0
    assert batches(work) == [10]


def test_a_lost_connection_has_what_is_in_hand_delivered_again(work, kind, broker):
    work.configure(daemon='', amqp=f'{kind}{ONE_BATCH}')
    with work.run() as program:
        work.send(*(f'gate {name}' for name in names(10)))
        work.wait_runs(1)
        broker.ctl('close_all_connections', 'test')
        if kind:
            program.wait_line('lost the broker')
        (work.folder / 'notes.open').touch()
        work.wait_runs(20, what='done')
        assert program.stop() == 0
    assert batches(work) == [10, 10]


def test_workers_share_them(work, kind):
    work.configure(daemon='workers: 2, max_messages: 150', amqp=f'{kind}batch: {{size: 20}}')
    with work.run() as program:
        work.send(*names(1000))
        work.wait_done(names(1000))
        assert program.stop() == 0
        assert [line for line in program.lines if 'max_messages' in line]
    assert work.left() == 0


# Other transports.

MEMORY = '''
import clihelper

class Itself(clihelper.{base}):
    count = 0

    {async_}def _setup(self):
        for number in range(25):
            {await_}self.publish({{'number': number}}, routing_key='numbers')

    {async_}def on_messages(self, messages):
        self.logger.info('got %d', len(messages))
        if any(message.body['number'] == 7 for message in messages):
            raise clihelper.Reject('seven')
        self.count += len(messages)
        if self.count == 24:
            self.logger.info('all')

clihelper.setup('itself')
clihelper.run(Itself)
'''


@pytest.mark.parametrize('kind', ['one', 'threads', 'coroutines'])
def test_they_come_from_kombus_transports_too(tmp_path, kind):
    words = {'base': 'ConsumerController', 'async_': '', 'await_': ''}
    if kind == 'coroutines':
        words = {'base': 'AsyncConsumerController', 'async_': 'async ', 'await_': 'await '}
    (tmp_path / 'itself.py').write_text(MEMORY.format(**words))
    (tmp_path / 'itself.yml').write_text(
        'AMQP: {url: "memory://", queues: {numbers: {}}, batch: {size: 10, wait: 0.2}'
        + (', threads: 2}' if kind == 'threads' else '}'))
    argv = [sys.executable, str(tmp_path / 'itself.py'), '-c', str(tmp_path / 'itself.yml'), '-f']
    with Program(argv) as program:
        program.wait_line('got 10')
        program.wait_line('dead-lettered a message from queue numbers: rejected: seven')
        program.wait_line('all')
        assert program.stop() == 0


# The start.

CONFIG = 'AMQP: {url: "memory://", queues: {q: }, retry: {attempts: 1}}'
BATCH = CONFIG.replace('retry', 'batch: {size: 8}, retry')


def plain(self, messages):
    pass


async def coroutine(self, messages):
    pass


@pytest.mark.parametrize(('base', 'methods', 'line'), [
    (clihelper.ConsumerController, {'on_messages': plain, 'on_message': print},
     'Odd has both on_message and on_messages: only one can be called'),
    (clihelper.ConsumerController, {'on_messages': plain, 'order_key': print},
     'Odd has both on_messages and order_key: a batch has messages of any key'),
    (clihelper.ConsumerController, {'on_messages': coroutine},
     'Odd.on_messages is a coroutine function, which would never be run: only that of an'
     ' AsyncConsumerController may be'),
    (clihelper.IOLoopController, {'on_messages': plain},
     'Odd.on_messages would never be called: only a ConsumerController has messages'),
    (clihelper.ConsumerController, {'on_mesages': plain},
     'Odd.on_mesages would never be called; did you mean on_messages?'),
    (clihelper.ConsumerController,
     {'on_messages': plain, 'loop_class': 'clihelper.loops.ioloop.TornadoLoop'},
     'Odd.on_messages would never be called: loop_class is one of its own'),
])
def test_a_handler_of_batches_that_would_never_be_called_is_an_error(base, methods, line):
    with pytest.raises(Error) as raised, Harness(type('Odd', (base,), methods), CONFIG):
        pass
    assert str(raised.value) == line


@pytest.mark.parametrize('methods', [
    {'on_message': print, 'on_message2': print}, {'on_messages': plain, 'on_message_s': print},
])
def test_a_name_like_that_of_the_other_handler_is_none(methods):
    with Harness(type('Even', (clihelper.ConsumerController,), methods), CONFIG):
        pass


def test_the_configuration_of_batches_is_for_who_has_them():
    class Odd(clihelper.ConsumerController):
        def on_message(self, body, message):
            pass

    with pytest.raises(ConfigurationError) as raised, Harness(Odd, BATCH):
        pass
    (fault,) = raised.value.faults
    assert fault.endswith(': AMQP.batch: has no effect: Odd has no on_messages')


@pytest.mark.parametrize(('keys', 'fault'), [
    ('batch: {size: 0}', 'AMQP.batch.size: expected an integer of at least 1 and at most 1000'),
    ('batch: {wait: -1}', 'AMQP.batch.wait: expected a number of at least 0 and at most 600'),
    ('batch: 10', 'AMQP.batch: expected a mapping or null, got 10'),
    ('batch: {sise: 10}', 'AMQP.batch.sise: unknown key; did you mean size?'),
    ('batch: {size: 1000}, threads: 66',
     'AMQP.batch.size: with 66 threads these are 66000 messages at a time; AMQP allows 65535'),
    ('batch: {size: 1000}, concurrency: 70', 'AMQP.batch.size: with 70 concurrency'),
])
def test_faults_of_its_configuration(keys, fault):
    with pytest.raises(ConfigurationError) as raised, Harness(Batches, f'AMQP: {{{keys}}}'):
        pass
    (line,) = raised.value.faults
    assert fault in line


def test_the_command_says_it_in_one_line(tmp_path):
    (tmp_path / 'odd.py').write_text(
        'import clihelper\n'
        'class Odd(clihelper.ConsumerController):\n'
        '    def on_message(self, body, message):\n'
        '        pass\n'
        "clihelper.setup('odd')\n"
        'clihelper.run(Odd)\n'
    )
    (tmp_path / 'odd.yml').write_text('AMQP:\n  url: memory://\n  batch: {size: 7}\n')
    done = subprocess.run(
        [sys.executable, 'odd.py', '-c', 'odd.yml', '--check'], cwd=tmp_path, text=True,
        env={'PYTHONPATH': str(Path(__file__).parent.parent)}, capture_output=True, timeout=30,
    )
    assert done.returncode == 78
    assert done.stderr == 'odd.yml:3:3: AMQP.batch: has no effect: Odd has no on_messages\n'


# The test kit.


class Batches(clihelper.ConsumerController):
    def _setup(self):
        self.calls = []

    def on_messages(self, messages):
        self.calls.append([each.body for each in messages])
        for each in messages:
            if each.body == 'fail':
                raise ValueError('not today')
            if each.body == 'ack':
                each.ack()
        if isinstance(messages[0].body, list):
            messages[0].body.append(len(self.calls))  # the next run does not see it
            if len(messages) > 1:
                raise ValueError('not together')


class AsyncBatches(clihelper.AsyncConsumerController):
    _setup = Batches._setup

    async def on_messages(self, messages):
        return Batches.on_messages(self, messages)


EACH = pytest.mark.parametrize(('cls', 'config'), [
    (Batches, BATCH), (Batches, BATCH.replace('batch', 'threads: 2, batch')),
    (AsyncBatches, BATCH),
], ids=['one', 'threads', 'coroutines'])


@EACH
def test_the_kit_delivers_batches(cls, config):
    bodies = ['a', 'b', 'fail', 'ack', 'a', 'fail', 'c', 'd', 'e']
    with Harness(cls, config) as harness:
        delivered = harness.deliver_batch(bodies)
        calls = harness.controller.calls
    assert calls[:2] == [bodies[:8], bodies[:4]]
    assert calls[-1] == ['e']
    assert [each.reason for each in delivered] == [
        None, None, 'exception', None, None, 'exception', None, None, None]
    assert [each.error and str(each.error) for each in delivered][:3] == [
        None, None, 'not today']
    assert all(each.outcome is Outcome.ACK for each in delivered if each.reason is None)


@EACH
def test_a_message_delivered_alone_is_a_batch_of_one(cls, config):
    with Harness(cls, config) as harness:
        assert harness.deliver('a').outcome is Outcome.ACK
        assert harness.deliver('fail').reason == 'exception'
        assert harness.deliver(b'{', content_type='application/json').reason == 'undecodable'
        assert harness.controller.calls == [['a'], ['fail']]
        assert harness.deliver_batch([]) == []


@EACH
def test_each_run_gets_bodies_of_its_own(cls, config):
    with Harness(cls, config) as harness:
        harness.deliver_batch([[], []])
        assert harness.controller.calls == [[[1], []], [[2]], [[3]]]


def test_who_has_no_batches_gets_none():
    class Single(clihelper.ConsumerController):
        def on_message(self, body, message):
            pass

    with Harness(Single, CONFIG) as harness, pytest.raises(TypeError, match='no on_messages'):
        harness.deliver_batch(['a'])


def test_a_coroutine_that_was_not_run_is_a_failure():
    class Wrapped(clihelper.ConsumerController):
        def on_messages(self, messages):
            return coroutine(self, messages)

    with Harness(Wrapped, CONFIG) as harness:
        delivered = harness.deliver_batch(['a', 'b'])
    assert [each.reason for each in delivered] == ['exception', 'exception']
    text = delivered[0].dead_letter.headers['x-clihelper-message']
    assert text == 'on_messages returned an awaitable, which would never be run'


# Acknowledging.


@pytest.mark.parametrize('seed', range(20))
def test_a_batch_is_acknowledged_with_one_frame_where_nothing_before_it_is_unsettled(seed):
    chance = random.Random(seed)
    channel = Channel(range(1, 501))
    acknowledger = ConcurrentAcknowledger(channel.send, prefetch=100)
    for tag in range(1, 501):
        acknowledger.deliver(tag)
    parts = [list(range(first, first + 50)) for first in range(1, 501, 50)]
    for part in parts:
        acknowledger.add_all(part)
        acknowledger.flush()
        assert channel.frames[-1:] == [(part[-1], True)]
    assert len(channel.frames) == 10
    again = Channel(range(1, 501))
    acknowledger = ConcurrentAcknowledger(again.send, prefetch=100)
    for tag in range(1, 501):
        acknowledger.deliver(tag)
    chance.shuffle(parts)
    for part in parts:
        acknowledger.add_all(part)
        acknowledger.add_all([])
        acknowledger.flush()
    assert not again.unsettled
