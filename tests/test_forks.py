"""A connection in a child of the process that made it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import select
import sys
import textwrap
import threading

import pytest

from clihelper.amqp import forks
from clihelper.amqp.connection import Connection
from clihelper.testing import Program
from tests.forking import fork

# Python 3.12 and later warn of forks beside threads, and that is what is tried here.
pytestmark = pytest.mark.filterwarnings('ignore:.*fork')


@pytest.fixture
def connection(broker):
    connection = Connection([broker.url()], 1, 'test')
    connection.open()
    yield connection
    connection.drop()


@pytest.fixture
def channel(connection, queue_name):
    channel = connection.channel()
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    return channel


def in_child(function, timeout=10):
    """What *function* returns in a forked child, as text."""
    read, write = os.pipe()

    def say():
        try:
            said = str(function())
        except BaseException as error:
            said = f'{type(error).__name__}: {error}'
        os.write(write, said.encode())

    pid = fork(say)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], timeout)
        if not ready:
            os.kill(pid, 9)
        os.waitpid(pid, 0)
        assert ready, 'the child hangs'
        return os.read(read, 10_000).decode()
    finally:
        os.close(read)


def publish(connection, channel, key):
    data = connection.transport.encode_or_publish(channel, b'x', '', key, {})
    with connection.guard():
        connection.transport.write(data)


def goes_on(connection, channel, queue_name):
    """The parent's connection is as it was."""
    assert not connection.is_foreign
    publish(connection, channel, queue_name)
    connection.transport.get(channel, queue_name).ack()
    channel.queue_declare(queue_name, passive=True)  # the answer: nothing was wrong


USES = {
    'open': lambda connection, *_: connection.open(),
    'open_any': lambda connection, *_: connection.open_any(),
    'channel': lambda connection, *_: connection.channel(),
    'publish': lambda connection, channel, queue, _: publish(connection, channel, queue),
    'write': lambda connection, *_: connection.transport.write(b'x'),
    'get': lambda connection, channel, queue, _: connection.transport.get(channel, queue),
    'declare': lambda _, channel, queue, __: channel.queue_declare(queue, passive=True),
    'drain': lambda connection, *_: connection.drain(),
    'wait': lambda connection, *_: connection.wait(0),
    'fileno': lambda connection, *_: connection.fileno(),
    'close': lambda connection, *_: connection.close(),
    'close the channel': lambda _, channel, *__: channel.close(),
    'acknowledge': lambda _, __, ___, delivery: delivery.ack(),
    'reject': lambda _, __, ___, delivery: delivery.reject(),
    'requeue': lambda _, __, ___, delivery: delivery.requeue(),
    'recover': lambda connection, channel, *_: connection.transport.recover(channel),
}


@pytest.mark.parametrize('use', USES)
def test_each_use_of_it_is_an_error_in_a_child(connection, channel, queue_name, use):
    publish(connection, channel, queue_name)
    delivery = connection.transport.get(channel, queue_name)

    def child():
        assert connection.is_foreign
        USES[use](connection, channel, queue_name, delivery)

    said = in_child(child)
    pid = os.getpid()
    assert said.startswith('RuntimeError: the connection to the broker belongs to process ')
    assert f'process {pid}, not to its child' in said
    assert said.endswith('a child process needs a connection of its own')
    goes_on(connection, channel, queue_name)
    delivery.ack()
    assert connection.transport.get(channel, queue_name) is None
    assert channel.is_open


def test_a_child_leaves_it_without_a_word(connection, channel, queue_name):
    """Neither dropping it nor its being collected as garbage reaches the broker."""
    descriptor = connection.fileno()

    def child():
        nonlocal connection, channel
        with contextlib.suppress(OSError):
            return os.readlink(f'/proc/self/fd/{descriptor}')
        connection.drop()
        del connection, channel
        gc.collect()
        return 'gone'

    assert in_child(child) == 'gone'
    goes_on(connection, channel, queue_name)


def test_a_lock_that_another_thread_holds_holds_up_no_child(connection, channel, queue_name):
    acknowledger = connection.transport.acknowledger(channel, 100)
    acknowledger.add(1)
    held, ended = threading.Event(), threading.Event()

    def hold():
        with connection.transport._write_lock, acknowledger._lock:
            held.set()
            ended.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child():
        acknowledger.flush()  # nothing is pending here
        acknowledger.keep(2)
        acknowledger.add(3)
        connection.drop()
        publish(connection, channel, queue_name)

    try:
        assert in_child(child).startswith('RuntimeError: the connection to the broker belongs to')
    finally:
        ended.set()
        thread.join()
    acknowledger.forget()
    goes_on(connection, channel, queue_name)


def test_a_grandchild_names_the_process_that_made_it(connection):
    said = in_child(lambda: in_child(connection.channel))
    assert f'belongs to process {os.getpid()}, not to its child' in said


def test_one_that_is_made_in_the_child_is_its_own(broker, connection, channel, queue_name):
    def child():
        own = Connection([broker.url()], 1, 'test')
        own.open()
        its_channel = own.channel()
        publish(own, its_channel, queue_name)
        body = own.transport.get(its_channel, queue_name).body
        own.close()
        return body

    assert in_child(child) == "b'x'"
    goes_on(connection, channel, queue_name)


def test_one_that_is_not_open_is_foreign_too(broker):
    connection = Connection([broker.url()], 1, 'test')
    assert 'needs a connection of its own' in in_child(connection.open)
    connection.drop()


def test_a_process_of_multiprocessing_leaves_it_too(connection, channel, queue_name):
    process = multiprocessing.get_context('fork').Process(target=sys.exit)
    process.start()
    process.join(10)
    assert process.exitcode == 0
    goes_on(connection, channel, queue_name)


def test_what_is_gone_is_not_watched():
    class Owned:
        def disown(self):
            raise AssertionError

    number = len(forks._watched)
    owned = Owned()
    forks.watch(owned)
    assert len(forks._watched) == number + 1
    del owned
    assert len(forks._watched) == number


def test_a_child_that_ends_as_programs_do_leaves_it(broker, queue_name):
    """Exit handlers, destructors and all."""
    program = f'''
        import os, sys, threading
        from clihelper.amqp.connection import Connection
        connection = Connection([{broker.url()!r}], 1, 'test')
        connection.open()
        channel = connection.channel()
        pid = os.fork()
        if not pid:
            sys.exit(3)
        assert os.waitpid(pid, 0)[1] == 3 << 8
        channel.queue_declare({queue_name!r})
        print('declared', flush=True)
        connection.close()
    '''
    command = [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(program)]
    with Program(command) as running:
        running.wait_line('declared')
        assert running.wait() == 0
