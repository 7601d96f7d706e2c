"""pika: one at a time with its BlockingConnection, pipelined with its SelectConnection."""

import pika
from publish import BODY, COUNT, QUEUE, URL, WARM_UP, WAY, WINDOW, Clock, one_at_a_time

PROPERTIES = pika.BasicProperties(content_type='application/octet-stream', delivery_mode=2)


def block():
    channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
    channel.confirm_delivery()
    one_at_a_time(lambda: channel.basic_publish('', QUEUE, BODY, PROPERTIES, mandatory=True))


class Author:
    """Publishes the next ones when half of a window is confirmed."""

    def __init__(self, channel):
        self.channel = channel
        self.left, self.sent, self.confirmed = WARM_UP, 0, 0
        self.clock = None
        channel.confirm_delivery(self.on_confirmation, lambda frame: self.fill())

    def on_confirmation(self, frame):
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        self.confirmed = tag if multiple else self.confirmed + 1
        if self.confirmed == self.sent and not self.left:
            if self.clock is not None:
                self.clock.tell()
            self.clock, self.left = Clock(), COUNT
        if self.sent - self.confirmed <= WINDOW // 2:
            self.fill()

    def fill(self):
        count = min(self.left, WINDOW - self.sent + self.confirmed)
        self.left -= count
        self.sent += count
        for _ in range(count):
            self.channel.basic_publish('', QUEUE, BODY, PROPERTIES, mandatory=True)


if WAY == 'one':
    block()
pika.SelectConnection(
    pika.URLParameters(URL),
    on_open_callback=lambda connection: connection.channel(on_open_callback=Author),
).ioloop.start()
