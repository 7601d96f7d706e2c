"""A consumer that declares with kombu's own classes: NAME in the environment begins each name."""

import os

import kombu

import clihelper

NAME = os.environ['NAME']
SHOP = kombu.Exchange(f'{NAME}.shop', type='topic')
NEWS = kombu.Exchange(f'{NAME}.news', type='fanout', durable=False)


class Declaring(clihelper.ConsumerController):
    exchanges = [kombu.Exchange(f'{NAME}.audit', type='headers')]
    queues = [
        kombu.Queue(
            f'{NAME}.orders',
            SHOP,
            routing_key='order.*',
            message_ttl=60,
            max_length=10,
            consumer_arguments={'x-priority': 3},
            on_declared=lambda *found: print('declared', *found, flush=True),
        ),
        kombu.Queue(alias='here', exchange=NEWS, exclusive=True),
        kombu.Queue(
            f'{NAME}.both',
            bindings=[
                kombu.binding(SHOP, routing_key='stock.#'),
                kombu.binding(exchanges[0], arguments={'x-match': 'all', 'level': 'high'}),
            ],
            queue_arguments={'x-queue-type': 'quorum'},
        ),
    ]

    def on_message(self, body, message):
        self.logger.info('got %r from %s', body, message.queue)


clihelper.setup('declaring')
clihelper.run(Declaring)
