"""Messages with the same key, one after the other: over threads, coroutines and retries."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import clihelper
from clihelper.amqp.ordering import Lines
from clihelper.testing import Harness, Outcome, Program
from tests.proxy import Proxy
from tests.test_workers import children
from tests.test_workers_amqp import Work

PROGRAM = str(Path(__file__).parent / 'programs' / 'ordered.py')

RETRY = 'retry: {attempts: 30, delay: 0.01, factor: 1}'


class Ordered(Work):
    @contextlib.contextmanager
    def run(self, **options):
        argv = [sys.executable, PROGRAM, '-c', str(self.file), '-f']
        with Program(argv, **options) as program:
            program.wait_ready(30)
            yield program

    def send_keys(self, count, keys=10, what='flaky', first=0):
        """Send messages with numbers from *first* on, spread over keys in some order."""
        numbers = collections.Counter()
        chance = random.Random(count)
        for _ in range(count):
            key = f'k{chance.randrange(keys)}'
            self.send(f'{key} {first + numbers[key]} {what}')
            numbers[key] += 1
        return {(key, first + number) for key in numbers for number in range(numbers[key])}

    def noted(self, *whats):
        return {(note[1], int(note[2])) for note in self.notes() if note[0] in whats}

    def wait_noted(self, wanted, *whats, timeout=60):
        end = time.monotonic() + timeout
        while missing := wanted - self.noted(*whats or ('done',)):
            assert time.monotonic() < end, missing
            time.sleep(0.02)

    def open_gate(self):
        (self.folder / 'notes.open').touch()

    def wait_line_of_usr2(self, program, text, timeout=10):
        end = time.monotonic() + timeout
        while not any(text in line for line in list(program.lines)):
            assert time.monotonic() < end, program.lines
            program.signal('USR2')
            time.sleep(0.1)

    def of(self, key):
        """What happened with the messages of that key: words such as ``run 1``."""
        return [f'{note[0]} {note[2]}' for note in self.notes() if note[1] == key]


def check_order(notes, killed=()):
    """No key is handled twice at a time, and each message first when those before it are done.

    :param killed: the processes that may have ended in the middle of a run.
    """
    running, first, done, killed = {}, {}, collections.defaultdict(set), {*killed}
    for what, key, number, pid, *_ in notes:
        number = int(number)
        if what == 'run':
            assert running.get(key) in {None, *killed}, (key, number, running[key], pid)
            running[key] = pid
            if number > first.get(key, -1):
                assert number == first.get(key, -1) + 1
                assert done[key] >= set(range(number)), (key, number, done[key])
                first[key] = number
        else:
            assert running[key] == pid
            running[key] = None
            if what == 'done':
                done[key].add(number)


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Ordered(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture(params=['one', 'threads', 'coroutines'])
def many(request, monkeypatch):
    """The keys of the AMQP section for each way of handling messages."""
    monkeypatch.setenv('KIND', request.param)
    return {'one': 'prefetch: 200', 'threads': 'threads: 32\n  prefetch: 200',
            'coroutines': 'concurrency: 100\n  prefetch: 200'}[request.param]


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_each_key_is_in_order_whatever_fails(work, many, kind):
    work.configure(daemon='', amqp=f'{many}\n  {RETRY}', kind=kind, more='pause: 0.01')
    with work.run() as program:
        sent = work.send_keys(300)
        work.wait_noted(sent)
        assert program.stop() == 0
    check_order(work.notes())
    assert work.left() == 0


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_a_message_that_fails_has_those_behind_it_wait_and_others_go_on(work, many, kind):
    work.configure(daemon='', amqp=f'{many}\n  retry: {{attempts: 3, delay: 0.3, factor: 1}}',
                   kind=kind)
    with work.run() as program:
        work.send('a 0 twice', 'a 1', 'b 0', 'a 2 fail', 'keyless 0', 'a 3', 'b 1')
        (dead,) = work.wait_dead()
        work.wait_noted({('a', 3)})
        assert program.stop() == 0
    assert dead.body == 'a 2 fail'
    assert dead.headers['x-clihelper-attempts'] == 3
    assert work.of('a') == [
        'run 0', 'failed 0', 'run 0', 'failed 0', 'run 0', 'done 0', 'run 1', 'done 1',
        'run 2', 'failed 2', 'run 2', 'failed 2', 'run 2', 'failed 2', 'run 3', 'done 3',
    ]  # fmt: skip
    ends = [note[:3] for note in work.notes() if note[0] in ('done', 'failed')]
    beside = [['done', key, number] for key, number in ('b0', 'b1')] + [['done', 'keyless', '0']]
    assert max(ends.index(each) for each in beside) < ends.index(['done', 'a', '0'])
    assert work.left() == 0


@pytest.mark.parametrize('how', ['requeue', 'back'])
@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_a_message_that_is_requeued_keeps_its_place(work, many, how, kind):
    work.configure(daemon='', amqp=many, kind=kind)
    with work.run() as program:
        work.send(f'a 0 {how}', 'a 1', 'a 2')
        work.wait_noted({('a', 2)})
        assert program.stop() == 0
    again = 'failed' if how == 'requeue' else 'back'
    assert work.of('a') == ['run 0', f'{again} 0', 'run 0', f'{again} 0', 'run 0', 'done 0',
                            'run 1', 'done 1', 'run 2', 'done 2']
    assert {note[4] for note in work.notes()} == {'1'}  # none of it counts
    assert work.left() == 0


def test_a_message_whose_key_cannot_be_had_has_failed_alone(work, many):
    work.configure(daemon='', amqp=f'{many}\n  retry: {{attempts: 2, delay: 0}}')
    with work.run() as program:
        work.send('a 0', 'broken 0', 'unhashable 0', 'a 1')
        dead = work.wait_dead(2)
        work.wait_noted({('a', 1)})
        assert program.stop() == 0
    assert {letter.body for letter in dead} == {'broken 0', 'unhashable 0'}
    assert {letter.headers['x-clihelper-exception'] for letter in dead} == {
        'ValueError', 'TypeError'}
    assert {letter.headers['x-clihelper-attempts'] for letter in dead} == {2}
    assert work.left() == 0


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_a_stop_returns_all_in_their_order(work, many, kind):
    work.configure(daemon='', amqp=f'{many}\n  retry: {{attempts: 3, delay: 60}}', kind=kind)
    with work.run() as program:
        work.send('a 0', 'a 1 twice', 'a 2', 'b 0', 'a 3', 'keyless 0')
        work.wait_noted({('keyless', 0), ('b', 0), ('a', 0)})
        work.wait_noted({('a', 1)}, 'failed')
        assert program.stop() == 0
    work.wait_left(3)
    work.configure(daemon='', amqp=f'{many}\n  retry: {{attempts: 3, delay: 0}}', kind=kind)
    with work.run() as program:
        work.wait_noted({('a', 3)})
        assert program.stop() == 0
    check_order(work.notes())
    assert work.left() == 0


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_a_reload_and_a_stop_in_the_middle_keep_the_order(work, many, kind):
    work.configure(daemon='', amqp=f'{many}\n  {RETRY}', kind=kind, more='pause: 0.01')
    with work.run() as program:
        sent = work.send_keys(200)
        for at in (20, 60):
            work.wait_runs(at, timeout=30)
            program.signal('HUP')
            program.wait_ready()
        work.wait_runs(120, timeout=30)
        assert program.stop() == 0
    with work.run() as program:
        work.wait_noted(sent)
        assert program.stop() == 0
    check_order(work.notes())
    assert work.left() == 0


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_cut_connections_keep_the_order(work, broker, many, kind):
    with Proxy(broker.port) as proxy:
        work._url = proxy.url
        work.configure(daemon='', amqp=f'{many}\n  {RETRY}', kind=kind, more='pause: 0.01')
        with work.run() as program:
            sent = work.send_keys(300)
            for at in (20, 60, 120):
                work.wait_runs(at, timeout=30)
                proxy.cut()
            work.wait_noted(sent)
            assert program.stop() == 0
    check_order(work.notes())


def test_a_handler_of_a_lost_connection_holds_up_those_with_its_key(
    work, broker, many, monkeypatch
):
    if os.environ['KIND'] == 'one':
        many = 'threads: 2'  # one at a time knows of no other
    with Proxy(broker.port) as proxy:
        work._url = proxy.url
        work.configure(daemon='', amqp=many)
        with work.run() as program:
            work.send('a 0 gate', 'a 1', 'b 0')
            work.wait_noted({('a', 0)}, 'run')
            proxy.cut()
            program.wait_line('lost the broker')
            work.send('b 1')
            work.wait_noted({('b', 1)})
            work.open_gate()
            work.wait_noted({('a', 1)})
            assert program.stop() == 0
    check_order(work.notes())
    assert work.of('a') == ['run 0', 'done 0', 'run 0', 'done 0', 'run 1', 'done 1']


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_a_worker_that_is_killed_keeps_the_order(work, many, kind):
    work.configure(daemon='workers: 1', amqp=f'{many}\n  {RETRY}\n  handler_timeout: 60',
                   kind=kind, more='pause: 0.01')
    killed = []
    with work.run() as program:
        sent = work.send_keys(300)
        for at in (20, 100):
            work.wait_runs(at, timeout=30)
            while not (alive := set(children(program.pid)) - {*killed}):
                time.sleep(0.01)
            (pid,) = alive
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            program.wait_line(f'{pid}.*SIGKILL')
        work.wait_noted(sent)
        assert program.stop() == 0
    check_order(work.notes(), map(str, killed))
    assert work.left() == 0


@pytest.mark.parametrize('what', ['kill', 'vary'])
def test_what_kills_workers_is_dead_lettered_in_its_place(work, many, what):
    """The one that fails and kills by turns has its runs counted, whichever way they end."""
    work.configure(daemon='workers: 1', amqp=f'{many}\n  retry: {{attempts: 3, delay: 0}}\n'
                                             '  handler_timeout: 60')
    with work.run() as program:
        work.send('a 0', f'a 1 {what}', 'a 2', *(f'b {number}' for number in range(5)))
        (dead,) = work.wait_dead()
        work.wait_noted({('a', 2), ('b', 4)})
        assert program.stop() == 0
    assert dead.body == f'a 1 {what}'
    runs = [note for note in work.of('a') if note.startswith('run')]
    # Among others, and then alone. A failure is not counted where its process is killed later.
    assert runs.count('run 1') in ((3, 4) if what == 'kill' else (5, 6))
    assert runs[-1] == 'run 2'
    assert runs.count('run 2') == 1
    assert work.left() == 0


def test_a_prefetch_full_of_one_key_holds_up_others(work, many):
    """As documented: messages that have not been sent cannot be reached."""
    work.configure(daemon='', amqp=f'{many.replace("200", "3").replace("100", "3")}')
    if 'threads' in many:
        work.configure(daemon='', amqp='threads: 3\n  prefetch: 3')
    with work.run() as program:
        work.send('a 0 gate', 'a 1', 'a 2', 'b 0')
        work.wait_noted({('a', 0)}, 'run')
        if os.environ['KIND'] != 'one':  # there the others are merely prefetched
            work.wait_left(1)
            work.wait_line_of_usr2(program, 'behind others with the same key: 2')
        work.open_gate()
        work.wait_noted({('b', 0), ('a', 2)})
        assert program.stop() == 0
    notes = [note[:3] for note in work.notes()]
    assert notes.index(['run', 'b', '0']) > notes.index(['done', 'a', '0'])


def test_memory_has_it_too(tmp_path, many):
    """Messages are published by the program itself, since nobody else can."""
    program_file = tmp_path / 'memory.py'
    coroutines = os.environ['KIND'] == 'coroutines'
    program_file.write_text(MEMORY.format(*(
        ('Async', 'async ', 'await ') if coroutines else ('', '', ''))))
    config = tmp_path / 'memory.yml'
    config.write_text(
        f'AMQP:\n  url: memory://\n  {many}\n  queues: {{orders: {{}}}}\n'
        '  retry: {attempts: 3, delay: 0.1}\n')
    argv = [sys.executable, str(program_file), '-c', str(config), '-f']
    with Program(argv) as program:
        program.wait_line(r"\['a0', 'a0', 'a0', 'a1', 'a2'\]", 30)
        assert program.stop() == 0


MEMORY = """
import clihelper


