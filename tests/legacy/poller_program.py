"""A poller in the style of 1.6: a computed wake interval, threads, and a queue for their results.

Every source is polled in a thread of its own; what they find is summed up, and the time that all
of it took is taken off the next interval.
"""

import logging
import queue
import threading
import time

import clihelper

LOGGER = logging.getLogger('poller')


class Poller(clihelper.Controller):
    IGNORED = ['poll_interval']

    def __init__(self, options, arguments):
        self.next_wake_interval = self.WAKE_INTERVAL
        super(Poller, self).__init__(options, arguments)
        self.results = queue.Queue()
        self.threads = list()
        self._wake_interval = self.application_config.get('poll_interval', self.WAKE_INTERVAL)

    def setup(self):
        LOGGER.info('setup with %s', ' '.join(sorted(self.sources)))

    @property
    def sources(self):
        return [key for key in self.application_config.keys() if key not in self.IGNORED]

    def poll(self, name, config):
        time.sleep(config['takes'])
        self.results.put((name, config['value']))

    @property
    def threads_running(self):
        return any(thread.is_alive() for thread in self.threads)

    def process(self):
        started = time.time()
        for name in self.sources:
            thread = threading.Thread(
                target=self.poll, args=(name, self.application_config.get(name)))
            thread.start()
            self.threads.append(thread)
        while self.threads_running:
            self._sleep()
        self.threads = list()
        total = 0
        while self.results.qsize():
            total += self.results.get()[1]
        self.next_wake_interval = max(self._wake_interval - (time.time() - started), 0.01)
        LOGGER.info('total %d, awake again in %.2f', total, self.next_wake_interval)

    def cleanup(self):
        LOGGER.info('cleanup with %d threads', len(self.threads))

    @property
    def wake_interval(self):
        return self.next_wake_interval


def main():
    clihelper.setup('poller', 'Polls and sums up', '1.0.0')
    clihelper.run(Poller)


if __name__ == '__main__':
    main()
