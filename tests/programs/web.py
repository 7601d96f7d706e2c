"""HTTP servers on the IOLoop: web.py CLASS -c FILE ..."""

import asyncio
import sys

import reports
from tornado import web
from tornado.httpserver import HTTPServer

import clihelper


class Hello(web.RequestHandler):
    def get(self):
        self.write('hello')


class Slow(web.RequestHandler):
    async def get(self):
        reports.report('request')
        await held_up()
        self.write('at last')


async def held_up():
    await asyncio.get_running_loop().run_in_executor(None, reports.at, 'answer')


def application():
    return web.Application([('/', Hello), ('/slow', Slow)])


class Reporting(clihelper.IOLoopController):
    def _cleanup(self):
        reports.report('cleanup')


class Listening(Reporting):
    """Starts a server the short way, on a port that it keeps."""

    def _setup(self):
        self.server = application().listen(self.application_config['port'], '127.0.0.1')
        reports.report('listening')


class Serving(Reporting):
    """Starts a server of its own."""

    def _setup(self):
        self.server = HTTPServer(application())
        self.server.listen(self.application_config['port'], '127.0.0.1')
        reports.report('listening')


class WhoAmI(web.RequestHandler):
    def initialize(self, controller):
        self.controller = controller

    def get(self):
        self.write(f'{self.controller.worker}\n')


class Sharing(clihelper.IOLoopController):
    """Serves at the sockets of Daemon.listen."""

    def _setup(self):
        server = HTTPServer(web.Application([('/', WhoAmI, {'controller': self})]))
        server.add_sockets(self.sockets)


class Named(clihelper.IOLoopController):
    """Serves each socket by a server that tells its name, and how many have it."""

    def _setup(self):
        names = dict.fromkeys(self._life.socket_names)
        for name in names:
            sockets = self.sockets_named(name)
            text = f'{name} {len(sockets)} of {len(self.sockets)}'
            server = HTTPServer(web.Application([('/', Text, {'text': text})]))
            server.add_sockets(sockets)


class Text(web.RequestHandler):
    def initialize(self, text):
        self.text = text

    def get(self):
        self.write(f'{self.text}\n')


class Coroutines(clihelper.IOLoopController):
    """All of its hooks are coroutines."""

    async def _setup(self):
        await asyncio.sleep(0)
        self.task = asyncio.create_task(self.work_on())
        reports.report('setup')

    async def _process(self):
        reports.report('process', self.state.name)
        await held_up()
        reports.report('processed', self.state.name)

    async def _cleanup(self):
        await asyncio.sleep(0)
        reports.report('cleanup')

    async def work_on(self):
        try:
            await asyncio.sleep(3600)
        finally:
            reports.report('finally')


class Raising(Reporting):
    async def _process(self):
        await asyncio.sleep(0)
        raise ValueError('a coroutine that fails')


class RaisingPlainly(Reporting):
    def _process(self):
        raise ValueError('a hook that fails')


class Cancelled(Reporting):
    async def _process(self):
        task = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task


class CancelledAtOnce(Reporting):
    async def _setup(self):
        raise asyncio.CancelledError


class Timers(Reporting):
    """Reports how many timers the event loop has at the begin of each round."""

    def _setup(self):
        timers = asyncio.get_event_loop_policy().get_event_loop()._scheduled
        reports.report('timers', len([timer for timer in timers if not timer.cancelled()]))


class Exiting(Reporting):
    def _process(self):
        sys.exit(3)


def main():
    controller = globals()[sys.argv.pop(1)]
    clihelper.setup('web', 'Serves.', '1.0')
    clihelper.run(controller)


if __name__ == '__main__':
    main()
