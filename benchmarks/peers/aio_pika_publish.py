"""aio-pika, with gather."""

import asyncio

import aio_pika
from publish import BODY, QUEUE, URL, coroutines


async def main():
    connection = await aio_pika.connect(URL)
    channel = await connection.channel(publisher_confirms=True)
    exchange = channel.default_exchange

    def publish():
        message = aio_pika.Message(BODY, content_type='application/octet-stream', delivery_mode=2)
        return exchange.publish(message, QUEUE)

    await coroutines(publish)


asyncio.run(main())
