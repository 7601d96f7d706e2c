"""clihelper's consumer, which writes the number of each message into a ledger of its own.

With ``BENCHMARK_KIND=coroutines`` coroutines do it.
"""

import asyncio
import os

import clihelper


class Book:
    def _setup(self):
        path = os.path.join(os.environ['BENCHMARK_LEDGERS'], str(os.getpid()))
        self.scoreboard = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


class Clerk(Book, clihelper.ConsumerController):
    def on_message(self, body, message):
        os.write(self.scoreboard, body)


class ClerkOfCoroutines(Book, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        await asyncio.sleep(0)
        os.write(self.scoreboard, body)


clihelper.setup('clerk', 'Writes ledgers.', '1.0')
clihelper.run(ClerkOfCoroutines if os.environ.get('BENCHMARK_KIND') == 'coroutines' else Clerk)
