"""clihelper's publisher: numbers from 0 on, each published until the broker has confirmed it.

It stays ``BENCHMARK_AHEAD`` numbers ahead of the consumers that write ledgers, and ends when there
is a file ``BENCHMARK_ENOUGH`` and all are confirmed. What it notes, a line each: the time,
``confirmed``, ``unknown`` or ``failed``, and of how many messages.
"""

import os
import signal
import time

import clihelper

QUEUE = os.environ['BENCHMARK_QUEUE']
AHEAD = int(os.environ['BENCHMARK_AHEAD'])
ENOUGH = os.environ['BENCHMARK_ENOUGH']
LEDGERS = os.environ['BENCHMARK_LEDGERS']
NOTES = os.environ['BENCHMARK_NOTES']
NOTES_OF_A_RUN = 48
"""bytes in a ledger"""

BATCH = 100


class Author(clihelper.ConsumerController):
    def _setup(self):
        self.notes = open(NOTES, 'a', buffering=1)  # noqa: SIM115
        self.next = 0
        self.unconfirmed = []

    def _process(self):
        if not self.unconfirmed:
            if os.path.exists(ENOUGH):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            last = min(self.next + BATCH, self.handled() + AHEAD)
            self.unconfirmed = list(range(self.next, last))
            self.next = max(last, self.next)
        if self.unconfirmed:
            self.publish_together()

    def publish_together(self):
        sent = []
        missing, kind = [], 'confirmed'
        try:
            with self.pipeline() as pipeline:
                for number in self.unconfirmed:
                    sent.append(number)
                    pipeline.publish(number.to_bytes(8, 'big'), routing_key=QUEUE)
        except clihelper.PublishError as error:
            missing = [sent[index] for index, _ in error.failed]
            kind = 'unknown' if error.unknown else 'failed'
            self.logger.warning('%d not confirmed: %s', len(missing), error)
            self.note(kind, len(missing))
        self.note('confirmed', len(sent) - len(missing))
        self.unconfirmed = missing + self.unconfirmed[len(sent):]

    def note(self, kind, count):
        self.notes.write(f'{time.monotonic()} {kind} {count}\n')

    def handled(self):
        sizes = sum(entry.stat().st_size for entry in os.scandir(LEDGERS))
        return sizes // NOTES_OF_A_RUN


clihelper.setup('author', 'Publishes numbers.', '1.0')
clihelper.run(Author)
