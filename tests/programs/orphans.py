"""Leaves an orphan behind each time that it works, and has a child of its own."""

import os
import subprocess
import sys

import clihelper


class Orphans(clihelper.Controller):
    def _process(self):
        done = subprocess.run(['sh', '-c', 'sleep 0.05 & exit 7'])
        self.logger.info('own child: %d', done.returncode)
        if self.application_config.get('die'):
            os.kill(os.getpid(), 9)


def wait_for_a_line():
    print('forked', flush=True)
    os.read(0, 1)


if 'HELD_AT_FORK' in os.environ:
    os.register_at_fork(after_in_child=wait_for_a_line)
clihelper.setup('orphans')
clihelper.run(Orphans)
print('after run', os.getpid())
sys.exit(3)
