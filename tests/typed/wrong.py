"""What type checkers find: each line with a comment that begins with "wrong"."""

from __future__ import annotations

import clihelper


class Wrong(clihelper.ConsumerController):
    def _process(self) -> None:
        self.publish({}, hedders={})  # wrong: no such property
        self.publish({}, expiration='5')  # wrong: a number
        self.publish({}, priority='high')  # wrong: an integer
        self.publish({}, timestamp='noon')  # wrong: a datetime
        self.publish({}, headers=['a'])  # wrong: a mapping
        self.publish({}, correlation_id=7)  # wrong: a string
        self.publish({}, content_type=7)  # wrong: a string
        self.publish({}, content_encoding=7)  # wrong: a string
        self.publish({}, delivery_mode='1')  # wrong: an integer
        self.publish({}, message_id=7)  # wrong: a string
        self.publish({}, type=7)  # wrong: a string
        self.publish({}, user_id=7)  # wrong: a string
        self.publish({}, app_id=7)  # wrong: a string
        self.publish({}, reply_to=7)  # wrong: a string
        self.publish({}, delay='1')  # wrong: a number
        self.publish({}, 'shop', 'new', True)  # wrong: by name only
        self.call({}, reply_to='me')  # wrong: set by the call
        with self.pipeline() as pipeline:
            pipeline.publish({}, hedders={})  # wrong: no such property
        self.options.configuration.pop()  # wrong: a string
        self.mesages('orders')  # wrong: misspelt

    def on_message(self, body: str, message: str) -> None:  # wrong: a message
        pass

    def wake_interval(self) -> float:  # wrong: a property
        return 1


class Asynchronous(clihelper.AsyncConsumerController):
    async def _process(self) -> None:
        await self.publish({}, hedders={})  # wrong: no such property
        await self.call({}, timeout='1')  # wrong: a number


clihelper.add_config_key('Shop', 'schema.json')  # wrong: a function
clihelper.run(str)  # wrong: a controller
