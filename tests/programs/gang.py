"""A consumer that does what the message says, and notes each run.

KIND says by what: coroutines, batches, or coroutines for batches.
"""

import asyncio
import collections
import ctypes
import os
import signal
import time

import clihelper


class Noting:
    def _setup(self):
        if self.application_config.get('fail'):
            raise ValueError('no hands')
        self.notes = os.open(
            self.application_config['notes'], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
        )

    def note(self, what, name):
        line = f'{what} {name} {os.getpid()} {self.worker} {time.monotonic()}\n'
        os.write(self.notes, line.encode())
        self.metrics.count('notes', what=what)
        self.metrics.gauge('pid', os.getpid())
        self.metrics.observe('name_characters', len(str(name)))

    def do_segfault(self):
        ctypes.string_at(0)

    def do_exit(self):
        os._exit(0)

    def do_kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_massacre(self):
        """As when a control group is out of memory, and all of its processes are killed."""
        supervisor = os.getppid()
        with open(f'/proc/{supervisor}/task/{supervisor}/children') as file:
            workers = {int(pid) for pid in file.read().split()}
        for pid in (supervisor, *(workers - {os.getpid()}), os.getpid()):
            os.kill(pid, signal.SIGKILL)

    def do_devour(self):
        """Until the kernel has enough of it."""
        with open('/proc/self/oom_score_adj', 'w') as file:
            file.write('1000')
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(4096)) * 4096)

    def do_hang(self):
        time.sleep(600)

    def do_seize(self):
        """Hang in C, with the interpreter's lock held; no signal ends a wait for a mutex."""
        lock, mutex = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
        lock(mutex)
        lock(mutex)

    def do_nap(self):
        time.sleep(0.3)

    def runs(self):
        with open(self.application_config['notes']) as file:
            lines = [line.split() for line in file]
        return collections.Counter(f'return {words[1]}' for words in lines if words[0] == 'run')

    def is_open(self):
        return os.path.exists(self.application_config['notes'] + '.open')

    def do_gate(self):
        while not self.is_open():
            time.sleep(0.01)

    def do_publish(self):
        return self.publish('told', routing_key=next(iter(self.config.amqp['queues'])))

    def do_misdirect(self):
        return self.publish('told', routing_key='nowhere')

    def do_fail(self):
        raise ValueError('not today')

    def do_reject(self):
        raise clihelper.Reject('not ours')

    def do_requeue(self):
        """At its first delivery."""
        if not self.message.redelivered:
            raise clihelper.Requeue

    def do_return(self):
        """As often as it takes to be dropped by a quorum queue that was not told."""
        if self.runs()[self.message.body] < 30:
            raise clihelper.Requeue

    def do_ack(self):
        self.message.ack()

    def do_discard(self):
        self.message.reject()

    def do_vary(self):
        if self.message.attempts == 2:
            os._exit(0)
        raise ValueError('not today')


class Gang(Noting, clihelper.ConsumerController):
    def on_message(self, body, message):
        self.message = message
        what, _, name = body.partition(' ')
        self.note('run', name or what)
        getattr(self, f'do_{what}', lambda: None)()
        self.note('done', name or what)


class GangOfCoroutines(Noting, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        what, _, name = body.partition(' ')
        self.note('run', name or what)
        await asyncio.sleep(0.05)
        answer = getattr(self, f'do_{what}', lambda: None)()
        if answer is not None:
            await answer
        self.note('done', name or what)

    def do_hang(self):
        return asyncio.sleep(600)

    async def do_gate(self):
        while not self.is_open():
            await asyncio.sleep(0.01)

    def do_nap(self):
        return asyncio.sleep(0.3)

    def do_sleep(self):
        return asyncio.sleep(2)


class GangForBatches(Noting, clihelper.ConsumerController):
    def on_messages(self, messages):
        self.note('batch', len(messages))
        for self.message in messages:
            what, _, name = self.message.body.partition(' ')
            self.note('run', name or what)
            getattr(self, f'do_{what}', lambda: None)()
        for message in messages:
            self.note('done', message.body.split()[-1])
        return self.application_config.get('answer')


class GangOfCoroutinesForBatches(Noting, clihelper.AsyncConsumerController):
    do_hang = GangOfCoroutines.do_hang
    do_gate = GangOfCoroutines.do_gate
    do_nap = GangOfCoroutines.do_nap

    async def on_messages(self, messages):
        self.note('batch', len(messages))
        for message in messages:
            self.message = message
            what, _, name = message.body.partition(' ')
            self.note('run', name or what)
            answer = getattr(self, f'do_{what}', lambda: None)()
            if answer is not None:
                await answer
        for message in messages:
            self.note('done', message.body.split()[-1])
        return self.application_config.get('answer')


KINDS = {
    'coroutines': GangOfCoroutines,
    'batches': GangForBatches,
    'coroutines for batches': GangOfCoroutinesForBatches,
}

clihelper.setup('gang')
clihelper.run(KINDS.get(os.environ.get('KIND'), Gang))
