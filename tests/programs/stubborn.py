"""A consumer whose messages fail in many ways, to be run again; it says which run it is."""

import os
import time

import clihelper


class Stubborn(clihelper.ConsumerController):
    def on_message(self, body, message):
        word, _, argument = body.partition(' ')
        self.logger.info(
            'run %d of %r from %r by %r %r',
            message.attempts, body, message.queue, message.exchange, message.routing_key,
        )  # fmt: skip
        return getattr(self, f'do_{word}')(argument, message)

    def do_nothing(self, argument, message):
        pass

    def do_fail(self, argument, message):
        if message.attempts <= int(argument or 99):
            raise ConnectionResetError('the shop is closed')

    def do_later(self, argument, message):
        if message.attempts == 1:
            raise clihelper.Retry('the shop is closed', delay=float(argument))

    def do_die(self, argument, message):
        os._exit(9)

    def do_sleep(self, argument, message):
        time.sleep(float(argument))
        self.logger.info('slept')

    def do_requeue(self, argument, message):
        if not message.redelivered:
            raise clihelper.Requeue

    def do_requeue_once(self, argument, message):
        self.requeued = not getattr(self, 'requeued', False)
        if self.requeued:
            raise clihelper.Requeue

    def do_publish(self, argument, message):
        go = os.environ.get('GO')
        while go and not os.path.exists(go):
            time.sleep(0.005)
        self.publish('nothing', routing_key=argument)

    def do_recover(self, argument, message):
        if not message.redelivered:
            self.recover()


clihelper.setup('stubborn')
clihelper.run(Stubborn)
