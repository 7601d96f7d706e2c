"""Servers with work in progress: draining.py CLASS -c FILE ..."""

import asyncio
import os
import signal
import ssl
import sys

import reports
from tornado import web, websocket
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.tcpserver import TCPServer

import clihelper


async def held_up(phase):
    await asyncio.get_running_loop().run_in_executor(None, reports.at, phase)


class Hello(web.RequestHandler):
    def get(self):
        reports.report('hello')
        self.write('hello')


class Slow(web.RequestHandler):
    async def get(self):
        reports.report('begun', self.get_argument('n', ''))
        await held_up('slow')
        self.write('at last')


class Afterwards(web.RequestHandler):
    """Goes on after its answer."""

    async def get(self):
        self.finish('accepted')
        await held_up('afterwards')
        reports.report('stored')


class Endless(web.RequestHandler):
    """Does not end, but for being cancelled."""

    async def get(self):
        asyncio.get_running_loop().call_soon(reports.report, 'begun')  # when it waits
        try:
            await asyncio.sleep(3600)
        finally:
            reports.report('cancelled')


class Blocking(web.RequestHandler):
    """Blocks the loop, and a signal ends that."""

    def get(self):
        reports.at('blocked')


class Provoking(web.RequestHandler):
    """Stops the program just when the headers that wait meanwhile are read."""

    def get(self):
        reports.at('provoked')
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, os.kill, os.getpid(), signal.SIGTERM)


class Upload(web.RequestHandler):
    def post(self):
        self.write(f'{len(self.request.body)} bytes')


@web.stream_request_body
class Streamed(web.RequestHandler):
    """Takes its body piece by piece."""

    def prepare(self):
        self.length = 0
        reports.report('upload')

    def data_received(self, chunk):
        self.length += len(chunk)

    def post(self):
        self.write(f'{self.length} bytes')


class Events(web.RequestHandler):
    """Sends events as long as the client stays."""

    async def get(self):
        self.set_header('Content-Type', 'text/event-stream')
        self.write('data: first\n\n')
        await self.flush()
        asyncio.get_running_loop().call_soon(reports.report, 'events')  # when it waits
        try:
            while True:
                await asyncio.sleep(0.05)
                self.write('data: again\n\n')
                await self.flush()
        except StreamClosedError:
            reports.report('gone')


class Flood(web.RequestHandler):
    """Answers more than any client takes that does not read."""

    async def get(self):
        self.write(bytes(64 << 20))
        asyncio.get_running_loop().call_soon(reports.report, 'flood')  # when it waits
        await self.flush()


class Socket(websocket.WebSocketHandler):
    def open(self):
        reports.report('open')

    async def on_message(self, message):
        reports.report('message', message)
        if message == 'slow':
            await held_up('answer')
        self.write_message(f'{message}, too')

    def on_close(self):
        reports.report('closed', self.close_code)


class Lines(TCPServer):
    """Answers lines."""

    async def handle_stream(self, stream, address):
        reports.report('connected')
        try:
            while True:
                line = (await stream.read_until(b'\n')).decode().strip()
                reports.report('line', line)
                if line == 'slow':
                    await held_up('computing')
                await stream.write(f'{line}, too\n'.encode())
        except StreamClosedError:
            reports.report('hung up')


PATHS = [('/', Hello), ('/slow', Slow), ('/afterwards', Afterwards), ('/blocking', Blocking),
         ('/endless', Endless), ('/provoking', Provoking), ('/upload', Upload),
         ('/streamed', Streamed), ('/events', Events), ('/flood', Flood), ('/socket', Socket)]


def application():
    return web.Application(PATHS)


class Reporting(clihelper.IOLoopController):
    def report_ready(self):
        """Report it when the loop has run for the second time, after clihelper's own report."""
        self.io_loop.add_callback(self.io_loop.add_callback, reports.report, 'ready', os.getpid())

    async def _cleanup(self):
        await asyncio.sleep(0)
        reports.report('cleanup')


class Listening(Reporting):
    """Listens for itself."""

    def _setup(self):
        self.server = application().listen(self.application_config['port'], '127.0.0.1')
        reports.at('setup')
        self.report_ready()


class Sharing(Reporting):
    """Serves at the sockets of Daemon.listen."""

    def _setup(self):
        self.server = HTTPServer(application())
        self.server.add_sockets(self.sockets)
        self.report_ready()


class Lasting(Reporting):
    """Has one server for all rounds."""

    def __init__(self, options, arguments):
        super().__init__(options, arguments)
        self.server = HTTPServer(application())

    def _setup(self):
        self.server.add_sockets(self.sockets)
        self.report_ready()


class Encrypted(Reporting):
    def _setup(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.application_config['certificate'])
        HTTPServer(application(), ssl_options=context).add_sockets(self.sockets)
        self.report_ready()


class Speaking(Reporting):
    """A protocol of its own."""

    def _setup(self):
        Lines().add_sockets(self.sockets)
        self.report_ready()


class StoppingItself(Listening):
    """Does what programs for Tornado alone do."""

    def on_sigterm(self):
        self.server.stop()
        super().on_sigterm()


class StoppingLoop(Listening):
    async def _cleanup(self):
        self.io_loop.stop()
        await asyncio.sleep(0.01)
        reports.report('cleanup')


class Partly(Reporting):
    """Leaves all sockets but the first alone."""

    def _setup(self):
        HTTPServer(application()).add_sockets(self.sockets[:1])
        self.report_ready()


class Moving(Reporting):
    """Listens at a wider address in the second round."""

    rounds = 0

    def _setup(self):
        self.rounds += 1
        address = '127.0.0.1' if self.rounds == 1 else '0.0.0.0'
        application().listen(self.application_config['port'], address)
        self.report_ready()


class Working(Reporting):
    """Works for long."""

    async def _process(self):
        reports.report('working')
        await asyncio.sleep(60)


def main():
    controller = globals()[sys.argv.pop(1)]
    clihelper.setup('draining', 'Serves.', '1.0')
    clihelper.run(controller)


if __name__ == '__main__':
    main()
