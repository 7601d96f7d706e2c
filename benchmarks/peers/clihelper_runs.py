"""clihelper's consumer, which notes the begin and the end of each run; one number is fatal.

``BENCHMARK_WORK`` is how many seconds a run takes. While the file ``BENCHMARK_CLOSED`` exists,
``_setup`` fails.
"""

import ctypes
import os
import struct
import time

import clihelper

FATAL = int(os.environ.get('BENCHMARK_FATAL', -1))
WORK = float(os.environ.get('BENCHMARK_WORK', 0))
CLOSED = os.environ.get('BENCHMARK_CLOSED', '')
FAILING = int(os.environ.get('BENCHMARK_FAILING', 0))


class Clerk(clihelper.ConsumerController):
    def _setup(self):
        if os.path.exists(CLOSED):
            raise OSError(f'{CLOSED} exists')
        path = os.path.join(os.environ['BENCHMARK_LEDGERS'], str(os.getpid()))
        self.scoreboard = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_message(self, body, message):
        (number,) = struct.unpack('>Q', body)
        self.note(number, False)
        if number == FATAL:
            ctypes.string_at(0)
        if WORK:
            time.sleep(WORK)
        if FAILING and number % FAILING == 0 and message.attempts == 1:
            raise clihelper.Retry('the first run')
        self.note(number, True)

    def note(self, number, ended):
        os.write(self.scoreboard, struct.pack('<Q?7xd', number, ended, time.monotonic()))


clihelper.setup('clerk', 'Writes ledgers.', '1.0')
clihelper.run(Clerk)
