"""A bare Tornado program: a server on a free port, stopped by TERM."""

import signal
import sys

from event import work
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application

for name in sys.argv[1:]:
    __import__(name)

loop = IOLoop.current()
signal.signal(signal.SIGTERM, lambda signum, frame: loop.add_callback_from_signal(loop.stop))
HTTPServer(Application()).listen(0, '127.0.0.1')
loop.add_callback(work)
loop.start()
