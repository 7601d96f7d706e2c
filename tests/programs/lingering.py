"""Programs that are still at work after their _cleanup: lingering.py CLASS -c FILE ..."""

import atexit
import sys
import threading

import reports


@atexit.register
def last():
    """Called after what is registered later, as exit handlers are."""
    if sys.argv[1:] and 'last' in reports._held:
        reports.at('last')


import clihelper  # noqa: E402


class Lingering(clihelper.Controller):
    def _setup(self):
        reports.at('setup')

    def _process(self):
        reports.at('process')

    def _cleanup(self):
        reports.at('cleanup')


class Thread(Lingering):
    """Has a thread that works on; it is no daemon thread."""

    def _setup(self):
        threading.Thread(target=reports.at, args=('lingers',), name='baker').start()
        super()._setup()


class Executor(Lingering):
    """Has submitted a job."""

    def _setup(self):
        from concurrent.futures import ThreadPoolExecutor

        self.executor = ThreadPoolExecutor(thread_name_prefix='baker')
        self.executor.submit(reports.at, 'lingers')
        super()._setup()


class ExitHandler(Lingering):
    """Has an exit handler that takes its time."""

    def _setup(self):
        atexit.register(reports.at, 'lingers')
        super()._setup()


class Failing(Thread):
    """Fails while a thread of it works on."""

    def _process(self):
        raise ValueError('all is lost')


class FailingSetup(Thread):
    def _setup(self):
        super()._setup()
        raise ValueError('all is lost')


class Printing(Lingering):
    """Has an exit handler that prints what the interpreter writes when all else has ended."""

    def _setup(self):
        atexit.register(print, 'x' * 1000)
        super()._setup()


class Parent(Lingering):
    """Has a child that outlives it."""

    def _setup(self):
        from multiprocessing import get_context

        child = get_context('fork').Process(target=reports.at, args=('child',))
        child.start()
        super()._setup()


def main():
    controller = globals()[sys.argv.pop(1)]
    clihelper.setup('lingering', 'Is still at work.', '1.0')
    clihelper.run(controller)
    reports.report('after run')


if __name__ == '__main__':
    main()
