"""clihelper's interval controller."""

from event import work

import clihelper


class Worker(clihelper.Controller):
    def _process(self):
        work()


clihelper.setup('worker', 'Works.', '1.0')
clihelper.run(Worker)
