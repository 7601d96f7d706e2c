"""``for message in self.messages(queue)``, in each kind of controller: on RabbitMQ and without."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from pathlib import Path

import kombu
import pytest

import clihelper
from clihelper.testing import Harness, Program
from tests.broker import Broker
from tests.faults import send, take
from tests.proxy import Proxy

PROGRAM = str(Path(__file__).parent / 'programs' / 'iterating.py')

KINDS = ['own', 'process', 'thread', 'ioloop', 'consumer', 'coroutines']

AWAITED = ('ioloop', 'coroutines')


@pytest.fixture(params=KINDS)
def kind(request):
    """Who has the loop: what the program overrides, or where it runs."""
    return request.param


class Setting:
    """A configuration, a queue, and programs that iterate over its messages."""

    def __init__(self, folder, url, queue):
        self.folder, self.url, self.queue = folder, url, queue
        self.connection = kombu.Connection(url)
        self.channel = self.connection.channel()

    @contextlib.contextmanager
    def run(self, kind, application='', amqp='', daemon='', url=None, listed=True, options='',
            **program):
        """The program, once it iterates."""
        path = self.folder / 'iterating.yml'
        if kind in ('consumer', 'coroutines'):  # they have another queue for on_message
            self.channel.queue_declare(self.queue, durable=True, auto_delete=False)
            queues = f'{{{self.queue}.other: {{}}}}'
        else:
            queues = f'{{{self.queue}: {{{options}}}}}' if listed else '{}'
        path.write_text(
            f'Application: {{wake_interval: 3600, queue: {self.queue}, go: {self.folder}/go,'
            f' {application}}}\n'
            f'Daemon: {{{daemon}}}\n'
            f'AMQP:\n  url: {url or self.url}\n  queues: {queues}\n{amqp}'
        )
        argv = [sys.executable, PROGRAM, kind, '-c', str(path), '-f']
        with Program(argv, **program) as program:
            program.wait_line('begins', 30)
            yield program

    def send(self, *words):
        for word in words:
            send(self.channel, self.queue, word)

    def left(self, queue=None):
        return self.channel.queue_declare(queue or self.queue, passive=True).message_count

    def wait_left(self, count, queue=None):
        """The broker takes a moment to give back what was prefetched."""
        end = time.monotonic() + 10
        while (left := self.left(queue)) != count:
            assert time.monotonic() < end, left
            time.sleep(0.01)

    def dead(self):
        self.wait_left(1, f'{self.queue}.dead')
        (letter,) = take(self.channel, f'{self.queue}.dead')
        return letter


@pytest.fixture
def setting(tmp_path, broker, queue_name):
    setting = Setting(tmp_path, broker.url(), queue_name)
    yield setting
    setting.connection.close()


def consuming(program, setting):
    program.wait_line(f'consuming {setting.queue} from', 30)


def got(program):
    return collections.Counter(
        line.partition('got ')[2] for line in program.lines if 'got ' in line)


def test_each_message_is_acknowledged_and_a_stop_ends_the_wait_for_the_next(
    setting, kind, figure
):
    with setting.run(kind) as program:
        consuming(program, setting)
        setting.send('one', 'two', 'three')
        program.wait_line("got 'three', run 1")
        began = time.monotonic()
        assert program.stop() == 0
        figure(f'{kind}: a stop while a message is awaited', f'{time.monotonic() - began:.3f} s')
        assert any(line.endswith('ended') for line in program.lines)
    assert time.monotonic() - began < 5
    assert setting.left() == 0
    assert got(program) == {"'one', run 1": 1, "'two', run 1": 1, "'three', run 1": 1}


def test_a_stop_lets_the_body_end_and_acknowledges_its_message_and_no_other(setting, kind):
    with setting.run(kind) as program:
        consuming(program, setting)
        setting.send('work', 'next', 'last')
        program.wait_line("got 'work'")
        program.signal('TERM')
        if kind not in ('process', 'consumer'):  # they serve signals when the body has ended
            program.wait_line('SIGTERM')
        (setting.folder / 'go').touch()
        assert program.wait() == 0
        assert any(line.endswith('worked') for line in program.lines)
        assert any(line.endswith('ended') for line in program.lines)
    setting.wait_left(2)
    assert len(got(program)) == 1


def test_the_body_may_stop_the_program_itself(setting, kind):
    if kind == 'thread':
        return  # stop() is for the main thread
    with setting.run(kind) as program:
        consuming(program, setting)
        setting.send('stop', 'next')
        assert program.wait() == 0
    setting.wait_left(1)


@pytest.mark.parametrize('form', ['with', 'bare'])
def test_an_exception_has_the_message_run_again_until_it_is_a_dead_letter(setting, kind, form):
    application = f'again: true, with: {"true" if form == "with" else "false"}'
    amqp = '  retry: {attempts: 3, delay: 0}\n'
    with setting.run(kind, application, amqp) as program:
        consuming(program, setting)
        setting.send('fail', 'after')
        letter = setting.dead()
        while "'after', run 1" not in got(program):
            program.wait_line('got ')
        assert program.stop() == 0
    assert letter.headers['x-clihelper-reason'] == 'exception'
    assert letter.headers['x-clihelper-exception'] == (
        'ConnectionResetError' if form == 'with' else 'Left')
    assert letter.headers['x-clihelper-attempts'] == 3
    seen = got(program)
    assert [seen[f"'fail', run {run}"] for run in (1, 2, 3)] == [1, 1, 1]
    assert setting.left() == 0


def test_an_exception_that_nobody_catches_ends_the_program_and_the_message_is_not_lost(
    setting, kind
):
    if kind == 'thread' or kind in AWAITED:
        return  # there it ends a thread or a task
    with setting.run(kind, 'raises: true', '  retry: {delay: 0}\n') as program:
        consuming(program, setting)
        setting.send('fail', 'next')
        assert program.wait() == 1
    setting.wait_left(2)


def test_break_leaves_the_message_in_hand_unacknowledged_and_says_so(setting, kind):
    with setting.run(kind, amqp='  retry: {delay: 0}\n') as program:
        consuming(program, setting)
        setting.send('break', 'next')
        program.wait_line('a loop was left with a message from .* in hand')
        setting.wait_left(2)
        assert program.stop() == 0
    found = take(setting.channel, setting.queue)
    assert [letter.headers.get('x-clihelper-attempts') for letter in found
            if letter.payload == 'break'] == [1]


@pytest.mark.parametrize(('application', 'word'), [('', 'ack_and_break'), ('with: true', 'break')])
def test_break_after_ack_or_in_a_with_acknowledges_it(setting, kind, application, word):
    with setting.run(kind, application) as program:
        consuming(program, setting)
        setting.send(word, 'next')
        program.wait_line('ended')
        setting.wait_left(1)
        assert program.stop() == 0
    assert [letter.payload for letter in take(setting.channel, setting.queue)] == ['next']


def test_what_the_body_settles_itself_is_settled_once(setting, kind):
    with setting.run(kind, 'with: true') as program:
        consuming(program, setting)
        setting.send('reject', 'requeue', 'ack_and_fail', 'next')
        program.wait_line('left by ConnectionResetError')
        setting.wait_left(2)  # 'requeue' and 'next'
        assert program.stop() == 0
    seen = got(program)
    assert seen["'reject', run 1"] == 1
    assert seen["'ack_and_fail', run 1"] == 1
    assert not [line for line in program.lines if 'not acknowledged' in line]
