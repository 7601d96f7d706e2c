"""A consumer that does what the message says, where a handler does what handlers should not."""

import os
import resource
import sys
import threading
import time

import clihelper


class Odd(Exception):
    def __str__(self):
        raise RuntimeError('no text')

    __repr__ = __str__


class Stopped(Exception):
    stopped = True


Long = type('L' * 200_000, (Exception,), {})


class Outcomes(clihelper.ConsumerController):
    kept = None

    def on_message(self, body, message):
        text = body.decode('latin-1') if isinstance(body, bytes) else str(body)
        self.logger.info('run %d of %s', message.attempts, text[:60])
        word, _, argument = text.partition(' ')
        result = getattr(self, f'do_{word}', self.do_nothing)(argument, message)
        self.logger.info('done %s', text[:60])
        return result

    def do_nothing(self, argument, message):
        return None

    def do_work(self, argument, message):
        """Work until the file exists."""
        while not os.path.exists(self.application_config['go']):
            time.sleep(0.005)

    def do_nap(self, argument, message):
        time.sleep(0.05)

    def do_fail(self, argument, message):
        raise ValueError('it failed')

    def do_reject(self, argument, message):
        raise clihelper.Reject('never')

    def do_requeue(self, argument, message):
        runs = self.requeued = getattr(self, 'requeued', 0) + 1
        if runs < int(argument):
            raise clihelper.Requeue

    def do_return(self, argument, message):
        runs = self.returned = getattr(self, 'returned', 0) + 1
        if runs < int(argument):
            message.requeue()

    def do_odd(self, argument, message):
        raise Odd

    def do_stopped(self, argument, message):
        raise Stopped('it has an attribute of that name')

    def do_long_text(self, argument, message):
        raise ValueError('é' * 50_000_000)

    def do_long_name(self, argument, message):
        raise Long('its class has a long name')

    def do_headers(self, argument, message):
        for _ in range(2):
            try:
                self.logger.info('headers %r', message.headers)
            except ValueError as error:
                self.logger.info('no headers: %s', error)
        raise ValueError('they cannot be read')

    def do_answer(self, argument, message):
        return {'empty': b'', 'nan': float('nan'), 'large': b'x' * 3_000_000}[argument]

    def do_exhaust(self, argument, message):
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, self.limits[1]))
        raise ValueError('there is no descriptor left')

    def on_sigusr2(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)

    def do_ack_in_thread(self, argument, message):
        threads = [threading.Thread(target=message.ack) for _ in range(3)]
        for thread in threads:
            thread.start()

    def do_fork(self, argument, message):
        child = os.fork()
        if not child:
            self.in_child(argument)
            return
        self.logger.info('the child ended with %d', os.waitstatus_to_exitcode(
            os.waitpid(child, 0)[1]))  # fmt: skip

    def in_child(self, argument):
        if argument == 'publish':
            try:
                self.publish('from the child', routing_key='nowhere')
            except RuntimeError as error:
                self.logger.info('in the child: %s', error)
        elif argument == 'exit':
            sys.exit(7)
        elif argument == 'raise':
            raise ValueError('in the child')
        elif argument == 'odd':
            raise Odd
        elif argument == 'odd_exit':
            sys.exit(Odd())


clihelper.setup('outcomes')
clihelper.run(Outcomes)
