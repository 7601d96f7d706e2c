"""What the handlers of several processes call for each message: each counts for itself.

``handled`` counts in a mapped file of the process, which whoever measures reads.
``BENCHMARK_WORK`` is a sleep, and ``BENCHMARK_SPIN`` CPU time, in seconds.
"""

import mmap
import os
import struct
import time

URL = os.environ.get('BENCHMARK_URL', '')
QUEUE = os.environ.get('BENCHMARK_QUEUE', '')
PREFETCH = int(os.environ.get('BENCHMARK_PREFETCH', 100))
PROCESSES = int(os.environ.get('BENCHMARK_PROCESSES', 2))
WORK = float(os.environ.get('BENCHMARK_WORK', 0))
SPIN = float(os.environ.get('BENCHMARK_SPIN', 0))

_pack = struct.Struct('<Q').pack_into
_owner = _count = 0
_map = None


def handled():
    global _count
    if _owner != os.getpid():
        _open()
    if WORK:
        time.sleep(WORK)
    if SPIN:
        end = time.thread_time() + SPIN
        while time.thread_time() < end:
            pass
    _count += 1
    _pack(_map, 0, _count)


def _open():
    """In each process anew, when it handles its first message."""
    global _owner, _count, _map
    _owner, _count = os.getpid(), 0
    with open(os.path.join(os.environ['BENCHMARK_TALLIES'], str(_owner)), 'wb+') as file:
        file.write(bytes(8))
        file.flush()
        _map = mmap.mmap(file.fileno(), 8)