class Memory(clihelper.{0}ConsumerController):
    runs = []

    {1}def _process(self):
        for body in () if self.runs else ('a0', 'a1', 'b0', 'a2'):
            {2}self.publish(body, routing_key='orders')

    def order_key(self, message):
        return message.body[0]

    {1}def on_message(self, body, message):
        self.runs.append(body)
        if body == 'a0' and message.attempts < 3:
            raise ValueError('not yet')
        if body == 'a2':
            self.logger.info('%s', [each for each in self.runs if each != 'b0'])


clihelper.setup('memory')
clihelper.run(Memory)
"""


class Keyed(clihelper.ConsumerController):
    def order_key(self, message):
        return {'none': None, 'list': []}.get(message.body, message.body)

    def on_message(self, body, message):
        if body == 'fail':
            raise ValueError('not today')


def test_the_kit_calls_it(tmp_path):
    with Harness(Keyed, {'AMQP': {'queues': {'orders': {}}}}) as orders:
        assert orders.deliver('none').outcome is Outcome.ACK
        assert orders.deliver('fail').outcome is Outcome.RETRY
        assert orders.deliver('fail').outcome is Outcome.RETRY  # each is delivered by itself
        unhashable = orders.deliver('list')
        assert isinstance(unhashable.error, TypeError)
        assert unhashable.outcome is Outcome.RETRY


def test_lines():
    lines = Lines()
    a, b, c, d = (object() for _ in range(4))
    assert lines.join(a, 'x')
    assert not lines.join(b, 'x')
    assert lines.join(c, 'y')
    assert not lines.join(d, 'x')
    assert lines.waiting == 2
    assert lines.leave(a) is b
    assert lines.leave(a) is None
    lines.keep_only([b])
    assert b in lines
    assert d not in lines
    assert lines.leave(b) is None
    with pytest.raises(TypeError):
        lines.join(a, [])
    assert a not in lines
