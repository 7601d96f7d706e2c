"""FastStream in several processes, as its ``--workers`` starts them."""

import asyncio
import logging
import multiprocessing

from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from tally import PREFETCH, PROCESSES, QUEUE, URL, handled


def work():
    broker = RabbitBroker(URL, logger=None, default_channel=Channel(prefetch_count=PREFETCH))

    @broker.subscriber(RabbitQueue(QUEUE, durable=True))
    async def on_message(body: bytes):
        handled()

    logging.disable()
    asyncio.run(FastStream(broker, logger=None).run())


if __name__ == '__main__':
    processes = [multiprocessing.get_context('spawn').Process(target=work)
                 for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
