"""clihelper's consumer, which writes the number of each message into a ledger of its own."""

import os

import clihelper


class Clerk(clihelper.ConsumerController):
    def _setup(self):
        path = os.path.join(os.environ['BENCHMARK_LEDGERS'], str(os.getpid()))
        self.scoreboard = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_message(self, body, message):
        os.write(self.scoreboard, body)


clihelper.setup('clerk', 'Writes ledgers.', '1.0')
clihelper.run(Clerk)
