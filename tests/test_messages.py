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
            program.wait_ready(30)
            program.wait_line('begins', 30)
            yield program

    def send(self, *words):
        for word in words:
            send(self.channel, self.queue, word)

    def left(self, queue=None):
        return self.channel.queue_declare(queue or self.queue, passive=True).message_count

    def wait_left(self, count, queue=None, timeout=10):
        """The broker takes a moment to give back what was prefetched."""
        end = time.monotonic() + timeout
        while (left := self.left(queue)) != count:
            assert time.monotonic() < end, left
            time.sleep(0.01)

    def dead(self, timeout=20):
        self.wait_left(1, f'{self.queue}.dead', timeout)
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


@pytest.mark.parametrize('application', ['', 'with: true', 'kept: true'])
def test_a_stop_past_its_deadline_returns_the_message_uncounted(setting, kind, application):
    if kind in AWAITED and application == 'kept: true':
        return
    with setting.run(kind, application, daemon='stop_timeout: 1') as program:
        consuming(program, setting)
        setting.send('work')
        program.wait_line("got 'work'")
        assert program.stop() == 143
    setting.wait_left(1)
    (letter,) = take(setting.channel, setting.queue)
    assert 'x-clihelper-attempts' not in (letter.headers or {})
    assert not [line for line in program.lines if 'loop was left' in line]


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


def test_each_run_that_fails_is_counted_and_the_next_one_waits(setting):
    amqp = '  retry: {attempts: 3, delay: 2.5, factor: 1}\n'
    with setting.run('own', 'again: true', amqp) as program:
        consuming(program, setting)
        setting.send('fail')
        program.wait_line("got 'fail', run 2")  # at once: the queue for the delay is new
        setting.wait_left(1, f'{setting.queue}.dead', 30)
        assert program.stop() == 0
    assert [got(program)[f"'fail', run {run}"] for run in (1, 2, 3)] == [1, 1, 1]


def test_an_iterator_that_is_kept_has_a_message_fail_as_others_do(setting):
    with setting.run('own', 'raises: true, kept: true', '  retry: {delay: 0}\n') as program:
        consuming(program, setting)
        setting.send('fail')
        assert program.wait() == 1
    setting.wait_left(1)
    (letter,) = take(setting.channel, setting.queue)
    assert letter.headers['x-clihelper-attempts'] == 1


def test_a_broker_that_refuses_ends_the_program_with_status_69(setting):
    url = f'{setting.url.removesuffix("/%2F")}/nowhere'
    with setting.run('own', 'raises: true', url=url) as program:
        assert program.wait() == 69
    assert program.lines[-1].endswith('no such vhost, or no permission for it')


@pytest.mark.parametrize('form', ['with', 'bare'])
def test_a_child_that_the_body_forks_leaves_the_message_to_its_parent(setting, form):
    application = f'with: {"true" if form == "with" else "false"}'
    with setting.run('own', application) as program:
        consuming(program, setting)
        setting.send('fork', 'after')
        program.wait_line('child ended with 0')
        program.wait_line("got 'after'")
        assert program.stop() == 0
    assert setting.left() == 0
    assert not [line for line in program.lines if 'WARNING' in line or 'Traceback' in line]


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
        again = got(program)["'requeue', run 1"] - 1  # it may come again before the others
        setting.wait_left(2 - again)
        assert program.stop() == 0
    seen = got(program)
    assert seen["'reject', run 1"] == 1
    assert seen["'ack_and_fail', run 1"] == 1
    assert not [line for line in program.lines if 'not acknowledged' in line]


def test_what_cannot_be_decoded_is_a_dead_letter_and_never_seen(setting, kind):
    with setting.run(kind) as program:
        consuming(program, setting)
        send(setting.channel, setting.queue, b'{"secret', content_type='application/json',
             content_encoding='utf-8')
        setting.send('after')
        program.wait_line("got 'after'")
        letter = setting.dead()
        assert program.stop() == 0
    assert letter.headers['x-clihelper-reason'] == 'undecodable'
    assert not [line for line in program.lines if 'secret' in line]
    assert got(program).total() == 1


def test_a_timeout_ends_the_loop_when_no_message_has_come_for_so_long(setting, kind):
    with setting.run(kind, 'timeout: 3') as program:
        consuming(program, setting)
        setting.send('one', 'two')
        program.wait_line("got 'two'")
        began = time.monotonic()
        program.wait_line('ended')
        assert 1 < time.monotonic() - began < 9
        if kind not in ('consumer', 'coroutines'):  # they consume all the time
            while program.wait_notified('STATUS')['STATUS'] != 'consuming':
                pass
            assert program.wait_notified('STATUS')['STATUS'] == 'running'
        setting.send('three')
        setting.wait_left(1)
        assert program.stop() == 0


