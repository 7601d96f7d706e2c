"""Controllers that publish, call, count and get without consuming; each _process does it all."""

import asyncio
import sys
import threading

import clihelper


def work(controller):
    queue = controller.application_config['queue']
    controller.publish({'n': 1}, routing_key=queue)
    with controller.pipeline() as pipeline:
        for n in range(2, 5):
            pipeline.publish({'n': n}, routing_key=queue)
    controller.logger.info('depth %d', controller.queue_depth(queue))
    message = controller.get(queue)
    message.ack()
    controller.logger.info('got %r', message.body)


class Interval(clihelper.Controller):
    def _setup(self):
        self.publish('from _setup', routing_key=self.application_config['queue'])

    def _process(self):
        thread = threading.Thread(target=work, args=(self,))
        work(self)
        thread.start()
        thread.join()

    def _cleanup(self):
        self.publish('from _cleanup', routing_key=self.application_config['queue'])


class OnIOLoop(clihelper.IOLoopController):
    async def _process(self):
        await self.work()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.work_in_thread, loop)

    async def work(self):
        queue = self.application_config['queue']
        await self.publish({'n': 1}, routing_key=queue)
        async with self.pipeline() as pipeline:
            for n in range(2, 5):
                await pipeline.publish({'n': n}, routing_key=queue)
        self.logger.info('depth %d', await self.queue_depth(queue))
        message = await self.get(queue)
        message.ack()
        self.logger.info('got %r', message.body)

    def work_in_thread(self, loop):
        try:
            self.publish('x', routing_key='x')
        except RuntimeError as error:
            self.logger.info('%s', error)
        asyncio.run_coroutine_threadsafe(self.work(), loop).result()


clihelper.setup('asking')
clihelper.run({'interval': Interval, 'ioloop': OnIOLoop}[sys.argv.pop()])
