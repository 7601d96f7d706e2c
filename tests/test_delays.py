"""Publishing with a delay: the message waits in the broker."""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from typing import TYPE_CHECKING, Any

import kombu
import pytest

import clihelper
from clihelper import testing
from clihelper.amqp.async_client import AsyncClient
from clihelper.amqp.client import Client
from clihelper.amqp.connection import Connection
from clihelper.amqp.partitions import Partitions
from clihelper.amqp.retries import YOUNG
from clihelper.amqp.waiting import BrokerWait
from clihelper.testing.harness import _Signals
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAY = 0.5


@contextlib.contextmanager
def client_of(url: str, *, is_running: Any = lambda: True) -> Iterator[Client]:
    signals = _Signals()

    def connect() -> Connection:
        connection = Connection([url], 0, 'test')
        connection.wait_for = BrokerWait(signals, is_running).wait
        return connection

    client = Client(connect(), contextlib.nullcontext, connect)
    try:
        yield client
    finally:
        client.close()
        signals.close()


@pytest.fixture
def client(broker: Any) -> Iterator[Client]:
    with client_of(broker.url()) as client:
        yield client


@pytest.fixture
def channel(broker: Any) -> Iterator[Any]:
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def queue(channel: Any, queue_name: str) -> str:
    return str(channel.queue_declare(queue_name, durable=True, auto_delete=False).queue)


def wait_for(channel: Any, queue: str, count: int = 1) -> list[Any]:
    """The next messages in a queue."""
    arrived: list[Any] = []
    tag = channel.basic_consume(queue, no_ack=True, callback=arrived.append)
    while len(arrived) < count:
        channel.connection.drain_events(timeout=20)
    channel.basic_cancel(tag)
    return [channel.message_to_python(each) for each in arrived]


def test_a_message_arrives_after_its_delay_and_not_before(
    client: Client, channel: Any, queue: str
) -> None:
    begun = time.monotonic()
    client.publish('to make the queue', '', queue, {}, delay=DELAY)
    assert time.monotonic() - begun >= YOUNG  # until the new queue is safe
    wait_for(channel, queue)
    begun = time.monotonic()
    client.publish({'n': 1}, '', queue, {'headers': {'a': 1}, 'priority': 3}, delay=DELAY)
    published = time.monotonic()
    assert published - begun < DELAY
    (message,) = wait_for(channel, queue)
    arrived = time.monotonic()
    assert arrived - begun >= DELAY - 0.01
    assert message.payload == {'n': 1}
    assert message.headers['a'] == 1
    assert message.properties['delivery_mode'] == 2
    assert message.delivery_info['routing_key'] == queue
    # It waited in a queue that loses nothing.
    waiting = channel.queue_declare(f'{queue}.delay.0.5s', passive=True)
    assert waiting.message_count == 0


def test_a_new_queue_is_not_used_before_it_is_safe_and_a_stop_does_not_wait(
    broker: Any, channel: Any, queue: str
) -> None:
    with client_of(broker.url(), is_running=lambda: False) as client:
        begun = time.monotonic()
        client.publish('x', '', queue, {}, delay=60)
        assert time.monotonic() - begun < 2
    assert channel.queue_declare(f'{queue}.delay.60s', passive=True).message_count == 1


def test_a_delay_is_rounded_up_to_two_digits(client: Client, channel: Any, queue: str) -> None:
    client.publish('x', '', queue, {}, delay=3661)
    assert channel.queue_declare(f'{queue}.delay.3700s', passive=True).message_count == 1


@pytest.mark.parametrize(
    ('how', 'error', 'said'),
    [
        ({'exchange': 'shop', 'delay': 1}, ValueError, "not for exchange 'shop'"),
        ({'delay': -1}, ValueError, 'delay: expected seconds from 0 up to 2592000, got -1'),
        ({'delay': float('nan')}, ValueError, 'delay: expected seconds'),
        ({'delay': 31 * 86400}, ValueError, 'up to 2592000'),
        ({'delay': '5'}, TypeError, 'delay: expected seconds, got str'),
        ({'delay': True}, TypeError, 'delay: expected seconds, got bool'),
        ({'delay': 5, 'expiration': 1}, ValueError, 'delay: .*expiration'),
        ({'delay': 5, 'routing_key': 'q' * 250}, ValueError, 'too long'),
    ],
)
def test_a_delay_that_cannot_be_is_an_error(how: dict[str, Any], error: Any, said: str) -> None:
    class Later(clihelper.Controller):
        def _process(self) -> None:
            self.publish('x', **{'routing_key': 'jobs', **how})

    with testing.Harness(Later) as harness, pytest.raises(error, match=said) as caught:
        harness.tick()
    assert '\n' not in str(caught.value)


