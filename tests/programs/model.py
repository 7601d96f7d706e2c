"""A consumer whose handler does what a plan says, and keeps a journal of it."""

import os
import signal
import sys
import threading
import time

import clihelper
from tests.model.journal import Journal
from tests.model.plan import EXIT_STATUS, plan


class Model(clihelper.ConsumerController):
    def _setup(self):
        self.journal = Journal(self.application_config['journal'])
        self.seed = self.application_config['seed']

    def on_message(self, body, message):
        number = int(body)
        run = self.journal.begin(number, message)
        step = plan(self.seed, number, run)
        time.sleep(step.work)
        self.journal.did(step.what)
        getattr(self, f'do_{step.what}')(message, step)

    def do_return(self, message, step):
        pass

    def do_ack(self, message, step):
        message.ack()

    def do_ack_in_thread(self, message, step):
        in_thread(message.ack)

    def do_ack_beside(self, message, step):
        threading.Thread(target=message.ack).start()

    def do_ack_and_raise(self, message, step):
        message.ack()
        raise ValueError('after it was acknowledged')

    def do_raise_reject(self, message, step):
        raise clihelper.Reject('as planned')

    def do_reject(self, message, step):
        message.reject()

    def do_reject_in_thread(self, message, step):
        in_thread(message.reject)

    def do_raise_error(self, message, step):
        raise ValueError('as planned')

    def do_raise_retry(self, message, step):
        raise clihelper.Retry('as planned', delay=step.delay)

    def do_leave(self, message, step):
        sys.exit('as planned')

    def do_raise_requeue(self, message, step):
        raise clihelper.Requeue('as planned')

    def do_requeue(self, message, step):
        message.requeue()

    def do_requeue_in_thread(self, message, step):
        in_thread(message.requeue)

    def do_kill(self, message, step):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_exit(self, message, step):
        os._exit(EXIT_STATUS)


def in_thread(settle):
    thread = threading.Thread(target=settle)
    thread.start()
    thread.join()


clihelper.setup('model', 'Does what a plan says.', '1.0')
clihelper.run(Model)
