"""pika's AsyncioConnection, with a task for each message."""

import asyncio

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from stream import HEARTBEAT, PREFETCH, QUEUE, SLEEP, URL, handled, seconds

tasks = set()


async def handle(channel, delivery_tag):
    if SLEEP:
        await asyncio.sleep(seconds())
    handled()
    channel.basic_ack(delivery_tag)


def on_message(channel, method, properties, body):
    task = asyncio.ensure_future(handle(channel, method.delivery_tag))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def on_channel(channel):
    channel.queue_declare(QUEUE, durable=True, callback=lambda _: on_queue(channel))


def on_queue(channel):
    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(QUEUE, on_message)


parameters = pika.URLParameters(URL)
parameters.heartbeat = HEARTBEAT
connection = AsyncioConnection(
    parameters, on_open_callback=lambda c: c.channel(on_open_callback=on_channel))
connection.ioloop.run_forever()
