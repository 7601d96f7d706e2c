"""clihelper's consumer, which hardly waits before it connects again."""

from event import work

import clihelper
from clihelper.amqp.connection import Backoff

Backoff.SOON = 0.01


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        work()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
