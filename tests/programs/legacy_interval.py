"""An interval program of 1.x that reports: legacy_interval.py STYLE WAY ...

STYLE is the names that it uses: ``earlier`` are those of 1.4, ``later`` those of 1.6. WAY is what
its process hook does: ``works``; ``computes``, with an interval of its own; ``raises``;
``exits``.
"""

import logging
import os
import sys
import time

from reports import at, report

import clihelper

STYLE, WAY = sys.argv[1:3]
del sys.argv[1:3]


class Base(clihelper.Controller):
    def begin(self):
        report('setup', time.monotonic(), self._get_config('word'))
        report('place', os.getcwd(), os.umask(0o022), os.getppid())

    def work(self):
        report('process', time.monotonic())
        logging.getLogger('work').debug('works')
        at('working')
        time.sleep(self._get_config('takes') or 0)
        if WAY == 'raises':
            raise ValueError('it is broken')
        if WAY == 'exits':
            sys.exit(3)
        report('processed', time.monotonic())

    def finish(self):
        report('cleanup')


class Earlier(Base):
    def _setup(self):
        self.begin()

    def _process(self):
        self.work()

    def _cleanup(self):
        self.finish()

    def _on_sigusr2(self):
        report('usr2')


class Later(Base):
    def setup(self):
        self.begin()

    def process(self):
        self.work()

    def cleanup(self):
        self.finish()

    def on_sigusr2(self):
        report('usr2')


if WAY == 'computes':

    class Earlier(Earlier):
        def _get_wake_interval(self):
            return self._get_config('computed')

    class Later(Later):
        @property
        def wake_interval(self):
            return self.application_config['computed']


if __name__ == '__main__':
    clihelper.setup('legacy', 'Works now and then', '1.0.0')
    if 'REQUIRED' in os.environ:
        clihelper.add_config_key(os.environ['REQUIRED'])
    clihelper.run({'earlier': Earlier, 'later': Later}[STYLE])
