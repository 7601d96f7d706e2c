"""A daemon for the tests of clihelper.testing: it tells what it does on stdout, a line each."""

import os
import sys

import clihelper


class Teller(clihelper.Controller):
    def _setup(self):
        if self.arguments == ['fail']:
            raise OSError('the disk is full')
        print('setup', os.geteuid(), flush=True)

    def _process(self):
        print('process', flush=True)

    def _cleanup(self):
        print('cleanup', file=sys.stderr, flush=True)


if __name__ == '__main__':
    clihelper.setup('teller', 'Tells what it does.', '1.0')
    clihelper.run(Teller)
