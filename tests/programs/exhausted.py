"""Takes every descriptor it may have in _setup, and gives them back on USR2."""

import os
import resource

import clihelper


class Exhausted(clihelper.Controller):
    taken = None

    def _setup(self):
        self.logger.info('setup')
        if self.taken is None:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, most))
            self.taken = []
            try:
                while True:
                    self.taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                self.logger.info('exhausted')

    def on_sigusr2(self):
        while self.taken:
            os.close(self.taken.pop())
        self.logger.info('relieved')

    def on_configuration_reloaded(self):
        self.logger.info('reloaded')

    def _process(self):
        self.logger.info('process')


clihelper.setup('exhausted')
clihelper.run(Exhausted)
