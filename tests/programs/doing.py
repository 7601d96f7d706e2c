"""A consumer that does what a message asks of it, ``[method, arguments, keywords]``, and logs."""

import clihelper


class Doing(clihelper.ConsumerController):
    def on_message(self, body, message):
        if not isinstance(body, list):
            self.logger.info('got %r redelivered=%s', body, message.redelivered)
            if body == 'hold':
                self.wait(60)
            return
        method, arguments, keywords = body
        try:
            result = getattr(self, method)(*arguments, **keywords)
        except Exception as error:
            self.logger.info('%s raised %s: %s', method, type(error).__name__, error)
        else:
            if method == 'get' and result is not None:
                result.ack()
                result = result.body
            self.logger.info('%s returned %r', method, result)


clihelper.setup('doing')
clihelper.run(Doing)
