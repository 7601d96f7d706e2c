"""A pool of threads for messages that are already there: what threads themselves take."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from stream import COUNT, PREFETCH, SLEEP, handled, locked

THREADS = int(os.environ['BENCHMARK_THREADS'])
room = threading.Semaphore(PREFETCH)


def on_message():
    time.sleep(SLEEP)
    with locked:
        handled()
    room.release()


pool = ThreadPoolExecutor(THREADS)
for _ in range(COUNT + 2 * PREFETCH):
    room.acquire()
    pool.submit(on_message)
time.sleep(3600)
