"""clihelper's IOLoop controller with the server of web.py: at Daemon.listen, or at a port."""

import time

import web
from event import work

import clihelper

READ = 0.02
"""seconds after the stop in which requests begin whose headers had been read before"""


class Server(clihelper.IOLoopController):
    """Tells when it is ready, and at the end of each round how many requests it has begun late."""

    def _setup(self):
        web.begun.clear()
        server = web.server()
        if self.sockets:
            server.add_sockets(self.sockets)
        else:
            server.listen(self.application_config['port'], '127.0.0.1')
        self.told = float('inf')
        self.io_loop.add_callback(work)

    def on_sigterm(self):
        super().on_sigterm()
        self.told = time.monotonic()

    def _cleanup(self):
        late = [when for when in web.begun if when > self.told + READ]
        web.tell(len(web.begun), len(late))


clihelper.setup('server', 'Serves.', '1.0')
clihelper.run(Server)
