"""clihelper's controller on the IOLoop, which publishes."""

from publish import BODY, COUNT, QUEUE, WARM_UP, WAY, Clock, coroutines

import clihelper


class Author(clihelper.IOLoopController):
    async def _process(self):
        if WAY != 'pipelined':
            await coroutines(lambda: self.publish(BODY, routing_key=QUEUE))
        await self.publish_together(WARM_UP)
        clock = Clock()
        await self.publish_together(COUNT)
        clock.tell()

    async def publish_together(self, count):
        async with self.pipeline() as pipeline:
            for _ in range(count):
                await pipeline.publish(BODY, routing_key=QUEUE)


clihelper.setup('author', 'Publishes.', '1.0')
clihelper.run(Author)
