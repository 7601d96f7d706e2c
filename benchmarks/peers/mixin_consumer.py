"""kombu's ConsumerMixin, with the signal handler that its documentation lacks."""

import signal

import kombu
from event import HEARTBEAT, QUEUE, URL, work
from kombu.mixins import ConsumerMixin


class Worker(ConsumerMixin):
    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, Consumer, channel):  # noqa: N803
        queue = kombu.Queue(QUEUE)
        return [Consumer([queue], callbacks=[self.on_message], prefetch_count=1)]

    def on_message(self, body, message):
        work()
        message.ack()


def stop(signum, frame):
    worker.should_stop = True


with kombu.Connection(URL, heartbeat=HEARTBEAT) as connection:
    worker = Worker(connection)
    signal.signal(signal.SIGTERM, stop)
    worker.run()
