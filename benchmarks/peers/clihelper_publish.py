"""clihelper's interval controller, which publishes."""

from publish import BODY, COUNT, QUEUE, WARM_UP, WAY, Clock, one_at_a_time

import clihelper


class Author(clihelper.Controller):
    def _process(self):
        if WAY == 'one':
            one_at_a_time(self.publish_one)
        self.publish_together(WARM_UP)
        clock = Clock()
        self.publish_together(COUNT)
        clock.tell()

    def publish_one(self):
        self.publish(BODY, routing_key=QUEUE)

    def publish_together(self, count):
        with self.pipeline() as pipeline:
            for _ in range(count):
                pipeline.publish(BODY, routing_key=QUEUE)


clihelper.setup('author', 'Publishes.', '1.0')
clihelper.run(Author)
