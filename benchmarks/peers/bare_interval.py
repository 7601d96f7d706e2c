"""A loop over deadlines that waits on a wake-up descriptor, and the modules named as arguments."""

import os
import select
import signal
import sys
import time

from event import INTERVAL, work

for name in sys.argv[1:]:
    __import__(name)

reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGTERM, lambda signum, frame: None)
due = time.monotonic()
while not select.select([reader], (), (), max(due - time.monotonic(), 0.0))[0]:
    work()
    due += INTERVAL
