"""clihelper's consumer with a pool of threads."""

import time

from stream import SLEEP, handled, locked

import clihelper


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        time.sleep(SLEEP)
        with locked:
            handled()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
