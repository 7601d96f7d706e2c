"""A program whose log handlers have threads: ``queued.Queued`` and ``queued.Threaded``."""

import logging
import logging.handlers
import queue
import threading

import clihelper


class Queued(logging.handlers.QueueHandler):
    """Starts its listener itself, as in many a recipe; it can be made by a factory only."""

    def __init__(self, filename):
        super().__init__(queue.SimpleQueue())
        self.its_own = logging.handlers.QueueListener(self.queue, logging.FileHandler(filename))
        self.its_own.start()


class Threaded(logging.FileHandler):
    """Has a thread that nobody but it can begin anew."""

    def __init__(self, filename):
        super().__init__(filename)
        threading.Thread(target=threading.Event().wait, name='writer', daemon=True).start()


class Worker(clihelper.Controller):
    def _process(self):
        self.logger.info('worker %d works', self.worker)

    def _cleanup(self):
        self.logger.info('worker %d cleans up', self.worker)


if __name__ == '__main__':
    clihelper.setup('queued')
    clihelper.run(Worker)
