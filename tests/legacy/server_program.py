"""A Tornado daemon in the style of 1.4: it starts the IOLoop from ``_process``.

There is a class between clihelper's and the program's, with a ``process`` of its own.
"""

import logging

from tornado import ioloop, web

import clihelper

LOGGER = logging.getLogger('server')


class DaemonProcess(clihelper.Controller):
    def start_loop(self):
        self._ioloop = ioloop.IOLoop.instance()
        self._ioloop.add_callback(LOGGER.info, 'loop runs')
        self._ioloop.start()
        LOGGER.info('loop has ended')

    def _process(self):
        self.process()
        self.start_loop()

    def process(self):
        raise NotImplementedError

    def _cleanup(self):
        self.finish()
        self._ioloop.stop()

    def finish(self):
        pass


class Ping(web.RequestHandler):
    def get(self):
        self.write('pong\n')


class Server(DaemonProcess):
    def process(self):
        self.listening = web.Application([('/', Ping)]).listen(
            self._get_config('port'), '127.0.0.1')
        LOGGER.info('process')

    def finish(self):
        self.listening.stop()
        LOGGER.info('finish')


def main():
    clihelper.setup('server', 'Answers', '0.1')
    clihelper.run(Server)


if __name__ == '__main__':
    main()
