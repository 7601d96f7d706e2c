"""Programs that consume in loops of their own, do what messages say and log it: KIND says which.

``Application``: the ``queue``, a ``timeout``, a ``prefetch``, whether to use a ``with``, to begin
``again`` when a loop has ended, and whether it ``raises`` what has ended one, with the iterator
``kept`` in a variable.
"""

import asyncio
import os
import sys
import threading
import time

import clihelper


class Obeying:
    def obey(self, message):
        """Returns whether to break."""
        self.logger.info('got %r, run %d', message.body, message.attempts)
        return getattr(self, f'do_{message.body}', self.do_nothing)(message)

    def do_nothing(self, message):
        pass

    def do_fail(self, message):
        raise ConnectionResetError('the shop is closed')

    def do_break(self, message):
        return True

    def do_ack_and_break(self, message):
        message.ack()
        return True

    def do_ack_and_fail(self, message):
        message.ack()
        raise ConnectionResetError('the shop is closed')

    def do_reject(self, message):
        message.reject()

    def do_requeue(self, message):
        if not message.redelivered:
            message.requeue()

    def do_stop(self, message):
        self.stop()

    def do_die(self, message):
        os._exit(9)

    def do_hang(self, message):
        time.sleep(600)

    def do_fork(self, message):
        pid = os.fork()
        if not pid:
            raise SystemExit(0)
        self.logger.info('child ended with %d', os.waitpid(pid, 0)[1])

    def do_sleep(self, message):
        time.sleep(4)
        self.logger.info('slept')

    def do_work(self, message):
        """Work until the file 'go' exists."""
        while not os.path.exists(self.application_config['go']):
            time.sleep(0.005)
        self.logger.info('worked')

    def opened(self):
        config = self.application_config
        return self.messages(
            config['queue'], config.get('timeout'), prefetch=config.get('prefetch'))

    def failed(self, error):
        self.logger.info('left by %r', error)
        if self.application_config.get('raises'):
            raise error

    @property
    def begins_again(self):
        return self.is_running and self.application_config.get('again', False)


class Plain(Obeying):
    def iterate(self):
        self.iterate_once()
        while self.begins_again:
            self.iterate_once()

    def iterate_once(self):
        self.logger.info('begins')
        try:
            if self.application_config.get('with'):
                with self.opened() as messages:
                    for message in messages:
                        if self.obey(message):
                            break
            elif self.application_config.get('kept'):
                self.kept = self.opened()
                for message in self.kept:
                    self.obey(message)
            else:
                for message in self.opened():
                    if self.obey(message):
                        break
        except Exception as error:
            self.failed(error)
        self.logger.info('ended')


class Own(Plain, clihelper.Controller):
    def _loop(self):
        self.iterate()
        self.wait(3600)


class Ticking(Plain, clihelper.Controller):
    def _process(self):
        self.iterate()


class InThread(Plain, clihelper.Controller):
    def _setup(self):
        self.thread = threading.Thread(target=self.iterate)
        self.thread.start()

    def _cleanup(self):
        self.thread.join()


class Consuming(Plain, clihelper.ConsumerController):
    def _process(self):
        self.iterate()

    def on_message(self, body, message):
        self.logger.info('consumed %r', body)


class OnIOLoop(Obeying, clihelper.IOLoopController):
    def _setup(self):
        self.task = self.io_loop.asyncio_loop.create_task(self.iterate())

    async def iterate(self):
        await self.iterate_once()
        while self.begins_again:
            await self.iterate_once()

    async def iterate_once(self):
        self.logger.info('begins')
        try:
            if self.application_config.get('with'):
                async with self.opened() as messages:
                    async for message in messages:
                        if await self.obey_slowly(message):
                            break
            else:
                async for message in self.opened():
                    if await self.obey_slowly(message):
                        break
        except Exception as error:
            self.failed(error)
        self.logger.info('ended')

    async def obey_slowly(self, message):
        answer = self.obey(message)
        return await answer if hasattr(answer, '__await__') else answer

    async def do_work(self, message):
        while not os.path.exists(self.application_config['go']):
            await asyncio.sleep(0.005)
        self.logger.info('worked')


class Coroutines(OnIOLoop, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        self.logger.info('consumed %r', body)


class Both(clihelper.Controller):
    """Takes from two queues in turn."""

    def _loop(self):
        queue = self.application_config['queue']
        for one, other in zip(
                self.messages(queue), self.messages(f'{queue}.other'), strict=False):
            self.logger.info('got %r and %r', one.body, other.body)


class Cancelling(OnIOLoop):
    """Cancels its loop at a stop."""

    def _shutdown(self):
        self.task.cancel()
        super()._shutdown()


class Impatient(OnIOLoop):
    """Gives up waiting for a message, now and then."""

    async def iterate(self):
        self.logger.info('begins')
        messages = self.opened()
        for _ in range(2):
            while not await self.take(messages):
                self.logger.info('timed out')
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await messages.aclose()
        self.logger.info('closed %r', [message async for message in messages])

    async def take(self, messages):
        try:
            async with asyncio.timeout(0.1):
                message = await anext(messages)
        except TimeoutError:
            return False
        return self.obey(message) is None


KINDS = {'own': Own, 'process': Ticking, 'thread': InThread, 'ioloop': OnIOLoop,
         'consumer': Consuming, 'coroutines': Coroutines, 'both': Both, 'impatient': Impatient,
         'cancelling': Cancelling}

if __name__ == '__main__':
    clihelper.setup('iterating')
    clihelper.run(KINDS[sys.argv.pop(1)])
