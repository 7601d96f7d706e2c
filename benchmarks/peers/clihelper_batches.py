"""clihelper's consumer of batches."""

from stream import handled

import clihelper


class Consumer(clihelper.ConsumerController):
    def on_messages(self, messages):
        for _ in messages:
            handled()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
