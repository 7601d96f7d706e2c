"""kombu's Consumer with a pool of threads; the main thread acknowledges."""

import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor

import kombu
from stream import HEARTBEAT, PREFETCH, QUEUE, SLEEP, URL, handled, locked

pool = ThreadPoolExecutor(int(os.environ['BENCHMARK_THREADS']))
done = queue.SimpleQueue()


def handle(message):
    time.sleep(SLEEP)
    with locked:
        handled()
    done.put(message)


with kombu.Connection(URL, heartbeat=HEARTBEAT) as connection:
    consumer = kombu.Consumer(
        connection, [kombu.Queue(QUEUE)], prefetch_count=PREFETCH,
        callbacks=[lambda body, message: pool.submit(handle, message)])
    with consumer:
        while True:
            try:
                connection.drain_events(timeout=0.001)
            except TimeoutError:
                pass
            while not done.empty():
                done.get().ack()
