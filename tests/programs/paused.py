"""A consumer that notes each run, and does what files in its folder and messages say.

KIND says by what: one message at a time, threads, coroutines, batches, or a loop of its own.
"""

import asyncio
import os
import sys
import time

import clihelper

FOLDER = os.environ['FOLDER']


def there(name):
    return os.path.exists(f'{FOLDER}/{name}')


def note(what, body):
    line = f'{time.monotonic()} {what} {body} {os.getpid()}\n'
    with open(f'{FOLDER}/notes', 'a') as file:
        file.write(line)


def begin(body):
    note('run', body)
    if body == 'nap':
        time.sleep(0.005)
    if body == 'pause':
        body = 'fail'
        if not there('mended'):
            raise clihelper.Pause(float(os.environ['PAUSE']))
    if there('broken') and body != 'good':
        raise OSError('the database is away')


class Plain:
    def on_message(self, body, message):
        begin(body)
        while body == 'slow' and not there('go'):
            time.sleep(0.01)
        note('done', body)


class Single(Plain, clihelper.ConsumerController):
    pass


class Coroutines(clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        begin(body)
        while body == 'slow' and not there('go'):
            await asyncio.sleep(0.01)
        note('done', body)


class Batches(clihelper.ConsumerController):
    def on_messages(self, messages):
        for message in messages:
            begin(message.body)
        while any(each.body == 'slow' for each in messages) and not there('go'):
            time.sleep(0.01)
        for message in messages:
            note('done', message.body)


class Iterating(clihelper.Controller):
    def _process(self):
        with self.messages(os.environ['QUEUE'], timeout=1) as messages:
            for message in messages:
                begin(message.body)
                note('done', message.body)


if __name__ == '__main__':
    kinds = {'single': Single, 'threads': Single, 'coroutines': Coroutines, 'batches': Batches,
             'iterating': Iterating}
    clihelper.setup('paused', 'Can be paused.', '1.0.0')
    sys.exit(clihelper.run(kinds[os.environ.get('KIND', 'single')]))
