"""FastStream, with JSON decoded."""

import asyncio
import logging

from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from stream import PREFETCH, QUEUE, SLEEP, URL, handled, seconds

broker = RabbitBroker(URL, logger=None, default_channel=Channel(prefetch_count=PREFETCH))


@broker.subscriber(RabbitQueue(QUEUE, durable=True))
async def on_message(body: dict):
    if SLEEP:
        await asyncio.sleep(seconds())
    handled()


logging.disable()
asyncio.run(FastStream(broker, logger=None).run())
