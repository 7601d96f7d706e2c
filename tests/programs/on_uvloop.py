"""A consumer and a server on uvloop, as docs/concurrency.rst says."""

import asyncio

import uvloop
from tornado.web import Application, RequestHandler

import clihelper


class Hello(RequestHandler):
    async def get(self):
        await asyncio.sleep(0.01)
        self.write('hello')


class OnUvloop(clihelper.AsyncConsumerController):
    def __init__(self, options, arguments):
        super().__init__(options, arguments)
        asyncio.set_event_loop(uvloop.new_event_loop())

    def _setup(self):
        from tornado.httpserver import HTTPServer

        server = HTTPServer(Application([('/', Hello)]))
        server.add_sockets(self.sockets)
        self.logger.info('listens at %d', self.sockets[0].getsockname()[1])

    async def on_message(self, body, message):
        loop = type(asyncio.get_running_loop())
        self.logger.info('%s.%s got %r in run %d', loop.__module__, loop.__name__, body,
                         message.attempts)
        if body == 'reply':
            await self.publish('answer', routing_key=message.queue)
        elif body == 'raise':
            raise ValueError('not today')


clihelper.setup('on_uvloop')
clihelper.run(OnUvloop)
