"""One trial: messages, what is done to them by a seed, and where they are found in the end."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

from tests.broker import Broker
from tests.model import journal
from tests.model.broker import LOST, MOST, MOST_DEAD, Found, Link
from tests.model.faults import CLASSIC, STOPPED, Faults
from tests.model.kind import UNSETTLED, WORKERS
from tests.model.plan import DELAYS, HANDLED, PROGRAMS, QUEUES
from tests.model.service import Service

READY = 20
"""messages that are kept ready in each queue, so that each fault comes upon consumers at work"""

SHORT = MOST - UNSETTLED * WORKERS - 10
"""messages that are ready in a queue, so few that there is room for what is unacknowledged, too,
and for some that return for their next run"""

PAUSE = 0.05
"""seconds between two looks at everything"""

BETWEEN = (0.1, 0.6)
"""seconds between two faults"""

SETTLED = 2.0
"""seconds after which a queue that was made outlives a crash of RabbitMQ 3.10"""

STALLED = 20.0

LAST_LINES = 8
"""of what each program has logged, that tell why nothing becomes of a message"""

COUNTED = ('name', 'messages', 'messages_ready', 'messages_unacknowledged')

LATEST = 5.0
"""seconds in which a message that a broker has in passing is in a queue again"""

DEAD = tuple(f'{queue}.{word}' for queue in QUEUES for word in ('dead', 'rejected'))
"""The queues of dead letters"""

ADVANCED_CONFIG = '[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 1000}]}].'
"""A queue that was full gets what it refused within seconds, and not within three minutes"""


class Trial:
    """Publishes, causes faults, and finds out what has become of each message.

    :param folder: for the programs and their journal.
    :param broker: one that was started with :data:`ADVANCED_CONFIG`.
    :param seed: of the plan and of the faults.
    :param messages: how many to publish, or some more.
    :param faults: how many faults to cause at most: the first that is reached ends the trial.
    :param apart: how many messages to publish between two faults, at least. So a slow machine does
        not cause more of them than a fast one.
    :param stalled: seconds in which nothing becomes of any message, after which the rest is left
        where it is.
    :ivar found: the messages that were taken from the queues of dead letters, or left in others.
    :ivar stalled: how many messages the broker counted in each queue, and what the programs had
        logged last, when nothing became of any message any more.
    :ivar counted: the same in the end, where some are missing.
    :ivar published: when each number was published first.
    :ivar republished: how often each number was published again, because it was not known
        whether the broker had it.
    """

    def __init__(self, folder: str, broker: Broker, seed: int, messages: int,
                 faults: float = float('inf'), apart: int = 0, stalled: float = STALLED) -> None:
        self.seed = seed
        self.journal = os.path.join(folder, 'journal')
        os.mkdir(self.journal)
        self._broker = broker
        self._link = Link(broker.port)
        self._chance = random.Random(seed)
        self.services = [Service(name, folder, broker.port, seed) for name in PROGRAMS]
        self.faults = Faults(broker, self.services, self._chance, self._is_short)
        self._messages, self._most, self._apart = messages, faults, apart
        self._stalled = stalled
        self._next = {queue: index for index, queue in enumerate(QUEUES)}
        self.found: list[Found] = []
        self.published: dict[int, float] = {}
        self.republished: Counter[int] = Counter()
        self._open: set[int] = set()
        self._looked = 0
        self._stopping = False
        self.stalled = self.counted = ''

    def run(self) -> None:
        """Do all of it."""
        try:
            self._start()
            self._cause_faults()
            self._finish()
            self._stop()
        finally:
            self._link.close()
            for service in self.services:
                service.close()

    @property
    def numbers(self) -> list[int]:
        """All that were published."""
        return sorted(itertools.chain.from_iterable(
            range(index, self._next[queue], len(QUEUES)) for index, queue in enumerate(QUEUES)))

    @property
    def _published(self) -> int:
        return sum(self._next.values()) // len(QUEUES)

    # What is done, in order.

    def _start(self) -> None:
        """Start the programs, and let each message wait in each queue for that once."""
        self._broker.ctl('set_policy', 'dead', r'\.dead$',
                         f'{{"max-length":{MOST_DEAD},"overflow":"reject-publish"}}',
                         '--apply-to', 'queues')
        self._link.declare()
        for service in self.services:
            service.start()
        for service in self.services:
            service.wait_ready()
        self._top_up(len(DELAYS))
        self._look_until(lambda: not self._unfinished(), STALLED)
        self.faults.settled = time.time() + SETTLED

    def _cause_faults(self) -> None:
        when, number = 0.0, 0  # of the next: the time, and the messages published before it
        while len(self.faults.done) < self._most and self._published < self._messages:
            if time.time() > when and self._published >= number:
                self.faults.cause()
                when = time.time() + self._chance.uniform(*BETWEEN)
                number = self._published + self._apart
            self._top_up(READY)
            self._look()
        self._look_until(lambda: not self.faults.going_on, STALLED)

    def _finish(self) -> None:
        """Wait until something has become of each message, or nothing does any more."""
        left = 0
        while len(self._unfinished()) != left:
            left = len(self._unfinished())
            self._look_until(lambda: len(self._unfinished()) < left, self._stalled)  # noqa: B023
        if left:
            self.stalled = self._count()

    def _stop(self) -> None:
        """Stop the programs, and take what is left in all queues."""
        self._stopping = True
        for service in self.services:
            if not service.has_ended():
                service.signal('TERM', *STOPPED)
        self._look_until(lambda: all(each.has_ended() for each in self.services), STALLED)
        for service in self.services:
            service.kill()
        queues = self._broker.ctl('list_queues', '--no-table-headers', 'name').split()
        end = time.time() + LATEST
        while time.time() < end:
            if self._take(queues):
                end = time.time() + LATEST
            elif not self._unfinished():
                return
            time.sleep(PAUSE)
        self.counted = self._count()

    def _count(self) -> str:
        """The queues in which the broker counts any messages, and what programs said last."""
        table = self._broker.ctl('list_queues', '--no-table-headers', *COUNTED).splitlines()
        return '\n  '.join([
            f'{time.time():.3f} {", ".join(COUNTED)}',
            *(line for line in table if not line.endswith('\t0\t0\t0')),
            *(f'{service.name}: {line}' for service in self.services
              for line in service.log[-LAST_LINES:])])

    # What is done again and again.

    def _look_until(self, done: Callable[[], bool], seconds: float) -> None:
        end = time.time() + seconds
        while not done() and time.time() < end:
            self._look()

    def _look(self) -> None:
        self.faults.look()
        if not self._stopping:
            for service in self.services:
                service.look()
        if self.faults.answering and self.faults.taking:
            self._take(DEAD)
        time.sleep(PAUSE)

    def _take(self, queues: Iterable[str]) -> int:
        """Take what is in these queues; how many messages that are."""
        before = len(self.found)
        try:
            for queue in queues:
                for found in self._link.take(queue):
                    self.found.append(found)  # at once: the next may find no broker
        except LOST:
            pass  # the next time
        return len(self.found) - before

    def _top_up(self, ready: int) -> None:
        """Publish until so many messages are ready in each queue, or until it is full."""
        if not self.faults.answering:
            return
        try:
            for queue in QUEUES:
                if queue in self.faults.full:
                    self._publish(queue, MOST)
                else:
                    self._publish(queue, ready - self._link.depth(queue))
        except LOST:
            pass  # the next time

    def _is_short(self) -> bool:
        """Whether the classic queues will have no more than they take after a crash."""
        try:
            return self.faults.answering and all(
                self._link.depth(queue) <= SHORT for queue in CLASSIC)
        except LOST:
            return False

    def _publish(self, queue: str, count: int) -> None:
        for _ in range(count):
            number = self._next[queue]
            self.published.setdefault(number, time.time())
            try:
                if not self._link.publish(queue, number):
                    return
            except LOST:
                self.republished[number] += 1
                raise
            self._next[queue] += len(QUEUES)
            self._open.add(number)

    def _unfinished(self) -> set[int]:
        """The numbers of which nothing has become yet."""
        self._open -= {found.number for found in self.found[self._looked:]}
        self._looked = len(self.found)
        self._open -= {
            number for number in self._open
            if any(run.what in HANDLED for run in journal.read(self.journal, number))}
        return self._open
