"""Works on the tasks that tasks.py takes, and publishes how they get on."""

import time
from typing import Any

import clihelper


class Worker(clihelper.ConsumerController):
    def on_message(self, body: Any, message: clihelper.Message) -> None:
        self.tell(message, 'started', run=message.attempts)
        try:
            self.work(body, message)
        except Exception:
            last = message.attempts >= self.config['AMQP']['retry']['attempts']
            self.tell(message, 'failed' if last else 'waiting for its next run')
            raise
        self.tell(message, 'done')

    def work(self, body: Any, message: clihelper.Message) -> None:
        for step in range(1, body['steps'] + 1):
            time.sleep(body.get('seconds', 1))  # what takes its time
            self.tell(message, 'working', step=step, of=body['steps'])

    def tell(self, message: clihelper.Message, state: str, **more: Any) -> None:
        """Publish an event; that nobody follows, or can be told, does not concern the task."""
        name = message.properties['message_id']
        # The time numbers the events, so that those of a second run follow those of the first.
        event = {'id': time.time_ns() // 1000, 'task': name, 'state': state, **more}
        try:
            self.publish(event, exchange='progress', routing_key=name)
        except clihelper.PublishError as error:
            if not error.unroutable:
                self.logger.warning('task %s is %s: %s', name, state, error)


if __name__ == '__main__':
    clihelper.setup('tasks-worker', 'Works on tasks.', '1.0.0')
    clihelper.run(Worker)
