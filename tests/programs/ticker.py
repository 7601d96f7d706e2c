"""Ticks fast, and prints its tick's number now and then."""

import clihelper


class Ticker(clihelper.Controller):
    ticks = 0

    def _process(self):
        self.ticks += 1
        if self.ticks % 2000 == 0:
            self.logger.info('tick %d', self.ticks)


clihelper.setup('ticker')
clihelper.run(Ticker)