def test_a_queue_that_is_missing_is_an_error_unless_that_is_wanted(
    client: Client, channel: Any, queue_name: str
) -> None:
    with pytest.raises(clihelper.PublishError, match='no queue gets it') as caught:
        client.publish('x', '', queue_name, {}, delay=DELAY)
    assert caught.value.unroutable
    client.publish('y', '', queue_name, {}, delay=DELAY, mandatory=False)
    with pytest.raises(clihelper.PublishError):  # it is looked for again
        client.publish('x', '', queue_name, {}, delay=DELAY)


def test_a_queue_that_somebody_has_deleted_is_made_again(
    client: Client, channel: Any, queue: str
) -> None:
    client.publish('a', '', queue, {}, delay=60)
    channel.queue_delete(f'{queue}.delay.60s')
    with pytest.raises(clihelper.PublishError, match='delay.60s.*no queue gets it'):
        client.publish('b', '', queue, {}, delay=60)
    client.publish('c', '', queue, {}, delay=60)
    assert channel.queue_declare(f'{queue}.delay.60s', passive=True).message_count == 1


def test_a_lost_connection_is_made_again(broker: Any, channel: Any, queue: str) -> None:
    with Proxy(broker.port) as proxy, client_of(proxy.url) as client:
        client.publish('a', '', queue, {}, delay=60)
        proxy.reset()
        select.select([client.fileno()], [], [], 10)  # until it has arrived
        client.publish('b', '', queue, {}, delay=60)
    assert channel.queue_declare(f'{queue}.delay.60s', passive=True).message_count == 2


def test_a_pipeline_delays_some(client: Client, channel: Any, queue: str) -> None:
    with client.pipeline() as pipeline:
        pipeline.publish('later', routing_key=queue, delay=DELAY)
        pipeline.publish('now', routing_key=queue)
    found = wait_for(channel, queue, 2)
    assert [each.payload for each in found] == ['now', 'later']


def test_a_partition_is_chosen_first(client: Client, channel: Any, queue_name: str) -> None:
    queues: Any = {'jobs': {'name': queue_name, 'partitions': 2}}
    client.partitions = Partitions(queues)
    names = client.partitions.names(queue_name)
    for name in names:
        channel.queue_declare(name, durable=True, auto_delete=False)
    chosen, _ = client.partitions.route('', queue_name, {'partition_key': 'a'})
    client.publish('x', '', queue_name, {'partition_key': 'a'}, delay=60)
    assert channel.queue_declare(f'{chosen}.delay.60s', passive=True).message_count == 1


def test_with_declare_false_the_queue_must_exist(
    client: Client, channel: Any, queue: str
) -> None:
    client.declares = False
    with pytest.raises(clihelper.PublishError, match='declare: false.*no queue') as caught:
        client.publish('x', '', queue, {}, delay=60)
    assert caught.value.refused
    client.publish('next', '', queue, {})


def test_memory_has_no_delays(queue_name: str) -> None:
    with kombu.Connection('memory://localhost') as connection:
        connection.SimpleQueue(queue_name).close()
        with client_of('memory://') as client:
            with pytest.raises(clihelper.PublishError, match='delay: only RabbitMQ') as caught:
                client.publish('x', '', queue_name, {}, delay=1)
            assert caught.value.refused
            client.publish('x', '', queue_name, {})


def test_coroutines_go_on_while_a_queue_is_made(broker: Any, channel: Any, queue: str) -> None:
    async def main() -> None:
        def connect() -> Connection:
            return Connection([broker.url()], 2, 'test')

        client = AsyncClient(connect(), asyncio.get_running_loop(), connect)
        try:
            later = [client.publish(n, '', queue, {}, delay=DELAY) for n in range(3)]
            async with asyncio.timeout(1.5):  # less than the new queue takes to be safe
                await client.publish('now', '', queue, {})
            await asyncio.gather(*later)
            with pytest.raises(ValueError, match='not for exchange'):
                client.publish('x', 'shop', 'x', {}, delay=1)
            with pytest.raises(clihelper.PublishError) as caught:
                await client.publish('x', '', 'nobody-there', {}, delay=1)
            assert caught.value.unroutable
            async with client.pipeline() as pipeline:
                await pipeline.publish('last', routing_key=queue, delay=DELAY)
        finally:
            client.close()

    asyncio.run(main())
    found = wait_for(channel, queue, 5)
    assert [each.payload for each in found] == ['now', 0, 1, 2, 'last']


@pytest.mark.parametrize('base', [clihelper.Controller, clihelper.IOLoopController])
def test_the_test_kit_says_how_something_was_published(base: type[clihelper.Controller]) -> None:
    class Later(base):  # type: ignore[misc, valid-type]
        def _process(self) -> Any:
            self.publish('a', routing_key='jobs', delay=60)
            self.publish('b', 'events', 'x', mandatory=False)
            return self.publish('c', routing_key='jobs', expiration=1.5)

    with testing.Harness(Later) as harness:
        harness.tick()
        first, second, third = harness.published
    assert (first.routing_key, first.delay, first.mandatory) == ('jobs', 60, True)
    assert (second.exchange, second.delay, second.mandatory) == ('events', 0, False)
    assert third.properties['expiration'] == '1500'
