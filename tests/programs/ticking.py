"""Reports when _process begins and ends, by both clocks: ticking.py CLASS -c FILE ..."""

import select
import sys
import time

import reports

import clihelper


class Ticking(clihelper.Controller):
    """``Application.work`` is how long _process takes, in seconds."""

    def _process(self):
        reports.report('tick', time.monotonic(), time.time())
        select.select([], [], [], self.application_config.get('work', 0))
        reports.report('done', time.monotonic())

    def on_configuration_reloaded(self):
        reports.report('reloaded')


class Deciding(Ticking):
    """Decides each delay itself."""

    @property
    def wake_interval(self):
        return 0.05


class Ioloop(clihelper.IOLoopController):
    def _process(self):
        reports.report('tick', time.monotonic(), time.time())


def main():
    controller = globals()[sys.argv.pop(1)]
    clihelper.setup('ticking', 'Ticks.', '1.0')
    clihelper.run(controller)


if __name__ == '__main__':
    main()
