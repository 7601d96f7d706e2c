"""A program that type checkers have nothing to say about: what they know is asserted."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Protocol, assert_type

from tornado.ioloop import IOLoop

import clihelper
from clihelper.testing import Harness


class OrderOptions(clihelper.Options, Protocol):
    dry_run: bool


@dataclasses.dataclass
class Shop:
    name: str


class Plain(clihelper.Controller):
    options: OrderOptions

    def __init__(self, options: OrderOptions, arguments: list[str]) -> None:
        super().__init__(options, arguments)
        self.count = 0

    def _setup(self) -> None:
        assert_type(self.options.dry_run, bool)
        assert_type(self.options.configuration, str)
        assert_type(self.arguments, list[str])
        assert_type(self.wake_interval, float)
        assert_type(self.state, clihelper.State)
        shop: Shop = self.config['Shop']
        self.logger.info('%s', shop.name)

    def _process(self) -> None:
        self.publish({'at': datetime.now(UTC)}, 'shop', 'order.new', delay=1.5,
                     mandatory=False, compress=True, headers={'a': [1]}, expiration=2.5,
                     priority=3, timestamp=datetime.now(UTC), type='order.created',
                     reply_to='answers', message_id=None, partition_key=7, correlation_id='1',
                     content_type='text/plain', content_encoding='utf-8', delivery_mode=1,
                     user_id='guest', app_id='typed')
        assert_type(self.call({}, routing_key='ask', timeout=3, priority=1), Any)
        assert_type(self.queue_depth('orders'), int)
        assert_type(self.get('orders'), clihelper.Message | None)
        for message in self.messages('orders', timeout=1):
            assert_type(message, clihelper.Message)
        with self.pipeline() as pipeline:
            pipeline.publish({}, routing_key='orders', expiration=1)
        self.metrics.count('orders', 1, shop='one')

    def on_configuration_reloaded(self) -> None:
        super().on_configuration_reloaded()


class Consumer(clihelper.ConsumerController):
    def on_message(self, body: Any, message: clihelper.Message) -> Any:
        assert_type(message.queue, str)
        assert_type(message.attempts, int)
        assert_type(message.headers, dict[str, Any])
        assert_type(message.correlation_id, str | None)
        if self.options.anything_of_its_own:
            raise clihelper.Retry('later', delay=3)
        return body

    def order_key(self, message: clihelper.Message) -> str:
        return message.routing_key


class Batches(clihelper.ConsumerController):
    def on_messages(self, messages: list[clihelper.Message]) -> None:
        assert_type(messages[0].raw, bytes)


class Server(clihelper.IOLoopController):
    async def _setup(self) -> None:
        await super()._setup()
        assert_type(self.io_loop, IOLoop)

    async def _process(self) -> None:
        assert_type(self.publish({}, routing_key='a', expiration=1), Awaitable[None])
        assert_type(await self.queue_depth('orders'), int)
        assert_type(await self.get('orders'), clihelper.Message | None)
        async with self.pipeline() as pipeline:
            await pipeline.publish({}, routing_key='orders')
        async for message in self.messages('orders'):
            assert_type(message, clihelper.Message)

    async def _cleanup(self) -> None:
        pass


class Coroutines(clihelper.AsyncConsumerController):
    def _setup(self) -> None:
        pass

    async def on_message(self, body: str, message: clihelper.Message) -> None:
        await self.publish(body, routing_key='pages')


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--dry-run', action='store_true')


def test() -> None:
    with Harness(Consumer, required={'Shop': Shop}, option_callback=add_options) as harness:
        assert_type(harness.controller, Consumer)


def main() -> None:
    clihelper.setup('typed')
    clihelper.add_config_key('Shop', Shop)
    clihelper.add_config_key('Other', clihelper.json_schema('other.json'))
    clihelper.add_config_key('Third', lambda section: Shop(**section))
    clihelper.run(Plain, add_options)
