"""A supervisor of consumers in the style of 1.6: its own ``run``, which pauses for the alarm.

The consumers are processes. It looks after them each second by an alarm of its own, and ``stop``
gives them three seconds, by the alarm, too.
"""

import logging
import multiprocessing
import signal
import time

import clihelper

LOGGER = logging.getLogger('supervisor')


def consume(name, ends):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while not ends.is_set():
        time.sleep(0.01)
    logging.getLogger('supervisor').info('consumer %s has ended', name)


class Manager(object):
    def __init__(self, config, quantity):
        self.config = config
        self.quantity = quantity
        self.processes = dict()
        self.is_running = False
        self.polled = 0

    def poll(self, signum=None, frame=None):
        self.polled += 1
        for name, (process, ends) in list(self.processes.items()):
            if not process.is_alive():
                del self.processes[name]
        signal.setitimer(signal.ITIMER_REAL, self.config['Application']['poll_interval'], 0)

    def run(self):
        for number in range(self.quantity):
            ends = multiprocessing.Event()
            process = multiprocessing.Process(target=consume, args=(str(number), ends))
            process.start()
            self.processes[str(number)] = process, ends
        self.is_running = True
        signal.signal(signal.SIGALRM, self.poll)
        self.poll()
        LOGGER.info('manager started %d', self.quantity)
        while self.is_running:
            signal.pause()

    def stop_processes(self):
        for process, ends in self.processes.values():
            ends.set()
        for process, ends in self.processes.values():
            process.join()
        self.poll()
        self.is_running = bool(self.processes)


class Supervisor(clihelper.Controller):
    def _setup(self):
        LOGGER.info('setup, %d consumers', self._options.quantity)

    def stop(self):
        LOGGER.info('stop, %s', self.is_running)
        self.set_state(self.STATE_STOP_REQUESTED)
        signal.setitimer(signal.ITIMER_PROF, 0, 0)
        self._manager.stop_processes()
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0)
        signal.pause()
        self._manager.is_running = False
        self._stopped()
        LOGGER.info('stopped after %d polls', self._manager.polled)

    def run(self):
        self._setup()
        self._manager = Manager(self._config, self._options.quantity)
        try:
            self._manager.run()
        except KeyboardInterrupt:
            LOGGER.info('CTRL-C')
            clihelper.setup_logging(self._debug)
        if self.is_running:
            self.stop()


def options(parser):
    parser.add_option('-q', '--qty', action='store', type='int', default=2, dest='quantity',
                      help='How many consumers [default: %default]')


def main():
    clihelper.setup('supervisor', 'Looks after consumers', '3.0.0')
    clihelper.run(Supervisor, options)


if __name__ == '__main__':
    main()
