"""What the consumers of many messages call for each of them.

``handled`` tells the time and the process's CPU time at the first message, and once more
``BENCHMARK_COUNT`` messages later; in between it costs 30 ns. Without a count it is ``work``.

``seconds`` is for how long a handler of coroutines sleeps, if ``SLEEP`` is not 0: that long, or
with ``BENCHMARK_RANDOM`` any time up to it.
"""

import os
import random
import threading
import time
from urllib.parse import urlsplit

from event import EVENTS, HEARTBEAT, QUEUE, URL, work

PREFETCH = int(os.environ.get('BENCHMARK_PREFETCH', 100))
COUNT = int(os.environ.get('BENCHMARK_COUNT', 0))
SLEEP = float(os.environ.get('BENCHMARK_SLEEP', 0))
PORT = urlsplit(URL).port

locked = threading.Lock()
"""Held while ``handled`` is called, where several threads do"""

__all__ = [
    'COUNT', 'HEARTBEAT', 'PORT', 'PREFETCH', 'QUEUE', 'SLEEP', 'URL', 'handled', 'locked',
    'seconds',
]

if os.environ.get('BENCHMARK_RANDOM'):
    def seconds():
        return SLEEP * random.random()
else:
    def seconds():
        return SLEEP


def _tell():
    os.write(EVENTS, b'%.6f\n%.6f\n' % (time.monotonic(), time.process_time()))


def _messages():
    _tell()
    for _ in range(COUNT):
        yield
    _tell()
    while True:
        yield


handled = _messages().__next__ if COUNT else work
