"""A consumer that handles messages with the same key in order, and notes each run.

A body is ``KEY NUMBER WHAT...``. The file that ``Application.notes`` names is opened with
O_APPEND by all workers. KIND says by coroutines.
"""

import asyncio
import os
import random
import signal
import time

import clihelper


class Noting:
    def _setup(self):
        self.notes = os.open(
            self.application_config['notes'], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
        )
        self.seen = {}

    def order_key(self, message):
        key = message.raw.decode().split()[0]
        if key == 'keyless':
            return None
        if key == 'broken':
            raise ValueError('no key')
        return [] if key == 'unhashable' else key

    def note(self, what, body, message):
        key, number, *_ = body.split()
        line = f'{what} {key} {number} {os.getpid()} {message.attempts} {message.queue}\n'
        os.write(self.notes, line.encode())

    def pause(self):
        return random.random() * self.application_config.get('pause', 0)

    def do(self, body, message):
        _, _, *what = body.split()
        if 'flaky' in what and random.random() < 0.3:
            raise ValueError('not today')
        if 'fail' in what:
            raise ValueError('never')
        if 'twice' in what and message.attempts < 3:
            raise ValueError('not yet')
        count = self.seen[body] = self.seen.get(body, 0) + 1
        if 'requeue' in what and count < 3:
            raise clihelper.Requeue
        if 'back' in what and count < 3:
            message.requeue()
        if 'kill' in what:
            os.kill(os.getpid(), signal.SIGKILL)
        if 'vary' in what:
            if count == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError('not today')


class Ordered(Noting, clihelper.ConsumerController):
    def on_message(self, body, message):
        self.note('run', body, message)
        while 'gate' in body and not os.path.exists(self.application_config['notes'] + '.open'):
            time.sleep(0.01)
        time.sleep(self.pause())
        try:
            self.do(body, message)
        except BaseException:
            self.note('failed', body, message)
            raise
        self.note('back' if message.outcome else 'done', body, message)


class OrderedCoroutines(Noting, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        self.note('run', body, message)
        while 'gate' in body and not os.path.exists(self.application_config['notes'] + '.open'):
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.pause())
        try:
            self.do(body, message)
        except BaseException:
            self.note('failed', body, message)
            raise
        self.note('back' if message.outcome else 'done', body, message)


clihelper.setup('ordered')
clihelper.run(OrderedCoroutines if os.environ.get('KIND') == 'coroutines' else Ordered)
