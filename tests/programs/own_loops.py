"""Programs that wait for work in a way of their own: own_loops.py CLASS -c FILE ..."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import reports

import clihelper


class Reporting(clihelper.Controller):
    def _setup(self):
        reports.at('setup')

    def _cleanup(self):
        reports.at('cleanup')

    def on_configuration_reloaded(self):
        reports.report('reloaded')


class Sleeping(Reporting):
    """Looks at is_running."""

    def _loop(self):
        reports.at('loop')
        while self.is_running:
            time.sleep(0.05)


class Waiting(Reporting):
    """Waits with self.wait."""

    def _loop(self):
        reports.at('loop')
        while self.wait(3600):
            pass


class WaitingInThread(Reporting):
    """The main thread waits for one that waits with self.wait."""

    def _loop(self):
        thread = threading.Thread(target=self.work)
        thread.start()
        while thread.is_alive():
            thread.join(0.05)

    def work(self):
        reports.at('loop')
        goes_on = self.wait(3600)
        reports.report('waited', goes_on)


class Tornado(Reporting):
    """Has an IOLoop of its own, as in 2012."""

    def _loop(self):
        from tornado import ioloop

        reports.at('before')
        self._ioloop = ioloop.IOLoop.instance()
        self._ioloop.add_callback(reports.at, 'loop')
        self._ioloop.start()

    def _shutdown(self):
        self._ioloop.stop()


class Blocking(Reporting):
    """Reads from a socket, and neither looks nor is told."""

    def _setup(self):
        super()._setup()
        self.ends = socket.socketpair()

    def _loop(self):
        reports.at('loop')
        self.ends[0].recv(1)

    def _shutdown(self):
        pass


class Swallowing(Blocking):
    """Goes on whatever is raised."""

    def _loop(self):
        while True:
            try:
                super()._loop()
            except BaseException as error:
                reports.report('swallowed', type(error).__name__)


class Told(Blocking):
    """The same, and its _shutdown ends the reading; it sets no state and calls no super."""

    def _shutdown(self):
        self.ends[1].send(b'.')


class Running(Reporting):
    """Has a _process that goes on until it is to stop."""

    def _process(self):
        reports.at('loop')
        while self.is_running:
            time.sleep(0.05)


class Pausing(Reporting):
    """Pauses for a SIGALRM of its own."""

    def _loop(self):
        self.ticks = 0
        signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        while self.is_running:
            signal.pause()

    def tick(self, signum, frame):
        self.ticks += 1
        if self.ticks == 3:
            reports.at('loop')

    def _shutdown(self):
        signal.setitimer(signal.ITIMER_REAL, 0)


class Logging(Reporting):
    """Logs all the time."""

    def _loop(self):
        reports.at('loop')
        while self.is_running:
            self.logger.info('%s', 'x' * 200)


class Printing(Reporting):
    """Prints and logs, each tick."""

    def _process(self):
        self.logger.info('logged')
        print('printed', flush=True)
        reports.at('loop')


class LoggingEachTick(Reporting):
    """The interval controller, which logs at each HUP."""

    def _process(self):
        self.logger.info('%s', 'x' * 200)
        reports.at('loop')


class Unstoppable(Waiting):
    """Replaces what TERM does."""

    def on_sigterm(self):
        reports.report('on_sigterm')


class StoppableWithSuper(Waiting):
    def on_sigterm(self):
        reports.report('on_sigterm')
        super().on_sigterm()


class FailingHook(Waiting):
    def on_sigterm(self):
        raise ValueError('a hook that fails')


class Asyncio(Reporting):
    """Has an asyncio loop of its own."""

    def _loop(self):
        asyncio.run(self.main())

    async def main(self):
        self.stopped = asyncio.Event()
        reports.at('loop')
        await self.stopped.wait()

    def _shutdown(self):
        self.stopped.set()


class OwnHandler(clihelper.IOLoopController):
    """Asyncio code that takes the wake-up descriptor for itself."""

    def _setup(self):
        loop = self.io_loop.asyncio_loop
        loop.add_signal_handler(signal.SIGWINCH, reports.report, 'SIGWINCH')

    def _process(self):
        reports.at('loop')

    def _cleanup(self):
        reports.at('cleanup')


class Forking(Waiting):
    """Has children."""

    def _setup(self):
        super()._setup()
        from multiprocessing import get_context

        child = get_context('fork').Process(target=time.sleep, args=(1000,))
        child.start()
        grandchild = subprocess.Popen(['sleep', '1000'])
        reports.report('children', child.pid, grandchild.pid)
        child.join()
        grandchild.wait()
        reports.report('statuses', child.exitcode, grandchild.returncode)


class Killed(Waiting):
    """Has a child that gets a signal before anything else happens in it."""

    def _setup(self):
        super()._setup()
        pid = os.fork()
        if not pid:
            os._exit(0)
        reports.report('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


class Ioloop(clihelper.IOLoopController):
    def _process(self):
        reports.at('loop')

    def _cleanup(self):
        reports.at('cleanup')


def main():
    controller = globals()[sys.argv.pop(1)]
    if controller is Killed:
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
    clihelper.setup('own_loops', 'Waits in its own way.', '1.0')
    clihelper.run(controller)


if __name__ == '__main__':
    main()