def test_a_queue_that_does_not_exist_is_a_lookup_error(setting, kind):
    with setting.run(kind, listed=False) as program:
        if kind in ('consumer', 'coroutines'):
            return  # their queue exists
        program.wait_line(f'left by LookupError\\(.there is no queue .{setting.queue}.')
        assert program.stop() == 0


def test_a_queue_that_is_not_in_the_configuration_is_consumed_as_it_is(setting):
    setting.channel.queue_declare(setting.queue, durable=True, auto_delete=False,
                                  arguments={'x-queue-type': 'quorum'})
    amqp = '  retry: {attempts: 2, delay: 0}\n'
    with setting.run('own', 'again: true', amqp, listed=False) as program:
        consuming(program, setting)
        setting.send('fail')
        assert setting.dead().headers['x-clihelper-attempts'] == 2
        assert program.stop() == 0


def test_a_lost_connection_has_the_message_in_hand_delivered_again(setting, broker, kind):
    with Proxy(broker.port) as proxy, setting.run(kind, url=proxy.url) as program:
        consuming(program, setting)
        setting.send('work', 'next')
        program.wait_line("got 'work'")
        proxy.cut()
        (setting.folder / 'go').touch()
        program.wait_line('lost the broker')
        consuming(program, setting)
        setting.send('last')
        program.wait_line("got 'last'")
        assert program.stop() == 0
    assert got(program)["'work', run 1"] == 2
    assert setting.left() == 0
    assert sum(line.endswith('begins') for line in program.lines) == 1


@pytest.mark.parametrize('kind', ['own', 'ioloop'])
def test_a_broker_that_is_killed_and_comes_back_is_waited_for(tmp_path, queue_name, kind):
    with Broker() as broker:
        setting = Setting(tmp_path, broker.url(), queue_name)
        with setting.run(kind) as program:
            consuming(program, setting)
            broker.kill()
            program.wait_line('lost the broker', 30)
            broker.start()
            consuming(program, setting)
            with kombu.Connection(broker.url()) as connection:
                send(connection.channel(), queue_name, 'after')
                program.wait_line("got 'after'")
                broker.kill()
                program.wait_line('lost the broker', 30)
                assert program.stop() == 0
        with contextlib.suppress(Exception):
            setting.connection.close()


def test_a_program_without_a_broker_waits_for_it_and_stops_at_once(setting, kind):
    if kind in ('consumer', 'coroutines'):
        return  # their own loop waits first
    with setting.run(kind, url='amqp://127.0.0.1:1') as program:
        program.wait_line('no broker', 30)
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 3


def test_heartbeats_flow_while_the_body_runs(setting, kind):
    with setting.run(kind, amqp='  heartbeat: 1\n') as program:
        consuming(program, setting)
        setting.send('sleep', 'after')
        program.wait_line("got 'after'", 30)
        assert program.stop() == 0
    assert got(program) == {"'sleep', run 1": 1, "'after', run 1": 1}
    assert not [line for line in program.lines
                if 'lost the broker' in line and setting.queue in line]
    assert setting.left() == 0


def test_a_reload_ends_the_loop_and_begins_another(setting, kind):
    with setting.run(kind) as program:
        consuming(program, setting)
        setting.send('work', 'next')
        program.wait_line("got 'work'")
        program.signal('HUP')
        if kind not in ('process', 'consumer'):
            program.wait_line('SIGHUP')
        (setting.folder / 'go').touch()
        program.wait_line('begins', 20)
        if not got(program)["'next', run 1"]:  # a thread may have taken it before
            program.wait_line("got 'next'", 20)
        assert program.stop() == 0
    assert got(program)["'work', run 1"] == 1
    assert setting.left() == 0


def test_prefetch_is_how_many_messages_are_held(setting, kind):
    with setting.run(kind, 'prefetch: 2') as program:
        consuming(program, setting)
        setting.send('work', *'abcd')
        program.wait_line("got 'work'")
        setting.wait_left(3)
        (setting.folder / 'go').touch()
        program.wait_line("got 'd'")
        assert program.stop() == 0
    assert setting.left() == 0


@pytest.mark.parametrize('kind', ['own', 'process', 'ioloop'])
def test_a_message_that_kills_workers_is_a_dead_letter_in_the_end(setting, kind):
    amqp = '  retry: {attempts: 3, delay: 0}\n'
    with setting.run(kind, amqp=amqp, daemon='workers: 1, max_messages: 1000') as program:
        consuming(program, setting)
        setting.send('before', 'die', 'after')
        letter = setting.dead()
        while "'after', run 1" not in got(program):
            program.wait_line('got ', 20)
        assert program.stop() == 0
    assert letter.headers['x-clihelper-reason'] == 'crashed'
    assert letter.headers['x-clihelper-attempts'] == 3
    assert got(program)["'die', run 3"] == 1


