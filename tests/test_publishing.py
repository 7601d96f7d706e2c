"""Publishing, calling, counting and getting, on RabbitMQ: from Python, and as programs do it."""

from __future__ import annotations

import contextlib
import select
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import kombu
import pytest

import clihelper
from clihelper.amqp.client import Client
from clihelper.amqp.connection import Connection
from clihelper.amqp.waiting import BrokerWait
from clihelper.testing import Program
from clihelper.testing.harness import _Signals
from tests.proxy import Proxy

PROGRAM = str(Path(__file__).parent / 'programs' / 'asking.py')


@contextlib.contextmanager
def client_of(url, is_running=lambda: True):
    """A client, and the signals that end its waiting."""
    signals = _Signals()

    def connect():
        connection = Connection([url], 0, 'test')
        connection.wait_for = BrokerWait(signals, is_running).wait
        return connection

    client = Client(connect(), contextlib.nullcontext, connect)
    try:
        yield client, signals
    finally:
        client.close()
        signals.close()


@pytest.fixture
def client(broker):
    with client_of(broker.url()) as (client, _):
        yield client


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def queue(channel, queue_name):
    return channel.queue_declare(queue_name, durable=True, auto_delete=False).queue


def take(channel, queue):
    found = []
    while (message := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(channel.message_to_python(message))
    return found


# publish

def test_a_message_is_in_its_queue_when_publish_returns(client, channel, queue):
    client.publish({'a': [1, 'é']}, '', queue, {})
    assert channel.queue_declare(queue, passive=True).message_count == 1
    (message,) = take(channel, queue)
    assert message.payload == {'a': [1, 'é']}
    assert message.content_type == 'application/json'
    assert message.properties['delivery_mode'] == 2


def test_all_properties_arrive(client, channel, queue):
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    given = {
        'content_type': 'text/x', 'content_encoding': 'utf-8', 'delivery_mode': 1, 'priority': 3,
        'correlation_id': 'c', 'reply_to': 'r', 'message_id': 'm', 'type': 't', 'app_id': 'a',
        'user_id': 'guest', 'expiration': 60, 'timestamp': when,
    }  # fmt: skip
    headers = {'s': 'x', 'n': 7, 'l': [1, {'a': True}], 'when': when.replace(tzinfo=None)}
    client.publish(b'\x00\xff', '', queue, {**given, 'headers': headers})
    (message,) = take(channel, queue)
    assert message.body == b'\x00\xff'
    assert message.headers == headers
    expected = given | {'expiration': '60000', 'timestamp': int(when.timestamp())}
    got = message.properties | {
        'content_type': message.content_type, 'content_encoding': message.content_encoding,
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected


@pytest.mark.parametrize(
    ('properties', 'said'),
    [
        ({'corelation_id': 'x'}, 'corelation_id'),
        ({'cluster_id': 'x'}, 'cluster_id'),
        ({'priority': 'high'}, 'priority: expected an int'),
        ({'priority': 256}, 'priority: expected a number from 0 to 255'),
        ({'prioritty': 1}, "did you mean 'priority'"),
        ({'dealy': 1}, "did you mean 'delay'"),
        ({'delivery_mode': 3}, 'delivery_mode: expected a number from 1 to 2'),
        ({'expiration': '60000'}, 'expiration: expected seconds, got str'),
        ({'expiration': -1}, 'expiration: expected seconds from 0'),
        ({'expiration': float('nan')}, 'expiration: expected seconds from 0'),
        ({'message_id': 7}, 'message_id: expected a str, got int'),
        ({'type': 'é' * 128}, 'type: longer than 255 bytes'),
        ({'headers': [1]}, 'headers: expected a mapping'),
        ({'timestamp': datetime(2026, 1, 2)}, 'timestamp: .*time zone'),  # noqa: DTZ001
        ({'headers': {'x': object()}}, 'cannot be encoded'),
        ({'timestamp': 'soon'}, 'timestamp: expected a datetime or seconds, got str'),
    ],
)
def test_a_property_that_cannot_be_said_is_an_error(client, queue, properties, said):
    with pytest.raises((TypeError, ValueError), match=said):
        client.publish('x', '', queue, properties)
    client.publish('next', '', queue, {})
    assert client.queue_depth(queue) == 1


def test_a_name_that_is_too_long_is_an_error(client, queue):
    with pytest.raises(ValueError, match='longer than 255 bytes'):
        client.publish('x', '', 'é' * 128, {})


@pytest.mark.parametrize('size', [0, 1, 131_064, 131_065, 3_000_000])
def test_bodies_of_any_size_arrive_whole(client, queue, size):
    body = bytes(range(256)) * (size // 256 + 1)
    client.publish(body[:size], '', queue, {})
    message = client.get(queue)
    assert message.raw == body[:size]
    message.ack()


def test_what_no_queue_gets_is_an_error(client, queue):
    with pytest.raises(clihelper.PublishError, match='no queue gets it') as caught:
        client.publish('x', '', 'nobody-there', {})
    assert caught.value.unroutable
    assert not caught.value.unknown
    client.publish('next', '', queue, {})


def test_what_need_not_have_a_queue_is_no_error(client, queue):
    client.publish('same', '', 'nobody-there', {}, mandatory=False)
    pipeline = client.pipeline()
    for number in range(400):
        pipeline.publish('same', routing_key='nobody-there', mandatory=number % 2)
    with pytest.raises(clihelper.PublishError) as caught:
        pipeline.flush()
    failed = [number for number, _ in caught.value.failed]
    assert failed == [*range(1, 400, 2)]  # and not their neighbours
    assert caught.value.unroutable
    with pytest.raises(clihelper.PublishError, match='no exchange'):
        client.publish('x', 'none', 'x', {}, mandatory=False)


def test_an_exchange_that_is_missing_is_an_error(client, queue):
    with pytest.raises(clihelper.PublishError, match="exchange 'none'.*no exchange 'none'"):
        client.publish('x', 'none', 'x', {})
    client.publish('next', '', queue, {})


def test_a_full_queue_refuses(client, channel, queue_name):
    arguments = {'x-max-length': 1, 'x-overflow': 'reject-publish'}
    channel.queue_declare(queue_name, durable=True, auto_delete=False, arguments=arguments)
    client.publish('x', '', queue_name, {})

    def fill():
        for _ in range(3):  # the limit is looked after a moment later
            client.publish('x', '', queue_name, {})

    with pytest.raises(clihelper.PublishError, match='the broker refuses it') as caught:
        fill()
    assert not caught.value.unknown


def test_an_absent_broker_is_an_error():
    with (
        client_of('amqp://guest:secret@127.0.0.1:1//') as (client, _),
        pytest.raises(clihelper.PublishError, match='refused') as caught,
    ):
        client.publish('x', '', 'x', {})
    assert 'secret' not in str(caught.value)


def test_a_connection_that_the_broker_has_closed_is_made_again(broker, client, queue_name):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        channel.queue_declare(queue_name, durable=True, auto_delete=False)
    client.publish(1, '', queue_name, {})
    broker.ctl('close_all_connections', 'test')
    client.publish(2, '', queue_name, {})
    assert client.queue_depth(queue_name) == 2


def test_a_connection_that_was_cut_is_made_again(broker, channel, queue):
    with Proxy(broker.port) as proxy, client_of(proxy.url) as (client, _):
        client.publish(1, '', queue, {})
        proxy.reset()
        select.select([client.fileno()], [], [], 10)  # until it has arrived
        client.publish(2, '', queue, {})
    assert [message.payload for message in take(channel, queue)] == [1, 2]


def test_a_stop_ends_the_wait_for_a_silent_broker(broker, queue):
    running = True
    with Proxy(broker.port) as proxy, client_of(proxy.url, lambda: running) as (client, signals):
        client.publish(1, '', queue, {})
        proxy.swallow()

        def stop():
            nonlocal running
            running = False
            signals.send(15)

        timer = threading.Timer(0.2, stop)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(clihelper.PublishError, match='before the stop') as caught:
            client.publish(2, '', queue, {})
        assert time.monotonic() - begun < 10  # and not the 30 s of a confirmation
        assert caught.value.unknown
        assert caught.value.stopped
        timer.join()


def test_threads_publish_side_by_side(client, channel, queue):
    def publish(n):
        for m in range(50):
            client.publish(f'{n}.{m}', '', queue, {})

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({message.payload for message in take(channel, queue)}) == 200


# pipeline

def test_all_of_a_pipeline_has_arrived_when_it_ends(client, channel, queue):
    with client.pipeline() as pipeline:
        for n in range(5000):
            pipeline.publish(str(n), routing_key=queue)
    assert [message.payload for message in take(channel, queue)] == [str(n) for n in range(5000)]


def test_a_pipeline_says_which_have_not_arrived(client, channel, queue):
    pipeline = client.pipeline()
    for n in range(2000):
        pipeline.publish('same', routing_key='nowhere' if n in (3, 1999) else queue)
    with pytest.raises(clihelper.PublishError, match='no queue gets it .and 1 more') as caught:
        pipeline.flush()
    assert caught.value.failed == [(3, 'no queue gets it'), (1999, 'no queue gets it')]
    assert not caught.value.unknown
    assert len(take(channel, queue)) == 1998


def test_a_pipeline_that_loses_the_broker_says_what_is_unknown(broker, queue):
    with Proxy(broker.port) as proxy, client_of(proxy.url) as (client, _):
        pipeline = client.pipeline()
        pipeline.publish('a', routing_key=queue)
        pipeline.publish('b', routing_key=queue)
        proxy.reset()
        with pytest.raises(clihelper.PublishError) as caught:
            pipeline.flush()
        assert [number for number, _ in caught.value.failed] == [0, 1]
        assert caught.value.unknown
        with client.pipeline() as pipeline:
            pipeline.publish('c', routing_key=queue)


def test_what_is_published_beside_a_pipeline_is_not_confused_with_it(client, queue):
    pipeline = client.pipeline()
    pipeline.publish('a', routing_key='nowhere')
    client.publish('b', '', queue, {})
    with client.pipeline() as inner:
        inner.publish('c', routing_key=queue)
    with pytest.raises(clihelper.PublishError) as caught:
        pipeline.flush()
    assert caught.value.failed == [(0, 'no queue gets it')]
    assert client.queue_depth(queue) == 2


def test_a_pipeline_that_is_left_by_an_exception_does_not_wait(client, queue):
    def fail():
        with client.pipeline() as pipeline:
            pipeline.publish('a', routing_key='nowhere')
            raise KeyError('mine')

    pytest.raises(KeyError, fail)
    client.publish('b', '', queue, {})


# call

@pytest.fixture
def answering(broker, queue):
    """A thread that answers requests in the queue: twice what it gets, or nothing."""
    ended = threading.Event()

    def answer(body, message):
        if body != 'silence':
            if body == 'late':
                ended.wait(0.3)
            kombu.Producer(message.channel).publish(
                body * 2, routing_key=message.properties['reply_to'],
                correlation_id=message.properties['correlation_id'],
            )  # fmt: skip
        message.ack()

    def run():
        with (
            kombu.Connection(broker.url()) as connection,
            kombu.Consumer(
                connection, kombu.Queue(queue, durable=True), callbacks=[answer],
            ),
        ):  # fmt: skip
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.05)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_call_returns_the_reply(client, queue, answering):
    assert client.call([1], '', queue, 10, {}) == [1, 1]
    assert client.call('ab', '', queue, 10, {'correlation_id': 'mine'}) == 'abab'


def test_a_call_that_nobody_answers_times_out(client, queue, answering):
    with pytest.raises(TimeoutError, match='answer'):
        client.call('silence', '', queue, 0.1, {})


def test_a_late_reply_is_not_taken_for_another(client, queue, answering):
    with pytest.raises(TimeoutError):
        client.call('late', '', queue, 0.1, {})
    assert client.call('next', '', queue, 10, {}) == 'nextnext'


def test_a_call_that_no_queue_gets_is_an_error_at_once(client):
    with pytest.raises(clihelper.PublishError, match='no queue gets it'):
        client.call('x', '', 'nobody-there', 60, {})


def test_a_call_needs_no_broker_beside_memory(queue_name):
    with kombu.Connection('memory://localhost') as connection:
        connection.SimpleQueue(queue_name).close()
        with client_of('memory://') as (client, _):
            with pytest.raises(TimeoutError):
                client.call('x', '', queue_name, 0.01, {})
            assert client.queue_depth(queue_name) == 1
            message = client.get(queue_name)
            assert message.body == 'x'
            message.ack()
            assert client.get(queue_name) is None


# queue_depth and get

def test_a_queue_that_is_missing_is_an_error(client, queue):
    with pytest.raises(LookupError, match="no queue 'none'"):
        client.queue_depth('none')
    with pytest.raises(LookupError, match="no queue 'none'"):
        client.get('none')
    with pytest.raises(LookupError, match="no queue 'qqq"):
        client.get('q' * 256)  # longer than AMQP can say
    assert client.queue_depth(queue) == 0
    assert client.get(queue) is None


def test_a_queue_that_belongs_to_another_cannot_be_asked(client, channel):
    queue = channel.queue_declare(exclusive=True).queue
    with pytest.raises(ConnectionError, match='exclusive'):
        client.queue_depth(queue)


def test_what_is_got_is_settled_once(client, queue):
    for n in range(3):
        client.publish(n, '', queue, {})
    first, second, third = (client.get(queue) for _ in range(3))
    assert [first.body, second.body, third.body] == [0, 1, 2]
    assert (first.queue, first.routing_key, first.redelivered) == (queue, queue, False)
    first.ack()
    first.requeue()
    second.reject()
    third.requeue()
    again = client.get(queue)
    assert (again.body, again.redelivered) == (2, True)
    assert client.queue_depth(queue) == 0


def test_what_is_got_and_not_settled_goes_back(broker, client, queue):
    with client_of(broker.url()) as (other, _):
        other.publish('x', '', queue, {})
        assert other.get(queue).body == 'x'
        assert client.get(queue) is None
    assert client.get(queue).body == 'x'


def test_a_message_that_is_settled_too_late_is_no_error(broker, queue, caplog):
    with Proxy(broker.port) as proxy, client_of(proxy.url) as (client, _):
        client.publish('x', '', queue, {})
        message = client.get(queue)
        proxy.reset()
        with contextlib.suppress(ConnectionError):  # the reset may come while the broker is asked
            client.queue_depth(queue)
        assert client.queue_depth(queue) in (0, 1)
        message.ack()
    assert 'it will be delivered again' in caplog.text


# As programs do it.

@pytest.mark.parametrize('kind', ['interval', 'ioloop'])
def test_a_program_that_does_not_consume_publishes(tmp_path, broker, channel, queue, kind):
    path = tmp_path / 'asking.yml'
    path.write_text(
        f'Application: {{wake_interval: 3600, queue: {queue}}}\nAMQP: {{url: {broker.url()}}}\n'
    )
    with Program([sys.executable, PROGRAM, '-c', str(path), '-f', kind]) as program:
        program.wait_line('got ')
        program.wait_line('got ')
        assert program.stop() == 0
    bodies = [message.payload for message in take(channel, queue)]
    numbers = [body['n'] for body in bodies if isinstance(body, dict)]
    if kind == 'interval':
        assert numbers == [2, 3, 4, 1, 2, 3, 4] or numbers == [1, 2, 3, 4, 1, 2, 3, 4]
        assert bodies[-1] == 'from _cleanup'
    else:
        assert numbers == [3, 4, 1, 2, 3, 4]
