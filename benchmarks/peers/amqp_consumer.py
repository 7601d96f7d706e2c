"""A consumer on py-amqp, which is below kombu."""

import os
import select
import signal

import amqp
from event import HEARTBEAT, QUEUE, URL, work


def on_message(message):
    work()
    message.channel.basic_ack(message.delivery_tag)


reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGTERM, lambda signum, frame: None)
host = URL.rpartition('@')[2].partition('/')[0]
connection = amqp.Connection(host, heartbeat=HEARTBEAT)
connection.connect()
channel = connection.channel()
channel.queue_declare(QUEUE, durable=True, auto_delete=False)
channel.basic_qos(0, 1, False)
channel.basic_consume(QUEUE, callback=on_message)
while not select.select([reader], (), (), 0)[0]:
    connection.drain_events()
connection.close()
