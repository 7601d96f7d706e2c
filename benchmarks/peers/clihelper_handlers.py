"""clihelper's consumer, with a handler for each of 20 types."""

from stream import handled

import clihelper


def handler(number):
    @clihelper.handles(type=f'order.{number}')
    def handle(self, body, message):
        handled()

    return handle


Consumer = type('Consumer', (clihelper.ConsumerController,), {
    f'on_{number}': handler(number) for number in range(20)
})

clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
