"""Programs that end in each of the ways there are: endings.py CLASS -c FILE ..."""

import os
import sys
import warnings

import clihelper


class Idle(clihelper.Controller):
    def _setup(self):
        self.logger.info('idle with %s and %s', self.options.prefix, self.arguments)


class Exits(clihelper.Controller):
    def _process(self):
        sys.exit(3)


class ExitsWithAMessage(clihelper.Controller):
    def _process(self):
        sys.exit('all is lost')


class ExitsCleanly(clihelper.Controller):
    def _process(self):
        sys.exit()


class Raises(clihelper.Controller):
    def _process(self):
        raise KeyError('a fault of the program')

    def _cleanup(self):
        self.logger.info('cleaned up')


class RaisesInSetup(clihelper.Controller):
    def _setup(self):
        raise ValueError('cannot\n set up')


class RaisesInInit(clihelper.Controller):
    def __init__(self, options, arguments):
        super().__init__(options, arguments)
        raise ValueError('cannot be made')


class ExitsInSetup(clihelper.Controller):
    def _setup(self):
        sys.exit(4)


class RaisesInCleanup(clihelper.Controller):
    def _process(self):
        self.stop()

    def _cleanup(self):
        raise OSError('cannot clean up')


class Interrupted(clihelper.Controller):
    def _process(self):
        raise KeyboardInterrupt


class StopsItself(clihelper.Controller):
    def _process(self):
        self.stop()


class Dies(clihelper.Controller):
    def _setup(self):
        os._exit(9)


class Prints(clihelper.Controller):
    def _process(self):
        print('printed')
        warnings.simplefilter('default')
        warnings.warn('warned', stacklevel=1)
        self.stop()


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        pass


def add_options(parser):
    parser.add_option('-p', '--prefix', type='string', default='none', help='(%default)')


def main():
    controller = globals()[sys.argv.pop(1)]
    clihelper.setup('endings', 'Ends.', '1.2.3')
    clihelper.add_config_key('Application')
    clihelper.run(controller, add_options)
    print('the program goes on after run')


if __name__ == '__main__':
    main()
