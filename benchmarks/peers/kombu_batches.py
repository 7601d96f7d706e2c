"""kombu's Consumer, with batches that are collected by hand."""

import kombu
from stream import HEARTBEAT, PREFETCH, QUEUE, URL, handled

SIZE = PREFETCH // 2
batch = []


def on_message(body, message):
    batch.append(message)
    if len(batch) == SIZE:
        for _ in batch:
            handled()
        message.ack(multiple=True)
        batch.clear()


with kombu.Connection(URL, heartbeat=HEARTBEAT) as connection:
    consumer = kombu.Consumer(
        connection, [kombu.Queue(QUEUE)], callbacks=[on_message], prefetch_count=PREFETCH)
    with consumer:
        while True:
            connection.drain_events()
