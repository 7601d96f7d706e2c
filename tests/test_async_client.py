"""Publishing, calling, counting and getting on an event loop, which never waits meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time

import pytest

import clihelper
from clihelper.amqp import async_client
from clihelper.amqp.async_client import AsyncClient
from clihelper.amqp.connection import Connection
from tests.proxy import Proxy


@contextlib.asynccontextmanager
async def client_of(url):
    connect = functools.partial(Connection, [url], 2, 'test')
    client = AsyncClient(connect(), asyncio.get_running_loop(), connect)
    try:
        yield client
    finally:
        client.close()


@contextlib.asynccontextmanager
async def with_queue(broker, name):
    """A client, and a queue with that name."""
    async with client_of(broker.url()) as client:
        await client.open()
        client._connection.transport.channel().queue_declare(name, auto_delete=False)
        yield client


def test_many_coroutines_publish_and_each_knows_what_became_of_its_message(broker, queue_name):
    async def main():
        async with with_queue(broker, queue_name) as client:
            wanted = [client.publish(number, '', queue_name, {}) for number in range(500)]
            lost = [client.publish('x', '', 'no-such-queue', {}) for _ in range(3)]
            assert await asyncio.gather(*wanted) == [None] * 500
            for each in lost:
                with pytest.raises(clihelper.PublishError, match='no queue gets it') as raised:
                    await each
                assert raised.value.unroutable
            assert await client.queue_depth(queue_name) == 500

    asyncio.run(main())


def test_an_exchange_that_does_not_exist_concerns_only_what_is_published_to_it(
    broker, queue_name
):
    async def main():
        async with with_queue(broker, queue_name) as client:
            for _ in range(3):
                good = [client.publish('x', '', queue_name, {}) for _ in range(50)]
                bad = [client.publish('x', 'no-such-exchange', 'x', {}) for _ in range(2)]
                good += [client.publish('x', 'amq.direct', 'x', {}) for _ in range(2)]
                results = await asyncio.gather(*good, *bad, return_exceptions=True)
                assert results[:50] == [None] * 50
                assert [error.unroutable for error in results[50:52]] == [True, True]
                assert all('404' in str(error) for error in results[52:])
            assert await client.queue_depth(queue_name) == 150

    asyncio.run(main())


def test_what_cannot_be_encoded_is_refused_at_once(broker, queue_name):
    async def main():
        async with with_queue(broker, queue_name) as client:
            with pytest.raises(TypeError):
                client.publish(object(), '', queue_name, {})
            with pytest.raises((TypeError, ValueError)):
                await client.publish('x', '', queue_name, {'priority': 'high'})
            await client.publish('x', '', queue_name, {})

    asyncio.run(main())


def test_a_pipeline_says_what_failed_and_keeps_its_bound(broker, queue_name):
    async def main():
        async with with_queue(broker, queue_name) as client:
            async with client.pipeline() as pipeline:
                for number in range(2500):
                    await pipeline.publish(number, routing_key=queue_name)
                    assert len(pipeline._unconfirmed) <= async_client.WINDOW
            assert await client.queue_depth(queue_name) == 2500
            pipeline = client.pipeline()
            for key in ('nowhere', queue_name, 'nowhere'):
                await pipeline.publish('x', routing_key=key)
            with pytest.raises(clihelper.PublishError, match=r'no queue gets it \(and 1 more\)'):
                await pipeline.flush()

    asyncio.run(main())


def test_calls_get_their_own_replies(broker, queue_name):
    async def answer(client):
        while True:
            message = await client.get(queue_name)
            if message is None:
                await asyncio.sleep(0.01)
                continue
            message.ack()
            await client.publish(
                message.body * 2, '', message.reply_to,
                {'correlation_id': message.correlation_id})

    async def main():
        async with with_queue(broker, queue_name) as client, client_of(broker.url()) as server:
            task = asyncio.create_task(answer(server))
            calls = [client.call(number, '', queue_name, 10, {}) for number in range(20)]
            assert await asyncio.gather(*calls) == [number * 2 for number in range(20)]
            task.cancel()
            with pytest.raises(TimeoutError, match='no answer'):
                await client.call('x', '', queue_name, 0.1, {})

    asyncio.run(main())


def test_what_is_got_is_settled_or_goes_back(broker, queue_name):
    async def main():
        async with with_queue(broker, queue_name) as client:
            for body in ('one', 'two'):
                await client.publish(body, '', queue_name, {})
            first = await client.get(queue_name)
            assert first.body == 'one'
            first.ack()
            assert (await client.get(queue_name)).body == 'two'
            assert await client.get(queue_name) is None
            with pytest.raises(LookupError, match='there is no queue'):
                await client.get('no-such-queue')
            with pytest.raises(LookupError, match='there is no queue'):
                await client.queue_depth('x' * 300)
        async with client_of(broker.url()) as client:
            assert (await client.get(queue_name)).body == 'two'

    asyncio.run(main())


def test_without_a_broker_publishing_fails_and_it_is_tried_again(broker, queue_name):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]

    async def main():
        async with client_of(f'amqp://127.0.0.1:{port}//') as client:
            results = await asyncio.gather(
                *(client.publish('x', '', 'x', {}) for _ in range(3)), return_exceptions=True)
            assert all('refused' in str(error) for error in results)
            with pytest.raises(ConnectionError, match='refused'):
                await client.queue_depth('x')
        async with with_queue(broker, queue_name) as client:
            broker.ctl('close_all_connections', 'test')
            while True:  # until that is known here
                try:
                    await client.publish('x', '', queue_name, {})
                    if client.is_open:
                        break
                except clihelper.PublishError:
                    pass

    asyncio.run(main())


def test_a_silent_broker_does_not_stop_the_loop_and_what_was_sent_is_unknown(
    broker, queue_name, monkeypatch
):
    monkeypatch.setattr(async_client, 'CONFIRM_TIMEOUT', 0.6)
    monkeypatch.setattr(async_client, 'CHECK', 0.2)

    async def main(proxy):
        async with with_queue(broker, queue_name):
            pass
        async with client_of(f'amqp://guest:guest@127.0.0.1:{proxy.port}/') as client:
            await client.publish('x', '', queue_name, {})
            proxy.swallow()
            sent = [client.publish(b'x' * 100_000, '', queue_name, {}) for _ in range(200)]
            longest, before = 0.0, time.monotonic()
            while not all(each.done() for each in sent):
                await asyncio.sleep(0.01)
                now = time.monotonic()
                longest, before = max(longest, now - before), now
            assert longest < 0.5
            results = await asyncio.gather(*sent, return_exceptions=True)
            assert all(error.unknown for error in results)

    with Proxy(broker.port) as proxy:
        asyncio.run(main(proxy))


def test_another_thread_is_told_so(broker):
    async def main():
        async with client_of(broker.url()) as client:
            client.check_thread()
            with pytest.raises(RuntimeError, match='may only be called on the IOLoop'):
                await asyncio.to_thread(client.check_thread)

    asyncio.run(main())
