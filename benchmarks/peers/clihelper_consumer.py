"""clihelper's consumer."""

from event import work

import clihelper


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        work()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
