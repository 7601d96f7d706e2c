"""A consumer whose handler does what a plan says, and keeps a journal of it.

MODEL_KIND in the environment says whether coroutines do it.
"""

import asyncio
import os
import signal
import sys
import threading
import time

import clihelper
from tests.model.journal import Journal
from tests.model.plan import EXIT_STATUS, plan


class Planned:
    def _setup(self):
        self.journal = Journal(self.application_config['journal'])
        self.seed = self.application_config['seed']

    def begin(self, body, message):
        run, descriptor = self.journal.begin(int(body), message)
        return plan(self.seed, int(body), run), descriptor

    def end(self, message, step, descriptor):
        self.journal.did(step.what, descriptor)
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


class Model(Planned, clihelper.ConsumerController):
    def on_message(self, body, message):
        step, descriptor = self.begin(body, message)
        time.sleep(step.work)
        self.end(message, step, descriptor)


class ModelOfCoroutines(Planned, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        step, descriptor = self.begin(body, message)
        await asyncio.sleep(step.work)
        self.end(message, step, descriptor)


clihelper.setup('model', 'Does what a plan says.', '1.0')
clihelper.run(ModelOfCoroutines if os.environ.get('MODEL_KIND') == 'coroutines' else Model)
