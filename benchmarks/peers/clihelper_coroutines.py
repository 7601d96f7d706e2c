"""clihelper's consumer of coroutines."""

import asyncio

from stream import SLEEP, handled, seconds

import clihelper


class Consumer(clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        if SLEEP:
            await asyncio.sleep(seconds())
        handled()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
