"""What each of the programs tells the benchmarks: the time, whenever it begins to work."""

import os
import time

EVENTS = int(os.environ['BENCHMARK_EVENTS'])
INTERVAL = float(os.environ.get('BENCHMARK_INTERVAL', 60))
WORK = float(os.environ.get('BENCHMARK_WORK', 0))
SPIN = float(os.environ.get('BENCHMARK_SPIN', 0))
HEARTBEAT = int(os.environ.get('BENCHMARK_HEARTBEAT', 10))
URL = os.environ.get('BENCHMARK_URL', '')
QUEUE = os.environ.get('BENCHMARK_QUEUE', '')


def work():
    now = time.monotonic()
    os.write(EVENTS, b'%.6f\n' % now)
    while SPIN and time.monotonic() < now + SPIN:
        pass
    if WORK:
        time.sleep(WORK)
