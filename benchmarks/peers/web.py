"""The server of clihelper_web and bare_web: hello world, after a delay if one is wanted."""

import asyncio
import os
import time

from event import EVENTS, WORK
from tornado import web
from tornado.httpserver import HTTPServer

begun = []


class Hello(web.RequestHandler):
    def get(self):
        self.write('hello world\n')


class Delayed(web.RequestHandler):
    def initialize(self):
        begun.append(time.monotonic())

    async def get(self):
        await asyncio.sleep(WORK)
        self.write('hello world\n')


class Events(web.RequestHandler):
    async def get(self):
        self.set_header('Content-Type', 'text/event-stream')
        while True:
            self.write('data: still here\n\n')
            await self.flush()
            await asyncio.sleep(0.1)


def server():
    paths = [('/', Delayed if WORK else Hello), ('/events', Events)]
    return HTTPServer(web.Application(paths, log_function=lambda handler: None))


def tell(*numbers):
    os.write(EVENTS, b''.join(b'%d\n' % number for number in numbers))
