"""Programs of 1.x with multiprocessing, one class for each: legacy_forking.py CLASS ..."""

import sys

from reports import report

import clihelper

NAME = sys.argv.pop(1)
SHARED = []

if NAME not in ('ImportsLater', 'HasNone'):
    import multiprocessing
if NAME == 'HasLock':
    LOCK = multiprocessing.Lock()


def work(*shared):
    config = clihelper.get_configuration()
    report('child', SHARED, *shared, config['Application']['wake_interval'])


class Imports(clihelper.Controller):

    def _setup(self):
        SHARED.append(self._get_config('wake_interval'))
        self.child = multiprocessing.Process(target=work)
        self.child.start()

    def _cleanup(self):
        self.child.join()
        report('cleanup', self.child.exitcode)


class ImportsLater(Imports):

    def _setup(self):
        global multiprocessing
        import multiprocessing
        Imports._setup(self)


class HasLock(Imports):

    def _setup(self):
        SHARED.append(self._get_config('wake_interval'))
        with LOCK:
            self.child = multiprocessing.Process(target=locked)
            self.child.start()
            report('locked')


def locked():
    with LOCK:
        work()


class NamesNothing(clihelper.Controller):
    """Only what is left of the program tells its age."""

    def _setup(self):
        SHARED.append(60)
        self.child = multiprocessing.Process(target=work)
        self.child.start()

    def _cleanup(self):
        self.child.join()
        report('cleanup', self.child.exitcode)


class Chooses(clihelper.Controller):

    def _setup(self):
        report('method', self._get_config('method'), multiprocessing.get_start_method())


class ChoosesLater(clihelper.Controller):

    def _setup(self):
        multiprocessing.set_start_method(self._get_config('method'))
        report('method', self._get_config('method'), multiprocessing.get_start_method())


class HasNone(clihelper.Controller):

    def _setup(self):
        report('imported', self._get_config('absent'), 'multiprocessing' in sys.modules)


class OfToday(clihelper.Controller):

    def _setup(self):
        report('method', multiprocessing.get_start_method())


if __name__ == '__main__':
    if NAME == 'NamesNothing':
        clihelper.set_appname('forking')
    if NAME == 'Chooses':
        multiprocessing.set_start_method('spawn')
    clihelper.setup('forking', 'Forks', '1.0.0')
    clihelper.run(globals()[NAME])
