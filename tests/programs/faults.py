"""A consumer for tests of faults: it does what the message says, and logs it.

A message is words: what to do, and with what.
"""

import os
import resource
import time

import clihelper


class Faults(clihelper.ConsumerController):
    kept = None

    def _process(self):
        self.logger.info('tick')

    def on_message(self, body, message):
        text = body if isinstance(body, str) else repr(body)[:100]
        self.logger.info('got %s%s', text[:100], ' again' if message.redelivered else '')
        word, *more = text.split()
        result = getattr(self, f'do_{word}', self.do_nothing)(message, *more)
        self.logger.info('done %s', text[:100])
        return result

    def do_nothing(self, message, *_):
        pass

    def do_fail(self, message, *_):
        raise ValueError('it failed')

    def do_work(self, message, *_):
        """Work until the file 'go' exists."""
        while not os.path.exists(self.application_config['go']):
            time.sleep(0.005)

    def do_sleep(self, message, seconds):
        end = time.monotonic() + float(seconds)
        while (left := end - time.monotonic()) > 0:
            time.sleep(left)

    def do_publish(self, message, key, exchange=''):
        started = time.monotonic()
        try:
            self.publish('published', exchange=exchange, routing_key=key)
        except clihelper.PublishError as error:
            self.logger.info('publish failed in %.2f s: %s', time.monotonic() - started, error)
        else:
            self.logger.info('published in %.2f s', time.monotonic() - started)

    def do_publish_and_raise(self, message, key):
        self.publish('published', routing_key=key)

    def do_keep(self, message, *_):
        """Settle it later, over whatever connection there is then."""
        self.kept = message
        self.do_work(message)

    def do_settle_kept(self, message, *_):
        self.kept.ack()

    def do_exhaust(self, message, *_):
        highest = max(map(int, os.listdir('/proc/self/fd')))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(7)[1]))
        self.logger.info('exhausted below %d', highest)

    def on_sigusr2(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))
        self.logger.info('relieved')


clihelper.setup('faults')
clihelper.run(Faults)
