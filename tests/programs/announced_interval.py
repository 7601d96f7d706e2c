"""The interval program of clihelper's announcement in 2012; its way of working, in Python 3."""

import clihelper


class MyApp(clihelper.Controller):
    def _process(self):
        self._logger.info('Would be processing at the specified interval now')


if __name__ == '__main__':
    clihelper.setup('MyApp', 'MyApp is just a demo', '0.0.1')
    clihelper.run(MyApp)
