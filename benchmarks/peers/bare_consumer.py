"""A consumer on kombu, with no framework: it waits on a wake-up descriptor and the socket."""

import os
import select
import signal
import sys
import time

import kombu
from event import HEARTBEAT, QUEUE, URL, work

for name in sys.argv[1:]:
    __import__(name)


def on_message(message):
    message.decode()
    work()
    message.ack()


reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGTERM, lambda signum, frame: None)
connection = kombu.Connection(URL, heartbeat=HEARTBEAT)
channel = connection.channel()
channel.basic_qos(0, 1, False)
kombu.Consumer(channel, [kombu.Queue(QUEUE)], on_message=on_message).consume()
pulse = HEARTBEAT / 2 or None
checked = time.monotonic()
while True:
    try:
        connection.drain_events(timeout=0)
    except TimeoutError:
        pass
    else:
        continue
    if select.select([reader, connection.connection.sock], (), (), pulse)[0] == [reader]:
        break
    if pulse and time.monotonic() - checked >= pulse:
        checked = time.monotonic()
        connection.heartbeat_check(rate=2)
connection.release()
