"""A consumer that does what the message says, and logs it; by coroutines if KIND says so."""

import asyncio
import inspect
import os
import time

import clihelper


class Obeying:
    def _process(self):
        self.logger.info('process')

    def obey(self, body, message):
        self.logger.info('got %r from %s', body, message.queue)
        word = body['do'] if isinstance(body, dict) else body
        return getattr(self, f'do_{word}', self.do_nothing)(message)

    def do_nothing(self, message):
        pass

    def do_fail(self, message):
        raise ConnectionResetError('the shop is closed')

    def do_time_out(self, message):
        raise TimeoutError('the shop is slow')

    def do_exit(self, message):
        raise SystemExit(3)

    def do_interrupt(self, message):
        raise KeyboardInterrupt

    def do_reject(self, message):
        raise clihelper.Reject('not ours')

    def do_requeue(self, message):
        if not message.redelivered:
            raise clihelper.Requeue

    def do_reply(self, message):
        return {'to': message.correlation_id}

    def do_reply_badly(self, message):
        return object()

    def do_ack_and_fail(self, message):
        message.ack()
        message.ack()
        raise ValueError('after all')

    def do_publish(self, message):
        return self.publish({'do': 'nothing', 'again': True}, routing_key=message.queue)

    def do_publish_nowhere(self, message):
        return self.publish('lost?', routing_key='no-such-queue')

    def do_work(self, message):
        """Work until the file 'go' exists."""
        while not os.path.exists(self.application_config['go']):
            time.sleep(0.005)
        self.logger.info('worked')

    def do_sleep(self, message):
        time.sleep(4)
        self.logger.info('slept')

    def do_die(self, message):
        os._exit(9)


class Obedient(Obeying, clihelper.ConsumerController):
    def on_message(self, body, message):
        return self.obey(body, message)


class ObedientCoroutine(Obeying, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        answer = self.obey(body, message)
        return await answer if inspect.isawaitable(answer) else answer

    async def do_work(self, message):
        while not os.path.exists(self.application_config['go']):
            await asyncio.sleep(0.005)
        self.logger.info('worked')

    async def do_sleep(self, message):
        await asyncio.sleep(4)
        self.logger.info('slept')

    async def do_cancel(self, message):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def do_group(self, message):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(self.fail())

    async def fail(self):
        raise ConnectionResetError('the shop is closed')


clihelper.setup('obedient')
clihelper.run(ObedientCoroutine if os.environ.get('KIND') == 'coroutines' else Obedient)
