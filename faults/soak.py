"""A million messages, while consumers are killed and the broker is stopped and killed.

The broker confirms what is published; the handler writes each message's number into a ledger,
and only then is a message acknowledged. So a number that is in no ledger is a message lost.
"""

from __future__ import annotations

import glob
import itertools
import os
import random
import time
from array import array
from collections import Counter

from benchmarks.programs import Program, Workshop
from benchmarks.tables import Table
from faults.publisher import Publisher

MESSAGES, FAULTS = 1_000_000, 100
QUICK_MESSAGES, QUICK_FAULTS = 50_000, 15
CONSUMERS, PREFETCH = 3, 100

AHEAD = 5000
"""how far the publisher may be ahead, so that each fault comes upon both of them at work"""

STALLED = 60.0
"""seconds without a message handled, after which the rest counts as lost"""

THREADS, COROUTINES = 'threads', 'coroutines'

KILL_CONSUMER, STOP_BROKER, KILL_BROKER = 'consumer KILL', 'broker TERM', 'broker KILL'


class Soak:
    """One soak.

    :param messages: how many numbers to publish.
    :param faults: how many faults, evenly among them: three kills of a consumer to one stop and
        one kill of the broker, in a random order.
    :param seed: of that order.
    :param kind: ``threads`` or ``coroutines``, if a consumer handles several at a time.
    """

    def __init__(
        self, workshop: Workshop, messages: int, faults: int, seed: int, kind: str = ''
    ) -> None:
        self._workshop = workshop
        self._messages = messages
        self._chance = random.Random(seed)
        kinds = itertools.cycle([KILL_CONSUMER] * 3 + [STOP_BROKER, KILL_BROKER])
        self._faults = list(itertools.islice(kinds, faults))
        self._chance.shuffle(self._faults)
        self.counts = Counter(self._faults)
        self._queue = f'soak-{seed}'
        self._ledgers = os.path.join(workshop.directory, self._queue)
        os.mkdir(self._ledgers)
        self._configuration = workshop.consumer(
            self._queue, 10, PREFETCH, more='  threads: 8\n' if kind == THREADS else '')
        self._kind = kind
        self._publisher = Publisher(workshop.broker.port, self._queue)
        self._consumers: list[Program] = []

    def run(self) -> None:
        """Do all of it."""
        self._consumers = [self._consumer() for _ in range(CONSUMERS)]
        try:
            for number, fault in enumerate(self._faults, 1):
                self._work_until(self._messages * number // (len(self._faults) + 1))
                self._cause(fault)
            self._work_until(self._messages)
            self._finish()
        finally:
            self._publisher.close()
            for consumer in self._consumers:
                consumer.__exit__()

    def _consumer(self) -> Program:
        return self._workshop.run(
            f'clihelper_ledger -f -c {self._configuration}', ledgers=self._ledgers,
            kind=self._kind)

    def _work_until(self, published: int) -> None:
        """Publish all numbers below that."""
        while self._publisher.next < published:
            if self._publisher.next - self._handled() < AHEAD:
                self._publisher.publish(published)
            else:
                time.sleep(0.01)

    def _handled(self) -> int:
        return sum(os.path.getsize(path) for path in self._paths()) // 8

    def _paths(self) -> list[str]:
        return glob.glob(f'{self._ledgers}/*')

    def _cause(self, fault: str) -> None:
        if fault == KILL_CONSUMER:
            index = self._chance.randrange(CONSUMERS)
            self._consumers[index].__exit__()
            self._consumers[index] = self._consumer()
            return
        broker = self._workshop.broker
        if fault == STOP_BROKER:
            broker.stop()
        else:
            broker.kill()
        broker.start()

    def _finish(self) -> None:
        """Wait until all are handled, and stop the consumers."""
        numbers, since, before = 0, time.monotonic(), -1
        while numbers < self._messages and time.monotonic() - since < STALLED:
            handled = self._handled()
            if handled != before:
                since, before = time.monotonic(), handled
                numbers = len(set(self.numbers())) if handled >= self._messages else 0
            time.sleep(0.1)
        for consumer in self._consumers:
            consumer.terminate(os.EX_TEMPFAIL)  # one that was killed last may not be ready yet

    def numbers(self) -> array[int]:
        """All numbers in all ledgers."""
        numbers = array('Q')
        for path in self._paths():
            with open(path, 'rb') as file:
                numbers.frombytes(file.read())
        numbers.byteswap()  # they are written as the network has them
        return numbers

    @property
    def republished(self) -> int:
        """How many messages the publisher had to send again."""
        return self._publisher.republished

    @property
    def allowed(self) -> int:
        """How many duplicates there may be."""
        restarts = self.counts[STOP_BROKER] + self.counts[KILL_BROKER]
        return (self.counts[KILL_CONSUMER] * PREFETCH + restarts * CONSUMERS * PREFETCH
                + self.republished)

    def left(self) -> tuple[int, int]:
        """How many messages are in the queue, and how many among the dead letters."""
        return tuple(  # type: ignore[return-value]
            self._workshop.count(name) for name in (self._queue, f'{self._queue}.dead'))


def measure(workshop: Workshop, quick: bool) -> Table:
    """Do it once, with another order of faults each time.

    With SOAK_KIND in the environment the consumers handle several messages at a time, in
    ``threads`` (8) or ``coroutines`` (100).
    """
    messages, faults = (QUICK_MESSAGES, QUICK_FAULTS) if quick else (MESSAGES, FAULTS)
    kind = os.environ.get('SOAK_KIND', '')
    if kind not in ('', THREADS, COROUTINES):
        raise SystemExit(f'SOAK_KIND is {THREADS} or {COROUTINES}, not {kind!r}')
    seed = random.SystemRandom().randrange(10**6)
    soak = Soak(workshop, messages, faults, seed, kind)
    began = time.monotonic()
    soak.run()
    numbers = soak.numbers()
    several = f' of {kind}' if kind else ''
    table = Table(f'{messages} messages, {faults} faults, {CONSUMERS} consumers{several}, '
                  f'prefetch {PREFETCH}, seed {seed}', ['count'])
    for kind, count in sorted(soak.counts.items()):
        table.row(kind, count)
    table.row('republished', soak.republished)
    table.row('handled', len(numbers))
    table.row('seconds', time.monotonic() - began)
    queued, dead = soak.left()
    distinct = len(set(numbers))
    table.bar('lost', messages - distinct, 0)
    table.bar('duplicates', len(numbers) - distinct, soak.allowed)
    table.bar('dead letters', dead, 0)
    table.bar('left in the queue', queued, 0)
    return table
