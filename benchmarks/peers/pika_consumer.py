"""pika's BlockingConnection."""

import signal

import pika
from event import HEARTBEAT, QUEUE, URL, work


def on_message(channel, method, properties, body):
    work()
    channel.basic_ack(method.delivery_tag)


def stop(signum, frame):
    connection.add_callback_threadsafe(channel.stop_consuming)


parameters = pika.URLParameters(URL)
parameters.heartbeat = HEARTBEAT
connection = pika.BlockingConnection(parameters)
channel = connection.channel()
channel.queue_declare(QUEUE, durable=True)
channel.basic_qos(prefetch_count=1)
channel.basic_consume(QUEUE, on_message)
signal.signal(signal.SIGTERM, stop)
channel.start_consuming()
connection.close()
