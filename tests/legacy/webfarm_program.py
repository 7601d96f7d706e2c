"""A web server in the style of 1.4: one process for each port, and nothing to do in the parent."""

import logging
import multiprocessing
import os
import signal
import sys

from tornado import httpserver, ioloop, web

import clihelper

LOGGER = logging.getLogger('webfarm')
REQUIRED = ['HTTPServer', 'Routes']


class Hello(web.RequestHandler):
    def get(self):
        self.write('%s from %d\n' % (self.application.settings['greeting'], os.getpid()))


class Server(multiprocessing.Process):
    def __init__(self, port, routes, settings, debug):
        super(Server, self).__init__(name='Server.%i' % port)
        self.port, self.routes, self.settings, self.debug = port, routes, settings, debug

    def run(self):
        clihelper.setup_logging(self.debug)
        self.ioloop = ioloop.IOLoop.instance()
        signal.signal(signal.SIGABRT, self.on_sigabrt)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.server = httpserver.HTTPServer(web.Application(
            [(pattern, globals()[name]) for pattern, name in self.routes], **self.settings))
        self.server.listen(self.port, '127.0.0.1')
        self.ioloop.add_callback(LOGGER.info, 'listening on %i', self.port)
        self.ioloop.start()

    def on_sigabrt(self, signum, frame):
        self.ioloop.add_callback_from_signal(self.ioloop.stop)


class WebFarm(clihelper.Controller):
    def __init__(self, options, arguments):
        super(WebFarm, self).__init__(options, arguments)
        self._children = list()

    def _setup(self):
        if self._options.path:
            sys.path.insert(0, self._options.path)
        LOGGER.info('setup, arguments %r, path %r', self._arguments, self._options.path)
        self._config['Application']['greeting'] = self._get_config('greeting') or 'hello'
        self._children = [
            Server(port, self._config['Routes'], {'greeting': self._get_config('greeting')},
                   self._debug)
            for port in self._config['HTTPServer']['ports']]
        for child in self._children:
            child.start()

    def _cleanup(self):
        for child in self._children:
            os.kill(child.pid, signal.SIGABRT)
        for child in self._children:
            child.join()
        LOGGER.info('cleanup of %d children', len(self._children))


def options(parser):
    parser.add_option('-p', '--path', action='store', type='string', dest='path', default=None,
                      help='Path to prepend to the Python system path [default: %default]')


def main():
    clihelper.setup('webfarm', 'A process for each port', '1.0.0')
    [clihelper.add_config_key(key) for key in REQUIRED]
    clihelper.run(WebFarm, options)


if __name__ == '__main__':
    main()
