"""What is around each run of a handler: ``around_message`` and ``around_messages``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from pathlib import Path

import kombu
import pytest

import clihelper
from clihelper.errors import Error
from clihelper.testing import Harness, Outcome, Program

CONFIG = 'AMQP: {url: "memory://", queues: {q: }, retry: {attempts: 2, delay: 3}}'
BATCH = CONFIG[:-1] + ', batch: {size: 4}}'
PROGRAM = str(Path(__file__).parent / 'programs' / 'surrounded.py')


class Noting:
    """Notes what happens; ``leaving`` is what its context raises at its end."""

    leaving: BaseException | None = None
    swallows: tuple[type[BaseException], ...] = ()

    @contextlib.contextmanager
    def noted(self, around, handled):
        with around(handled):
            self.notes.append('enter')
            try:
                with contextlib.suppress(*self.swallows):
                    yield
            finally:
                self.notes.append('exit')
            if self.leaving is not None:
                raise self.leaving

    def around_message(self, message):
        return self.noted(super().around_message, message)

    def around_messages(self, messages):
        return self.noted(super().around_messages, messages)

    def note(self, body):
        self.notes.append(body)
        if body == 'fail':
            raise ValueError(body)
        return object() if body == 'unencodable' else 'reply'


class Plain(Noting, clihelper.ConsumerController):
    def on_message(self, body, message):
        return self.note(body)


class Coroutines(Noting, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        await asyncio.sleep(0)
        return self.note(body)


class Batches(Noting, clihelper.ConsumerController):
    def on_messages(self, messages):
        for message in messages:
            self.note(message.body)


class AsyncBatches(Noting, clihelper.AsyncConsumerController):
    async def on_messages(self, messages):
        await asyncio.sleep(0)
        for message in messages:
            self.note(message.body)


@pytest.fixture(params=[Plain, Coroutines, Batches, AsyncBatches])
def harness(request):
    batches = 'Batches' in request.param.__name__
    with Harness(request.param, BATCH if batches else CONFIG) as harness:
        harness.controller.notes = []
        yield harness


@pytest.fixture(params=[Plain, Coroutines])
def single(request):
    with Harness(request.param, CONFIG) as harness:
        harness.controller.notes = []
        yield harness


def test_it_is_around_each_run(harness):
    assert harness.deliver('a').outcome is Outcome.ACK
    assert harness.deliver('fail').outcome is Outcome.RETRY
    assert harness.controller.notes == ['enter', 'a', 'exit', 'enter', 'fail', 'exit']


def test_it_is_not_around_a_body_that_cannot_be_read(harness):
    delivered = harness.deliver(b'{', content_type='application/json')
    assert delivered.reason == 'undecodable'
    assert harness.controller.notes == []


def test_what_it_raises_at_its_end_is_a_failure_of_the_message(harness):
    harness.controller.leaving = OSError('no space')
    first = harness.deliver('a', reply_to='r')
    assert first.outcome is Outcome.RETRY
    assert first.error is harness.controller.leaving
    assert [each.routing_key for each in first.settling] != ['r']  # nobody has got a reply
    assert harness.deliver('a', attempts=2).reason == 'exception'
    harness.controller.leaving = clihelper.Reject('no')
    assert harness.deliver('a').reason == 'rejected'
    harness.controller.leaving = clihelper.Requeue()
    assert harness.deliver('a').outcome is Outcome.REQUEUE


def test_what_it_suppresses_has_not_been_raised(harness):
    harness.controller.swallows = (ValueError,)
    delivered = harness.deliver('fail', reply_to='r')
    assert delivered.outcome is Outcome.ACK
    assert delivered.error is None
    assert delivered.settling == []


def test_a_reply_is_encoded_before_it_is_left(single):
    assert single.deliver('unencodable', reply_to='r').outcome is Outcome.RETRY
    single.controller.swallows = (TypeError,)
    assert single.deliver('unencodable', reply_to='r').outcome is Outcome.ACK
    assert single.deliver('a', reply_to='r').reply.body == 'reply'


def test_halves_of_a_batch_have_their_own():
    with Harness(Batches, BATCH) as harness:
        harness.controller.notes = []
        found = harness.deliver_batch(['a', 'b', 'fail', 'c'])
    assert [each.outcome for each in found] == [
        Outcome.ACK, Outcome.ACK, Outcome.RETRY, Outcome.ACK]
    assert harness.controller.notes == [
        'enter', 'a', 'b', 'fail', 'exit', 'enter', 'a', 'b', 'exit',
        'enter', 'fail', 'exit', 'enter', 'fail', 'exit', 'enter', 'c', 'exit']


@pytest.mark.parametrize('asynchronous', [False, True])
def test_on_the_ioloop_it_may_be_either(asynchronous):
    notes = []

    class Either(clihelper.AsyncConsumerController):
        async def on_message(self, body, message):
            notes.append(body)

        if asynchronous:
            @contextlib.asynccontextmanager
            async def around_message(self, message):
                async with super().around_message(message):
                    await asyncio.sleep(0)
                    yield
                    notes.append('left')
        else:
            @contextlib.contextmanager
            def around_message(self, message):
                with super().around_message(message):
                    yield
                    notes.append('left')

    with Harness(Either, CONFIG) as harness:
        assert harness.deliver('a').outcome is Outcome.ACK
    assert notes == ['a', 'left']


@pytest.mark.parametrize('body', ['returns', 'raises'])
def test_a_process_that_the_handler_forks_does_not_leave_it(tmp_path, body):
    class Forking(clihelper.ConsumerController):
        @contextlib.contextmanager
        def around_message(self, message):
            try:
                yield
            finally:
                with open(tmp_path / 'left', 'a') as file:
                    file.write(f'{os.getpid()}\n')

        def on_message(self, body, message):
            child = os.fork()
            if not child:
                if body == 'raises':
                    raise SystemExit(3)
                return
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == (3 if body == 'raises' else 0)

    with Harness(Forking, CONFIG) as harness:
        assert harness.deliver(body).outcome is Outcome.ACK
    assert (tmp_path / 'left').read_text() == f'{os.getpid()}\n'


def test_what_is_no_context_manager_is_a_failure_of_the_message(caplog):
    class Odd(clihelper.ConsumerController):
        def around_message(self, message):
            return 5

        def on_message(self, body, message):
            raise AssertionError

    with Harness(Odd, CONFIG) as harness:
        delivered = harness.deliver('a')
    assert delivered.outcome is Outcome.RETRY
    assert str(delivered.error) == (
        'around_message returned an object of type int, which is not a context manager')


def generator(self, message):
    yield


async def async_generator(self, message):
    yield


async def coroutine(self, message):
    pass


SINGLE, ASYNC = clihelper.ConsumerController, clihelper.AsyncConsumerController


@pytest.mark.parametrize(('base', 'methods', 'line'), [
    (SINGLE, {'around_message': generator},
     'Odd.around_message is a generator function, which returns no context manager: decorate one'
     ' that has a yield with @contextlib.contextmanager'),
    (ASYNC, {'around_message': async_generator},
     'Odd.around_message is a generator function, which returns no context manager: decorate one'
     ' that has a yield with @contextlib.asynccontextmanager'),
    (ASYNC, {'around_message': coroutine},
     'Odd.around_message is a coroutine function, which returns no context manager: decorate one'
     ' that has a yield with @contextlib.asynccontextmanager'),
    (SINGLE, {'around_message': contextlib.asynccontextmanager(async_generator)},
     'Odd.around_message is asynchronous: only that of an AsyncConsumerController may be'),
    (SINGLE, {'around_mesage': print},
     'Odd.around_mesage would never be called; did you mean around_message?'),
    (SINGLE, {'around_messages': contextlib.contextmanager(generator)},
     'Odd.around_messages would never be called: on_message has around_message'),
    (SINGLE, {'on_message': None, 'on_messages': print,
              'around_message': contextlib.contextmanager(generator)},
     'Odd.around_message would never be called: on_messages has around_messages'),
])
def test_what_would_not_be_around_it_is_an_error_at_the_start(base, methods, line):
    methods = {'on_message': lambda self, body, message: None, **methods}
    if methods['on_message'] is None:
        del methods['on_message']
    with pytest.raises(Error) as raised, Harness(type('Odd', (base,), methods), CONFIG):
        pass
    assert str(raised.value) == line


# With a broker, and a database.


class Shop:
    """A queue, the program that consumes it, and its database."""

    def __init__(self, folder, broker, queue, amqp):
        self.queue = queue
        self.database = folder / 'shop.sqlite'
        self.file = folder / 'shop.yml'
        self.file.write_text(
            f'Application: {{database: {self.database}}}\n'
            f'AMQP:\n  url: {broker.url()}\n  {amqp}\n'
            f'  retry: {{attempts: 2, delay: 0.01}}\n  queues:\n    {queue}:\n'
        )
        self._connection = kombu.Connection(broker.url())
        self.channel = self._connection.channel()

    def run(self):
        return Program([sys.executable, PROGRAM, '-c', self.file, '-f'])

    def send(self, *bodies):
        producer = kombu.Producer(self.channel)
        for body in bodies:
            producer.publish(body, routing_key=self.queue, content_type='text/plain')

    def wait_empty(self):
        """Until each message is acknowledged, without waiting for the program to end."""
        end = time.monotonic() + 20
        while self.channel.queue_declare(f'{self.queue}.dead', passive=True).message_count < 2:
            assert time.monotonic() < end
            time.sleep(0.02)

    def shipped(self):
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return sorted(name for name, in connection.execute('select name from shipped'))

    def close(self):
        self._connection.close()


KINDS = {'one': '', 'threads': 'threads: 3', 'coroutines': 'concurrency: 3',
         'batches': 'batch: {size: 5, wait: 0.05}'}


@pytest.mark.parametrize('kind', KINDS)
def test_a_session_is_committed_before_its_message_is_acknowledged(
    kind, tmp_path, broker, queue_name, monkeypatch
):
    monkeypatch.setenv('KIND', kind)
    shop = Shop(tmp_path, broker, queue_name, KINDS[kind])
    names = [f'm{number}' for number in range(20)]
    with contextlib.closing(shop), shop.run() as program:
        program.wait_ready(30)
        shop.send(*names[:10], 'fail', *names[10:])
        shop.send('m0')  # whose key the database refuses when its session ends
        shop.wait_empty()
        assert program.stop() == 0
        assert shop.shipped() == sorted(names)
        assert shop.channel.queue_declare(queue_name, passive=True).message_count == 0
        reasons = {}
        for _ in range(2):
            letter = shop.channel.message_to_python(
                shop.channel.basic_get(f'{queue_name}.dead', no_ack=True))
            reasons[letter.body] = letter.headers['x-clihelper-exception']
    assert reasons == {'fail': 'ValueError', 'm0': 'IntegrityError'}


def test_a_coroutine_that_takes_too_long_leaves_its_session(
    tmp_path, broker, queue_name, monkeypatch
):
    monkeypatch.setenv('KIND', 'coroutines')
    shop = Shop(tmp_path, broker, queue_name, 'handler_timeout: 0.5')
    with contextlib.closing(shop), shop.run() as program:
        program.wait_ready(30)
        shop.send('slow', 'quick')
        program.wait_line('rolled back slow', 20)
        program.wait_line('rolled back slow', 20)
        program.wait_line('dead-lettered a message .* timeout', 20)
        assert program.stop() == 0
        assert shop.shipped() == ['quick']
