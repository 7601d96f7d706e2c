"""clihelper's consumer, with bodies of a Struct."""

import msgspec
from stream import handled

import clihelper


class Order(msgspec.Struct):
    order_id: int
    customer: str
    amount: float
    items: list[str]


class Consumer(clihelper.ConsumerController):
    def on_message(self, body: Order, message):
        handled()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