@pytest.mark.parametrize('kind', ['own', 'ioloop'])
def test_a_body_that_hangs_is_ended_at_handler_timeout(setting, kind):
    amqp = '  retry: {attempts: 2, delay: 0}\n  handler_timeout: 0.5\n'
    with setting.run(kind, amqp=amqp, daemon='workers: 1, max_messages: 1000') as program:
        consuming(program, setting)
        setting.send('hang')
        assert setting.dead(30).headers['x-clihelper-reason'] == 'timeout'
        assert program.stop() == 0


@pytest.mark.parametrize('kind', ['own', 'ioloop'])
def test_several_workers_share_a_queue(setting, kind):
    with setting.run(kind, 'prefetch: 1', daemon='workers: 2') as program:
        consuming(program, setting)
        setting.send(*(f'm{n}' for n in range(20)))
        while got(program).total() < 20:
            program.wait_line('got ')
        assert program.stop() == 0
    assert set(got(program).values()) == {1}
    assert setting.left() == 0


def test_max_messages_has_another_worker_go_on(setting):
    with setting.run('own', daemon='workers: 1, max_messages: 3') as program:
        consuming(program, setting)
        setting.send(*(f'm{n}' for n in range(10)))
        while got(program).total() < 10:
            program.wait_line('got ', 20)
        assert program.stop() == 0
    assert sum(line.endswith('begins') for line in program.lines) > 1
    assert setting.left() == 0


def test_a_message_that_comes_when_nobody_waits_any_more_is_the_next_one(setting):
    with setting.run('impatient', amqp='  heartbeat: 60\n') as program:  # nothing else wakes it
        consuming(program, setting)
        program.wait_line('timed out')
        setting.send('one')
        program.wait_line("got 'one'")
        program.wait_line('timed out')
        setting.send('two')
        program.wait_line("got 'two'")
        program.wait_line('closed \\[\\]')
        setting.send('three')
        setting.wait_left(1)
        assert program.stop() == 0
    assert got(program).total() == 2


def test_a_task_that_a_stop_cancels_has_its_message_returned_uncounted(setting):
    with setting.run('cancelling', 'with: true') as program:
        consuming(program, setting)
        setting.send('work')
        program.wait_line("got 'work'")
        assert program.stop() == 0
    setting.wait_left(1)
    (letter,) = take(setting.channel, setting.queue)
    assert 'x-clihelper-attempts' not in (letter.headers or {})
    assert not [line for line in program.lines if 'failed in run' in line]


def test_two_queues_in_turn(setting):
    setting.channel.queue_declare(f'{setting.queue}.other', durable=True, auto_delete=False)
    path = setting.folder / 'both.yml'
    path.write_text(
        f'Application: {{queue: {setting.queue}}}\n'
        f'AMQP:\n  url: {setting.url}\n  queues: {{{setting.queue}: {{}}}}\n')
    with Program([sys.executable, PROGRAM, 'both', '-c', str(path), '-f']) as program:
        program.wait_line('consuming', 20)
        setting.send('a', 'b')
        for word in 'xy':
            send(setting.channel, f'{setting.queue}.other', word)
        program.wait_line("got 'a' and 'x'")
        program.wait_line("got 'b' and 'y'")
        assert program.stop() == 0
    setting.wait_left(0)
    setting.wait_left(1, f'{setting.queue}.other')  # zip() has not asked for the next one


def test_the_watchdog_is_fed_while_a_message_is_awaited(setting, kind):
    with setting.run(kind, watchdog=0.5) as program:
        consuming(program, setting)
        for _ in range(3):
            program.wait_notified('WATCHDOG')
        assert program.stop() == 0


def test_usr2_shows_what_is_consumed(setting, kind):
    with setting.run(kind) as program:
        consuming(program, setting)
        setting.send('work')
        program.wait_line("got 'work'")
        program.signal('USR2')
        program.wait_line('handling a message from queue')
        (setting.folder / 'go').touch()
        assert program.stop() == 0


# Without a broker, in the process of the tests.


class Own(clihelper.Controller):
    def _process(self):
        seen = []
        for message in self.messages('orders'):
            seen.append(message.body)
            if message.body == 'fail':
                raise ValueError('a test')
            if message.body == 'stop':
                self.stop()
        return seen


class Awaiting(clihelper.IOLoopController):
    async def _process(self):
        seen = []
        async for message in self.messages('orders'):
            seen.append(message.body)
            if message.body == 'fail':
                raise ValueError('a test')
            if message.body == 'stop':
                self.stop()
        return seen


ORDERS = {'AMQP': {'queues': {'orders': {}}}}


