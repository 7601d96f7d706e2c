"""Tornado's PeriodicCallback."""

import signal

from event import INTERVAL, work
from tornado.ioloop import IOLoop, PeriodicCallback

loop = IOLoop.current()
signal.signal(signal.SIGTERM, lambda signum, frame: loop.add_callback_from_signal(loop.stop))
PeriodicCallback(work, INTERVAL * 1000).start()
loop.add_callback(work)
loop.start()
