"""A consumer that does what the message says, and logs it."""

import os
import time

import clihelper


class Obedient(clihelper.ConsumerController):
    def _process(self):
        self.logger.info('process')

    def on_message(self, body, message):
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
        return {1, 2}

    def do_ack_and_fail(self, message):
        message.ack()
        message.ack()
        raise ValueError('after all')

    def do_publish(self, message):
        self.publish({'do': 'nothing', 'again': True}, routing_key=message.queue)

    def do_publish_nowhere(self, message):
        self.publish('lost?', routing_key='no-such-queue')

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


clihelper.setup('obedient')
clihelper.run(Obedient)
