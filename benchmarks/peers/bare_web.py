"""A bare Tornado program with the server of web.py, stopped by TERM."""

import signal
import sys

import web
from event import work
from tornado.ioloop import IOLoop

for name in sys.argv[2:]:
    __import__(name)

loop = IOLoop.current()
signal.signal(signal.SIGTERM, lambda signum, frame: loop.add_callback_from_signal(loop.stop))
web.server().listen(int(sys.argv[1]), '127.0.0.1')
loop.add_callback(work)
loop.start()
