"""Handlers for certain messages: which one is called in each loop, what is wrong with one."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kombu
import pytest

import clihelper
from clihelper.amqp import properties
from clihelper.amqp.handlers import MOST_CHOICES, Handler, Handlers
from clihelper.amqp.message import Message
from clihelper.amqp.properties import InvalidProperties, type_of
from clihelper.amqp.routes import Route, matches
from clihelper.amqp.settlement import Outcome, Unrouted
from clihelper.errors import ConfigurationError, Error
from clihelper.testing import Harness, Program
from tests.test_asyncapi import with_bodies
from tests.test_workers_amqp import Work

PROGRAM = str(Path(__file__).parent / 'programs' / 'handling.py')
CONFIG = 'AMQP: {url: "memory://", queues: {q: , r: }, retry: {attempts: 1}}'


# Routing keys.


@pytest.mark.parametrize(('pattern', 'fitting', 'other'), [
    ('order', ['order'], ['', 'orders', 'order.new', 'ORDER']),
    ('order.*', ['order.new', 'order.'], ['order', 'order.new.eu', 'x.order']),
    ('*', ['a', '*'], ['', 'a.b']),
    ('#', ['', 'a', 'a.b', '.'], []),
    ('order.#', ['order', 'order.new', 'order.new.eu'], ['', 'orders', 'a.order']),
    ('#.eu', ['eu', 'order.eu', 'a.b.eu'], ['eu.a', '']),
    ('a.#.b', ['a.b', 'a.x.b', 'a.x.y.b', 'a.b.b'], ['a', 'a.x', 'b']),
    ('a.#.*', ['a.x', 'a.x.y'], ['a']),
    ('#.#', ['', 'a', 'a.b'], []),
    ('*.#.*', ['a.b', 'a.b.c'], ['a', '']),
    ('order.n*', ['order.n*'], ['order.new']),
    ('', [''], ['a']),
])
def test_a_pattern_fits_what_a_topic_exchange_would_route(
    pattern: str, fitting: list[str], other: list[str]
) -> None:
    assert [key for key in fitting if not matches(pattern, key)] == []
    assert [key for key in other if matches(pattern, key)] == []


def test_a_pattern_of_many_wildcards_takes_no_time() -> None:
    began = time.monotonic()
    assert not matches('#.a.' * 40 + 'b', '.'.join('a' * 120))
    assert time.monotonic() - began < 1


# The property type.


@pytest.mark.parametrize('before', [
    {}, {'content_type': 'a/b'}, {'content_encoding': 'gzip'}, {'application_headers': {'a': 1}},
    {'delivery_mode': 2}, {'priority': 3}, {'delivery_mode': 2, 'priority': 3},
    {'correlation_id': 'x' * 255}, {'reply_to': 'q'}, {'expiration': '1'}, {'message_id': ''},
    {'timestamp': 1}, {'app_id': 'app', 'user_id': 'me', 'cluster_id': 'c'},
    {'content_type': 'a/b', 'content_encoding': 'gzip', 'application_headers': {}, 'priority': 1,
     'delivery_mode': 1, 'correlation_id': 'c', 'reply_to': 'r', 'expiration': '2',
     'message_id': 'm', 'timestamp': 2**40},
])
def test_the_type_is_found_behind_any_other_property(before: dict[str, Any]) -> None:
    assert type_of(properties.encode({**before, 'type': 'order.paid'})) == 'order.paid'
    assert type_of(properties.encode({**before, 'type': ''})) == ''
    assert type_of(properties.encode(before)) is None


@pytest.mark.parametrize('packed', [b'', b'\0', b'\0\x20', b'\0\x20\5ab', b'\0\x20\1\xff',
                                    b'\x80\x20', b'\x20\x20\0\0\0\x7f\1a', b'\x80\x20\xffa'])
def test_a_type_that_cannot_be_read_is_said_to_be_so(packed: bytes) -> None:
    with pytest.raises(InvalidProperties, match='type: '):
        type_of(packed)


# Which handler it is.


class Routed(clihelper.ConsumerController):
    @clihelper.handles(queue='r', type='a')
    def in_r(self, body: Any, message: Message) -> str:
        return 'in_r'

    @clihelper.handles(type='a')
    @clihelper.handles(type='b')
    def a_or_b(self, body: Any, message: Message) -> str:
        return 'a_or_b'

    @clihelper.handles(type='c', routing_key='x.#')
    def c_of_x(self, body: Any, message: Message) -> str:
        return 'c_of_x'

    @clihelper.handles(type='c')
    def other_c(self, body: Any, message: Message) -> str:
        return 'other_c'


class WithRest(Routed):
    def on_message(self, body: Any, message: Message) -> str:
        return 'rest'


class Coroutines(clihelper.AsyncConsumerController):
    in_r = Routed.in_r

    @clihelper.handles(type='a')
    @clihelper.handles(type='b')
    async def a_or_b(self, body: Any, message: Message) -> str:
        return 'a_or_b'

    c_of_x, other_c = Routed.c_of_x, Routed.other_c

    async def on_message(self, body: Any, message: Message) -> str:
        return 'rest'


CHOICES = [
    ('q', 'a', '', 'a_or_b'), ('r', 'a', '', 'in_r'), ('r', 'b', '', 'a_or_b'),
    ('q', 'c', 'x.y', 'c_of_x'), ('q', 'c', 'x', 'c_of_x'), ('q', 'c', 'y.x', 'other_c'),
    ('r', 'd', 'x', 'rest'), ('r', None, 'x', 'rest'),
]


@pytest.mark.parametrize('cls', [WithRest, Coroutines])
@pytest.mark.parametrize('more', ['', ', threads: 3'])
def test_the_first_that_fits_handles_a_message(cls: Any, more: str) -> None:
    config = CONFIG.replace('retry', f'{more[2:]}, retry' if more else 'retry')
    with Harness(cls, config) as harness:
        for queue, kind, key, name in CHOICES * 2:  # the second time it is remembered
            given = {} if kind is None else {'type': kind}
            done = harness.deliver(
                b'', queue=queue, routing_key=key, reply_to='replies', **given)
            assert done.outcome is Outcome.ACK
            assert done.reply.body == name


def test_what_no_handler_is_for_is_dead_lettered() -> None:
    with Harness(Routed, CONFIG) as harness:
        done = harness.deliver({'secret': 1}, queue='r', type='d', routing_key='k')
    assert (done.reason, done.error) == ('unrouted', None)
    headers = done.dead_letter.headers
    text = "no handler is for queue r, type 'd', routing key 'k'"
    assert headers['x-clihelper-message'] == text
    assert headers['x-clihelper-attempts'] == 0
    assert done.dead_letter.body == {'secret': 1}


def test_what_a_handler_raises_is_a_failure_of_the_message() -> None:
    class Failing(clihelper.ConsumerController):
        @clihelper.handles(type='a')
        def fails(self, body: Any, message: Message) -> None:
            raise clihelper.Reject('no')

    with Harness(Failing, CONFIG) as harness:
        done = harness.deliver(b'', queue='q', type='a')
    assert done.reason == 'rejected'
    assert isinstance(done.error, clihelper.Reject)


def test_the_routing_key_is_that_of_the_first_run() -> None:
    with Harness(WithRest, CONFIG) as harness:
        done = harness.deliver(
            b'', queue='q', type='c', routing_key='q', reply_to='replies', attempts=2,
            headers={'x-clihelper-routing-key': 'x.y'})
    assert done.reply.body == 'c_of_x'


def test_a_subclass_comes_first_and_what_it_overrides_stays_in_place() -> None:
    class Sub(WithRest):
        @clihelper.handles(type='b')
        def mine(self, body: Any, message: Message) -> str:
            return 'mine'

        @clihelper.handles(type='e')
        def c_of_x(self, body: Any, message: Message) -> str:
            return 'e'

        def other_c(self, body: Any, message: Message) -> str:
            return f'not {super().other_c(body, message)}'

        in_r = None  # type: ignore[assignment]

    with Harness(Sub, CONFIG) as harness:
        names = [each.name for each in harness.controller.handlers()]
        assert names == ['mine', 'c_of_x', 'a_or_b', 'other_c', 'on_message']
        for kind, name in (('b', 'mine'), ('a', 'a_or_b'), ('c', 'not other_c'), ('e', 'e')):
            done = harness.deliver(
                b'', queue='r', type=kind, routing_key='x', reply_to='replies')
            assert done.reply.body == name


def test_handlers_of_a_mixin_count() -> None:
    class Mixin:
        @clihelper.handles(type='a')
        def mixed(self, body: Any, message: Message) -> str:
            return 'mixed'

    class Consumer(clihelper.ConsumerController, Mixin):
        pass

    with Harness(Consumer, CONFIG) as harness:
        assert harness.deliver(b'', queue='q', type='a', reply_to='x').reply.body == 'mixed'
        assert [str(each) for each in harness.controller.handlers()] == ['mixed: type a']


def test_a_decorated_method_stays_a_handler() -> None:
    def logged(method: Any) -> Any:
        @functools.wraps(method)
        def call(self: Any, *arguments: Any) -> Any:
            return f'logged {method(self, *arguments)}'

        return call

    class Decorated(clihelper.ConsumerController):
        @logged
        @clihelper.handles(type='a')
        def handle(self, body: dict[str, Any], message: Message) -> str:
            return 'handle'

    with Harness(Decorated, CONFIG) as harness:
        done = harness.deliver(b'', queue='q', type='a', reply_to='x')
        assert done.reply.body == 'logged handle'


def test_a_queue_in_partitions_is_named_without_a_number() -> None:
    config = 'AMQP: {url: "memory://", queues: {q: {partitions: 3}, r: }, retry: {attempts: 1}}'

    class Consumer(clihelper.ConsumerController):
        @clihelper.handles(queue='q')
        def of_q(self, body: Any, message: Message) -> str:
            return 'of_q'

    with Harness(Consumer, config) as harness:
        assert harness.deliver(b'', queue='q.2', reply_to='x').reply.body == 'of_q'
        assert harness.deliver(b'', queue='r', reply_to='x').reason == 'unrouted'


class Typed:
    """A message of some type."""

    queue, routing_key = 'q', ''

    def __init__(self, kind: str) -> None:
        self.type = kind
        self.delivery = self
        self.packed = properties.encode({'type': kind})


def test_what_is_remembered_is_bounded() -> None:
    handlers = Handlers([Handler('a', [Route(None, 'a', None)])], Handler('on_message'))
    for number in range(3 * MOST_CHOICES):
        handlers.find(Typed(f't{number}'))  # type: ignore[arg-type]
        assert len(handlers._choices) <= MOST_CHOICES
    assert handlers.find(Typed('a')).name == 'a'  # type: ignore[arg-type]
    with pytest.raises(Unrouted):
        Handlers(handlers.routed, None).find(Typed('b'))  # type: ignore[arg-type]


# What is wrong with one.


async def coroutine(self: Any, body: Any, message: Any) -> None:
    pass


def generator(self: Any, body: Any, message: Any) -> Any:
    yield


def plain(self: Any, body: Any, message: Any) -> None:
    pass


def too_few(self: Any, body: Any) -> None:
    pass


def too_many(self: Any, body: Any, message: Any, more: Any) -> None:
    pass


def by_keyword(self: Any, body: Any, message: Any, *, more: Any) -> None:
    pass


def any_number(self: Any, *arguments: Any, more: Any = None) -> None:
    pass


def of(function: Any) -> Any:
    """A handler of the messages of type a, without a change of the function."""
    copied = type(function)(function.__code__, function.__globals__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return clihelper.handles(type='a')(copied)


def sets_its_own(self: Any) -> None:
    self.on_message = print


CALLED = 'could not be called: it is called as'


@pytest.mark.parametrize(('base', 'methods', 'line'), [
    (clihelper.ConsumerController, {'on_a': of(coroutine)},
     'Odd.on_a is a coroutine function, which would never be run: only that of an'
     ' AsyncConsumerController may be'),
    (clihelper.ConsumerController, {'on_a': of(generator)}, 'Odd.on_a is a generator function, '),
    (clihelper.AsyncConsumerController, {'on_a': of(generator)}, 'Odd.on_a is a generator'),
    (clihelper.ConsumerController, {'on_a': of(too_few)},
     f'Odd.on_a {CALLED} on_a(self, body, message)'),
    (clihelper.ConsumerController, {'on_a': of(too_many)}, f'Odd.on_a {CALLED} on_a('),
    (clihelper.ConsumerController, {'on_a': of(by_keyword)}, f'Odd.on_a {CALLED} on_a('),
    (clihelper.ConsumerController, {'on_message': too_few},
     f'Odd.on_message {CALLED} on_message(self, body, message)'),
    (clihelper.ConsumerController, {'on_messages': plain},
     f'Odd.on_messages {CALLED} on_messages(self, messages)'),
    (clihelper.ConsumerController, {'on_a': of(plain), 'on_messages': too_few},
     'Odd has both on_messages and on_a, a handler of certain messages: '),
    (clihelper.ConsumerController, {'on_sighup': of(plain)}, 'Odd.on_sighup is called for other'),
    (clihelper.ConsumerController, {}, 'Odd has no handler of messages: neither on_message nor'
     ' on_messages, nor a method with clihelper.handles'),
    (clihelper.AsyncConsumerController, {}, 'Odd has no handler of messages: '),
    (clihelper.Controller, {'on_a': of(plain)},
     'Odd.on_a would never be called: only a ConsumerController has messages'),
    (clihelper.IOLoopController, {'on_a': of(plain)}, 'Odd.on_a would never be called: '),
])
def test_one_that_cannot_be_called_is_an_error_at_the_start(
    base: type, methods: dict[str, Any], line: str
) -> None:
    cls = type('Odd', (base,), methods)
    with pytest.raises(Error) as caught, Harness(cls, CONFIG):
        pass
    assert str(caught.value).startswith(line)
    assert (caught.value.status, str(caught.value).count('\n')) == (1, 0)


@pytest.mark.parametrize('methods', [
    {'on_a': of(any_number)}, {'on_a': staticmethod(of(lambda body, message: None))},
    {'on_a': of(plain), 'on_mesage': of(plain)}, {'on_message': any_number},
    {'_setup': sets_its_own},
    {'_loop': lambda self: None},
])
def test_what_can_be_called_is_no_error(methods: dict[str, Any]) -> None:
    with Harness(type('Fine', (clihelper.ConsumerController,), methods), CONFIG):
        pass


@pytest.mark.parametrize('queues', ['{}', '{q: {consume: false}}'])
def test_without_a_queue_no_handler_is_needed(queues: str) -> None:
    config = f'AMQP: {{url: "memory://", queues: {queues}}}'
    with Harness(clihelper.ConsumerController, config):
        pass


@pytest.mark.parametrize(('queue', 'end'), [
    ('ordres', '; did you mean orders?'), ('declared', ''), ('', '')])
def test_a_queue_that_is_not_consumed_is_a_fault_of_the_configuration(
    queue: str, end: str
) -> None:
    class Odd(clihelper.ConsumerController):
        @clihelper.handles(queue=queue)
        def on_b(self, body: Any, message: Any) -> None:
            pass

    config = 'AMQP: {url: "memory://", queues: {orders: , declared: {consume: false}}}'
    with pytest.raises(ConfigurationError) as caught, Harness(Odd, config):
        pass
    assert caught.value.faults[0].endswith(
        f'AMQP.queues: Odd.on_b handles queue {queue}, but no queue {queue!r} is consumed{end}')


@pytest.mark.parametrize('given', [{}, {'type': 3}, {'queue': ['a']}])
def test_what_a_handler_is_for_has_to_be_said(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match='handles: '):
        clihelper.handles(**given)


# In programs, on RabbitMQ.


class Handling(Work):
    def run(self, kind: str) -> Any:  # type: ignore[override]
        return Program([sys.executable, PROGRAM, '-c', str(self.file), '-f'],
                       env={'KIND': kind})

    def send_json(self, body: Any, **properties: Any) -> None:
        kombu.Producer(self.channel).publish(
            body, routing_key=self.queue, serializer='json', **properties)

    def wait_notes(self, wanted: list[list[str]]) -> None:
        end = time.monotonic() + 20
        while sorted(self.notes()) != sorted(wanted):
            assert time.monotonic() < end, self.notes()
            time.sleep(0.02)


@pytest.fixture
def work(tmp_path: Path, broker: Any, queue_name: str) -> Any:
    work = Handling(tmp_path, broker, queue_name)
    yield work
    work.close()


@with_bodies
@pytest.mark.parametrize(('kind', 'keys', 'workers'), [
    ('one', '', 1), ('one', '', 2), ('threads', 'threads: 3', 1), ('coroutines', '', 1)])
def test_each_loop_chooses_and_converts(work: Any, kind: str, keys: str, workers: int) -> None:
    work.configure(daemon=f'workers: {workers}', amqp=keys)
    headers = {'x-clihelper-routing-key': 'order.new.eu'}
    with work.run(kind) as program:
        program.wait_ready(30)
        work.send_json({'number': 1}, type='order.paid')
        work.send_json({'number': 'secret'}, type='order.paid')
        work.send_json([{'number': 2}, {'number': 3}], headers=headers)
        work.send_json({'number': 4}, type='order.gone')
        work.wait_notes([['paid', '1', 'Order'], ['eu', '2', '3']])
        dead = {letter.headers['x-clihelper-reason']: letter for letter in work.wait_dead(2)}
        assert program.stop() == 0
    assert set(dead) == {'invalid', 'unrouted'}
    assert dead['invalid'].headers['x-clihelper-message'].startswith('body.number: ')
    assert all('secret' not in str(each) for each in dead['invalid'].headers.values())
    assert 'secret' not in '\n'.join(program.lines)
    assert 'invalid: body.number: ' in '\n'.join(program.lines)


@with_bodies
def test_a_batch_goes_on_without_what_is_invalid(work: Any) -> None:
    work.configure(daemon='', amqp='batch: {size: 3, wait: 60}')
    with work.run('batches') as program:
        program.wait_ready(30)
        for number in (1, 'secret', 3):
            work.send_json({'number': number})
        work.wait_notes([['batch', '1', 'Order'], ['batch', '3', 'Order']])
        (letter,) = work.wait_dead(1)
        assert program.stop() == 0
    assert letter.headers['x-clihelper-reason'] == 'invalid'


@with_bodies
def test_check_lists_the_handlers_if_asked(tmp_path: Path) -> None:
    (tmp_path / 'app.yml').write_text('AMQP: {url: "memory://", queues: {q: }}')

    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run([sys.executable, PROGRAM, '-c', 'app.yml', *words], cwd=tmp_path,
                              capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    lines = ('Orders.on_paid: type order.paid -> Order\n'
             'Orders.on_eu: routing key order.*.eu -> list[Order]\n')
    assert run('--check') == (0, 'app.yml: ok\n', '')
    assert run('--check', '-v') == (0, f'{lines}app.yml: ok\n', '')
    assert run('--check', '--verbose') == (0, f'{lines}app.yml: ok\n', '')
    assert run('-v') == (
        2, '', 'handling: argument -v/--verbose: only with --check (see handling --help)\n')
