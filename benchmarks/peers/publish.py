"""What the programs that publish need: how many messages, in what way, and what they tell.

``BENCHMARK_WAY`` is ``one``: one at a time, each confirmed before the next one; ``pipelined``: up
to ``WINDOW`` of them unconfirmed; or ``at once``: by ``COROUTINES`` of them, one at a time each.
What they tell in the end: the time and their CPU time before and after, and the median time of
one message, or 0.
"""

import os
import statistics
import time

from event import EVENTS, QUEUE, URL

WAY = os.environ['BENCHMARK_WAY']
COUNT = int(os.environ['BENCHMARK_COUNT'])
WARM_UP = 500
"""Messages before those that are counted"""

WINDOW, COROUTINES = 1000, 100
BODY = b'x' * 100

__all__ = ['BODY', 'COROUTINES', 'COUNT', 'QUEUE', 'URL', 'WARM_UP', 'WAY', 'WINDOW', 'Clock']


class Clock:
    """Started after the warm-up.

    :ivar times: seconds that each message took, where one is published at a time.
    """

    def __init__(self):
        self.times = []
        self._start = time.monotonic(), time.process_time()

    def tell(self):
        end = time.monotonic(), time.process_time()
        figures = (*self._start, *end, statistics.median(self.times) if self.times else 0)
        os.write(EVENTS, b''.join(b'%.9f\n' % figure for figure in figures))
        time.sleep(3600)


def one_at_a_time(publish):
    """Call *publish*, which returns when a message is confirmed."""
    for _ in range(WARM_UP):
        publish()
    clock = Clock()
    for _ in range(COUNT):
        began = time.perf_counter()
        publish()
        clock.times.append(time.perf_counter() - began)
    clock.tell()


async def coroutines(publish):
    """Await what *publish* returns, in whichever way."""
    import asyncio

    async def several(count):
        for _ in range(count):
            await publish()

    async def at_once(count):
        await asyncio.gather(*(several(count // COROUTINES) for _ in range(COROUTINES)))

    async def pipelined(count):
        for _ in range(0, count, WINDOW):
            await asyncio.gather(*(publish() for _ in range(WINDOW)))

    async def one(count):
        for _ in range(count):
            began = time.perf_counter()
            await publish()
            clock.times.append(time.perf_counter() - began)

    run = {'one': one, 'at once': at_once, 'pipelined': pipelined}[WAY]
    clock = Clock()
    await run(WARM_UP)
    clock = Clock()
    await run(COUNT)
    clock.tell()
