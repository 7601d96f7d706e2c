"""kombu's ConsumerMixin."""

import kombu
from kombu.mixins import ConsumerMixin
from stream import HEARTBEAT, PREFETCH, QUEUE, URL, handled


class Worker(ConsumerMixin):
    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, Consumer, channel):  # noqa: N803
        queue = kombu.Queue(QUEUE)
        return [Consumer([queue], callbacks=[self.on_message], prefetch_count=PREFETCH)]

    def on_message(self, body, message):
        handled()
        message.ack()


with kombu.Connection(URL, heartbeat=HEARTBEAT) as connection:
    Worker(connection).run()
