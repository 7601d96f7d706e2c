"""A consumer with bodies of a dataclass, and several handlers: in the loop of $KIND."""

from __future__ import annotations

import dataclasses
import os

import clihelper

KIND = os.environ.get('KIND', 'one')


@dataclasses.dataclass
class Order:
    number: int
    word: str = ''


def note(self, *words):
    with open(self.application_config['notes'], 'a') as file:
        print(*words, file=file, flush=True)


class Orders(clihelper.ConsumerController):
    @clihelper.handles(type='order.paid')
    def on_paid(self, body: Order, message):
        note(self, 'paid', body.number, type(body).__name__)
        return body.number

    @clihelper.handles(routing_key='order.*.eu')
    def on_eu(self, body: list[Order], message):
        note(self, 'eu', *(each.number for each in body))


class Coroutines(clihelper.AsyncConsumerController):
    @clihelper.handles(type='order.paid')
    async def on_paid(self, body: Order, message):
        note(self, 'paid', body.number, type(body).__name__)
        return body.number

    @clihelper.handles(routing_key='order.*.eu')
    async def on_eu(self, body: list[Order], message):
        note(self, 'eu', *(each.number for each in body))


class Batches(clihelper.ConsumerController):
    def on_messages(self, messages: list[clihelper.Message[Order]]):
        for message in messages:
            note(self, 'batch', message.body.number, type(message.body).__name__)


if __name__ == '__main__':
    clihelper.setup('handling', 'Handles.', '1.0')
    clihelper.run({'coroutines': Coroutines, 'batches': Batches}.get(KIND, Orders))
