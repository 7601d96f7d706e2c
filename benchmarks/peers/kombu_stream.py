"""kombu's Consumer, drained in a loop."""

import kombu
from stream import HEARTBEAT, PREFETCH, QUEUE, URL, handled


def on_message(body, message):
    handled()
    message.ack()


with kombu.Connection(URL, heartbeat=HEARTBEAT) as connection:
    consumer = kombu.Consumer(
        connection, [kombu.Queue(QUEUE)], callbacks=[on_message], prefetch_count=PREFETCH)
    with consumer:
        while True:
            connection.drain_events()
