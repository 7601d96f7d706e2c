"""clihelper's IOLoop controller with the server of the bare Tornado program."""

from event import work
from tornado.httpserver import HTTPServer
from tornado.web import Application

import clihelper


class Server(clihelper.IOLoopController):
    def _setup(self):
        HTTPServer(Application()).listen(0, '127.0.0.1')
        self.io_loop.add_callback(work)


clihelper.setup('server', 'Serves.', '1.0')
clihelper.run(Server)
