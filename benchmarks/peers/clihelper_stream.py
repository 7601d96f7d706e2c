"""clihelper's consumer."""

from stream import handled

import clihelper


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        handled()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
