"""A task for each message that is already there, 100 at once: what asyncio itself takes."""

import asyncio

from stream import COUNT, PREFETCH, SLEEP, handled, seconds


async def on_message():
    if SLEEP:
        await asyncio.sleep(seconds())
    handled()


async def main():
    ended = asyncio.Event()
    left, running = COUNT + 2 * PREFETCH, set()

    def end(task):
        running.discard(task)
        begin()

    def begin():
        nonlocal left
        if left:
            left -= 1
            task = asyncio.create_task(on_message())
            running.add(task)
            task.add_done_callback(end)
        elif not running:
            ended.set()

    for _ in range(PREFETCH):
        begin()
    await ended.wait()
    await asyncio.Future()


asyncio.run(main())
