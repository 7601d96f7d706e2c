"""pika's SelectConnection, its quickest."""

import pika
from stream import HEARTBEAT, PREFETCH, QUEUE, URL, handled


def on_message(channel, method, properties, body):
    handled()
    channel.basic_ack(method.delivery_tag)


def on_channel(channel):
    channel.queue_declare(QUEUE, durable=True, callback=lambda _: on_queue(channel))


def on_queue(channel):
    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(QUEUE, on_message)


parameters = pika.URLParameters(URL)
parameters.heartbeat = HEARTBEAT
connection = pika.SelectConnection(
    parameters, on_open_callback=lambda c: c.channel(on_open_callback=on_channel))
connection.ioloop.start()
