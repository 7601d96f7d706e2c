"""A consumer of several queues, for its AsyncAPI document."""

from __future__ import annotations

import dataclasses
from typing import Any

import clihelper


@dataclasses.dataclass
class Item:
    name: str


@dataclasses.dataclass
class Order:
    number: int
    items: list[Item]
    size: tuple[int, str] = (1, 'm')


class Other:
    @dataclasses.dataclass
    class Order:
        word: str


class Shop(clihelper.ConsumerController):
    @clihelper.handles(queue='orders', type='order.paid')
    def on_paid(self, body: Order, message: Any):
        pass

    @clihelper.handles(type='order.gone')
    @clihelper.handles(type='order.lost')
    def on_gone(self, body: list[Other.Order], message: Any):
        pass

    def on_message(self, body, message):
        pass


if __name__ == '__main__':
    clihelper.setup('shop', 'Sells.', '1.2')
    clihelper.run(Shop)