@pytest.mark.parametrize('controller', [Own, Awaiting])
def test_the_harness_yields_what_the_test_has_put_into_the_queue(controller):
    with Harness(controller, ORDERS) as harness:
        assert harness.tick() == []
        harness.queues['orders'] += [{'n': 1}, 'two']
        assert harness.tick() == [{'n': 1}, 'two']
        assert harness.queues['orders'] == []


@pytest.mark.parametrize('controller', [Own, Awaiting])
def test_in_the_harness_a_loop_that_is_left_has_its_message_in_the_queue_again(controller):
    with Harness(controller, ORDERS) as harness:
        harness.queues['orders'] = ['one', 'fail', 'three']
        with pytest.raises(ValueError, match='a test'):
            harness.tick()
        assert harness.queues['orders'] == ['fail', 'three']


@pytest.mark.parametrize('controller', [Own, Awaiting])
def test_in_the_harness_a_stop_ends_the_loop(controller):
    with Harness(controller, ORDERS) as harness:
        harness.queues['orders'] = ['stop', 'next']
        assert harness.tick() == ['stop']
        assert harness.queues['orders'] == ['next']


@pytest.mark.parametrize('controller', [Own, Awaiting])
def test_in_the_harness_a_queue_that_is_nowhere_is_a_lookup_error(controller):
    with Harness(controller) as harness, pytest.raises(LookupError, match='orders'):
        harness.tick()


MEMORY = """
AMQP:
  url: memory://
  retry: {attempts: 2, delay: 0}
  queues: {orders: {}}
"""


class OnMemory(clihelper.Controller):
    """Publishes to itself."""

    def _loop(self):
        self.publish('first', routing_key='orders')
        self.publish('fail', routing_key='orders')
        for _ in range(2):
            with contextlib.suppress(ValueError), self.messages('orders', 5) as messages:
                for message in messages:
                    print(message.body, message.attempts, flush=True)
                    if message.body == 'fail':
                        raise ValueError('a test')
        for message in self.messages('orders.dead', 5):
            print('dead', message.body, message.headers['x-clihelper-attempts'], flush=True)
            message.ack()
            break
        print('no', next(self.messages('orders', 0.1), None), flush=True)
        try:
            next(self.messages('nowhere'))
        except LookupError as error:
            print(error, flush=True)


class InEachHook(clihelper.Controller):
    def _setup(self):
        self.publish('one', routing_key='orders')
        print('_setup', [message.body for message in self.messages('orders', 0.2)], flush=True)

    def _process(self):
        self.publish('two', routing_key='orders')
        print('_process', [message.body for message in self.messages('orders', 0.2)], flush=True)
        self.stop()

    def _cleanup(self):
        print('_cleanup', list(self.messages('orders')), flush=True)


class Old(clihelper.Controller):
    """With the names of 1.x."""

    def process(self):
        with self.pipeline() as pipeline:
            pipeline.publish('old', routing_key='orders')
        print([message.body for message in self.messages('orders', 0.2)], flush=True)
        self.stop()


def on_memory(folder, controller):
    """What a program prints, whose broker is kombu's memory transport."""
    (folder / 'memory.yml').write_text(MEMORY)
    (folder / 'memory.py').write_text(
        f'from tests.test_messages import {controller.__name__} as controller\n'
        'import clihelper\n'
        'clihelper.setup("memory")\n'
        'clihelper.run(controller)\n')
    argv = [sys.executable, 'memory.py', '-c', 'memory.yml', '-f']
    root = str(Path(__file__).parent.parent)
    env = {'PYTHONPATH': root, 'PYTHONWARNINGS': 'default'}
    with Program(argv, cwd=str(folder), env=env) as program:
        assert program.wait(30) == 0
    return program.stdout


def test_on_kombus_memory_transport(tmp_path):
    assert on_memory(tmp_path, OnMemory) == [
        'first 1', 'fail 1', 'fail 2', 'dead fail 2', 'no None', "there is no queue 'nowhere'"]


def test_in_each_hook_until_a_stop(tmp_path):
    assert on_memory(tmp_path, InEachHook) == ["_setup ['one']", "_process ['two']", '_cleanup []']


def test_in_a_program_of_1_x(tmp_path):
    assert on_memory(tmp_path, Old) == ["['old']"]


@pytest.mark.parametrize(('arguments', 'words'), [
    ({'timeout': 0}, 'timeout is above 0 seconds, not 0'),
    ({'timeout': -1}, 'timeout is above 0'),
    ({'prefetch': 0}, 'prefetch is from 1 to 65535, not 0'),
    ({'prefetch': 65536}, 'prefetch is from 1 to 65535'),
])
def test_arguments_out_of_range_are_refused(arguments, words):
    with Harness(Own, ORDERS) as harness, pytest.raises(ValueError, match=words):
        harness.controller.messages('orders', **arguments)
