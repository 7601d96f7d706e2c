"""The program with a loop of its own of clihelper's announcement in 2012."""

from tornado import ioloop

import clihelper


class MyApp(clihelper.Controller):
    def _loop(self):
        self._ioloop = ioloop.IOLoop.instance()
        self._ioloop.start()

    def _shutdown(self):
        self._ioloop.stop()


if __name__ == '__main__':
    clihelper.setup('MyApp', 'MyApp is just a demo', '0.0.1')
    clihelper.run(MyApp)
