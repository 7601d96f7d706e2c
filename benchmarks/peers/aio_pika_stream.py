"""aio-pika."""

import asyncio

import aio_pika
from stream import HEARTBEAT, PREFETCH, QUEUE, SLEEP, URL, handled, seconds


async def on_message(message):
    if SLEEP:
        await asyncio.sleep(seconds())
    handled()
    await message.ack()


async def main():
    connection = await aio_pika.connect(URL, heartbeat=HEARTBEAT)
    channel = await connection.channel()
    await channel.set_qos(PREFETCH)
    queue = await channel.declare_queue(QUEUE, durable=True)
    await queue.consume(on_message)
    await asyncio.Future()


asyncio.run(main())
