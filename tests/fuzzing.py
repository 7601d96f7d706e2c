"""Two consumers, and random deliveries to them with a good message behind each.

They go through RabbitMQ. What that does not take, a bare broker delivers to the second consumer,
which is the same program::

    outcome = Fuzz(folder, broker.port, 'queue', seed).run(3000, seconds=10)
    assert not outcome.faults, outcome
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from clihelper.testing import Program
from tests.bare_broker import BareBroker
from tests.fuzz import MAX_BODY, RETURNED, Delivery, delivery, is_taken, number_in
from tests.raw import Client, Closed, Message, Sender

BATCH = 100
"""deliveries that are published together"""

PATIENCE = 20.0
"""seconds that a consumer has for a batch, and for its stop"""

PROGRAM = str(Path(__file__).parent / 'programs' / 'fuzz.py')

CONFIGURATION = """
Application: {{notes: {folder}/notes, seed: {seed}}}
Daemon: {{stop_timeout: 20, {daemon}}}
AMQP:
  url: {url}
  max_body: {max_body}
  retry: {{attempts: 2, delay: 0.01}}
  exchanges: {{{queue}.in: {{type: fanout, durable: true}}}}
  queues:
    {queue}:
      exchange: {queue}.in
      durable: true
      arguments:
        x-queue-type: {kind}
        x-dead-letter-exchange: ''
        x-dead-letter-routing-key: {queue}.rejected
Logging:
  version: 1
  formatters:
    plain: {{format: '%(asctime)s %(levelname)s %(message)s'}}
    json: {{(): clihelper.logs.JSONFormatter}}
  handlers:
    plain: {{class: logging.FileHandler, filename: {folder}/log, formatter: plain}}
    json: {{class: logging.FileHandler, filename: {folder}/log.json, formatter: json}}
  root: {{handlers: [plain, json], level: INFO}}
"""

HANDLED, DEAD, REJECTED, EMPTY = 'handled', 'dead-lettered', 'rejected', 'empty'
"""how a delivery ends; those without a body are not told from each other"""

Fault = tuple[int | None, str]
"""the number of a delivery, where one is known, and what is wrong with it"""


class Account:
    """What has become of the deliveries to one consumer.

    :ivar sent: those on their way to it, by number.
    :ivar runs: what its handler has noted: for each run of a delivery, how the handler itself has
        settled it first, and how it ended. None stands for all whose body is empty.
    :ivar dead: how often each is among the dead letters.
    :ivar rejected: how often each was rejected, by the handler or because it has expired.
    :ivar good: the numbers of the good messages that were handled.
    :ivar int notes: how many there are of the handler.
    :ivar faults: what was noticed on the way.
    :ivar changed: notified of each change.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.sent: dict[int, Delivery] = {}
        self.runs: dict[int | None, list[tuple[str, str, str]]] = defaultdict(list)
        self.dead: Counter[int | None] = Counter()
        self.rejected: Counter[int | None] = Counter()
        self.good: set[int] = set()
        self.notes = 0
        self.faults: list[Fault] = []

    def note(self, line: str) -> None:
        """A line of the handler's."""
        first, *rest = line.split('|')
        number = None if first in ('None', 'good') else int(first)
        with self.changed:
            self.notes += 1
            if first == 'good':
                self.good.add(int(rest[0]))
            elif rest[0] == 'fault':
                self.faults.append((number, rest[1]))
            else:
                self.runs[number].append((rest[1], rest[2], rest[3]))
            self.changed.notify_all()

    def count(self, ends: Counter[int | None], body: bytes) -> None:
        """One more has ended so."""
        with self.changed:
            ends[number_in(body)] += 1
            self.changed.notify_all()

    def wait(self, is_done: Callable[[], bool]) -> bool:
        """Wait until something is so; whether it is."""
        with self.changed:
            return self.changed.wait_for(is_done, PATIENCE)

    def is_settled(self) -> bool:
        """Whether all are handled or dead-lettered, as far as is known."""
        return all(self._is_settled(number) for number, made in self.sent.items() if made.body)

    def _is_settled(self, number: int) -> bool:
        if self.dead[number] or self.rejected[number]:
            return True
        runs = self.runs.get(number)
        return runs is not None and is_end(*runs[-1])

    def end_of(self, number: int) -> str:
        """How one has ended."""
        if self.dead[number]:
            return DEAD
        return REJECTED if self.rejected[number] else HANDLED

    def verdict(self) -> list[Fault]:
        """What is wrong, now that all is over."""
        found = list(self.faults)
        for number, made in self.sent.items():
            if made.body and (fault := self._fault(number)):
                found.append((number, fault))
        empty = sum(not made.body for made in self.sent.values())
        ends = self.dead[None] + self.rejected[None]
        # A result that cannot be published as a reply is a failure: then there is more than one.
        if ends > empty or ends + sum(is_end(*run) for run in self.runs[None]) < empty:
            found.append((None, f'{empty} have no body, of which {ends} are dead-lettered'))
        return found

    def _fault(self, number: int) -> str:
        runs, ends = self.runs.get(number, []), self.dead[number] + self.rejected[number]
        acknowledged = [run for run in runs if run[0] in ('ack', 'ack in a thread')]
        if ends > 1:
            return f'dead-lettered {self.dead[number]}, rejected {self.rejected[number]} times'
        if acknowledged and (ends or runs[-1] != acknowledged[0]):
            return f'acknowledged, and more than that: {runs}'
        if not self._is_settled(number):
            return f'neither handled nor dead-lettered: {runs}'
        if len(runs) > 3:
            return f'run {len(runs)} times'
        return ''


def is_end(settled: str, ended: str, with_what: str) -> bool:
    """Whether a message is acknowledged after such a run, as far as the handler goes."""
    return settled.startswith('ack') or (not settled and ended == 'returned')


class Consumer:
    """The program, what it is told and what it notes; a context manager.

    :param url: of its broker.
    :param options: further words of its configuration.
    """

    def __init__(
        self, folder: str, url: str, queue: str, seed: int, options: dict[str, str]
    ) -> None:
        self.account = Account()
        self._folder = folder
        os.makedirs(folder)
        os.mkfifo(os.path.join(folder, 'notes'))
        path = os.path.join(folder, 'fuzz.yml')
        options = {**options, 'daemon': options['daemon'].format(folder)}
        with open(path, 'w') as file:
            file.write(CONFIGURATION.format(
                folder=folder, url=url, queue=queue, seed=seed, max_body=MAX_BODY, **options,
            ))  # fmt: skip
        self.program = Program([sys.executable, PROGRAM, '-c', path, '-f'])
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        # Open for both, so that it neither waits for the program nor ends with it.
        self._notes = os.open(os.path.join(self._folder, 'notes'), os.O_RDWR | os.O_NONBLOCK)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self.program.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.__exit__()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._notes)
        os.close(self._wake)

    def _read(self) -> None:
        data = b''
        while True:
            ready, _, _ = select.select([self._notes, self._wake], [], [])
            if self._wake in ready:
                return
            *lines, data = (data + os.read(self._notes, 65536)).split(b'\n')
            for line in lines:
                self.account.note(line.decode())

    def log(self) -> str:
        """What it has logged."""
        try:
            with open(os.path.join(self._folder, 'log'), errors='replace') as file:
                return file.read()
        except FileNotFoundError:
            return ''

    def stop(self) -> None:
        """Stop it; see that it was alive, and kept its connection."""
        status, log, faults = self.program.stop(timeout=PATIENCE), self.log(), self.account.faults
        if status:
            faults.append((None, f'the program has ended with {status}'))
        if log.count(' consuming ') != 1 or 'lost the broker' in log:
            faults.append((None, 'the connection was lost'))
        if 'stays in its queue' in log:
            faults.append((None, 'a message was left unacknowledged'))
        if self.program.lines:
            faults.append((None, f'it has printed {self.program.lines[:3]}'))


class Side:
    """One of the two ways to a consumer; a context manager.

    :ivar consumer: the consumer at its end.
    """

    consumer: Consumer

    def send(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Deliver each, with a good message behind it; those that the broker refuses."""
        raise NotImplementedError

    def is_quiet(self) -> bool:
        """Wait until nothing more happens; whether that is so in the end."""
        raise NotImplementedError

    def left(self) -> Iterable[bytes]:
        """The bodies of what is not settled now that the consumer has ended."""
        raise NotImplementedError

    def missing(self, deliveries: Sequence[Delivery]) -> set[int]:
        """Wait for the good messages behind these; the numbers of those that are not handled."""
        account = self.consumer.account
        numbers = {each.number for each in deliveries}
        account.wait(lambda: numbers <= account.good)
        return numbers - account.good

    def finish(self) -> None:
        """Wait until all is settled; then stop the consumer."""
        account = self.consumer.account
        account.wait(account.is_settled)
        if not self.is_quiet():
            account.faults.append((None, 'something is still waiting'))
        self.consumer.stop()
        account.faults += [(number_in(body), f'left unsettled: {body[:30]!r}')
                           for body in self.left()]  # fmt: skip


class ThroughBroker(Side):
    """Through RabbitMQ."""

    def __init__(
        self, folder: str, port: int, queue: str, seed: int, options: dict[str, str]
    ) -> None:
        url = f'amqp://guest:guest@127.0.0.1:{port}/%2F'
        self.consumer = Consumer(folder, url, queue, seed, options)
        self._queue = queue.encode()
        self._retries = self._queue + b'.retry.0.01s'
        self._port = port
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.enter_context(self.consumer)
            self._sender = stack.enter_context(contextlib.closing(Sender(self._port)))
            self._asking = stack.enter_context(Client(self._port))
            ends = {self._queue + b'.dead': self.consumer.account.dead,
                    self._queue + b'.rejected': self.consumer.account.rejected}  # fmt: skip
            for name in (*ends, self._queue + b'.replies'):
                self._asking.declare(name)
            thread = threading.Thread(target=self._read, args=(ends,), daemon=True)
            stack.callback(thread.join)
            self._reader = stack.enter_context(Client(self._port))
            thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _read(self, ends: dict[bytes, Counter[int | None]]) -> None:
        with contextlib.suppress(Closed, OSError):
            for queue, _, body in self._reader.consume(ends):
                self.consumer.account.count(ends[queue], body)

    def send(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        messages: list[Message] = []
        for each in deliveries:
            self.consumer.account.sent[each.number] = each
            messages.append((self._queue + b'.in', each.routing_key, each.packed, each.body))
            messages.append(self._good(each.number))
        refused: list[Delivery] = []
        self._sender.send(messages, lambda index, why: refused.append(deliveries[index // 2]))
        for each in refused:
            del self.consumer.account.sent[each.number]
        return refused

    def is_quiet(self) -> bool:
        """Whether nothing happens between two looks but that a good message is handled."""
        account, good = self.consumer.account, -1
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            notes, waiting = account.notes, self._waiting()
            self._sender.send([self._good(good)], lambda index, why: None)
            if not account.wait(lambda: good in account.good):  # noqa: B023
                return False
            if not waiting and account.notes == notes + 1 and not self._waiting():
                return True
            good -= 1
        return False

    def left(self) -> Iterable[bytes]:
        for queue in (self._queue, self._retries):
            while (body := self._asking.take(queue)) is not None:
                yield body

    def _waiting(self) -> int:
        """How many wait in a queue."""
        return sum(self._asking.declare(q, passive=True) for q in (self._queue, self._retries))

    def _good(self, number: int) -> Message:
        return b'', self._queue, b'\0\0', b'good %d' % number


class ThroughBareBroker(Side):
    """Through a broker that looks into nothing."""

    def __init__(self, folder: str, queue: str, seed: int, options: dict[str, str]) -> None:
        self._queue = queue.encode()
        self._broker = BareBroker(self._on_published, self._on_rejected)
        self.consumer = Consumer(folder, self._broker.url, queue, seed, options)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.enter_context(self._broker)
            stack.enter_context(self.consumer)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _on_published(self, queue: bytes, body: bytes) -> None:
        if queue == self._queue + b'.dead':
            self.consumer.account.count(self.consumer.account.dead, body)

    def _on_rejected(self, body: bytes) -> None:
        self.consumer.account.count(self.consumer.account.rejected, body)

    def send(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        deliver, queue = self._broker.deliver, self._queue
        for each in deliveries:
            self.consumer.account.sent[each.number] = each
            redelivered = each.number % 3 == 0
            deliver(queue, each.routing_key[:9], each.routing_key, each.packed, each.body,
                    redelivered=redelivered)  # fmt: skip
            # Some are to be published anew before others are handled.
            good = RETURNED if each.number % 7 < 2 else b'\0\0'
            deliver(queue, b'', queue, good, b'good %d' % each.number,
                    redelivered=good is RETURNED)  # fmt: skip
        return []

    def is_quiet(self) -> bool:
        with self._broker.changed:
            return self._broker.changed.wait_for(lambda: not self._broker.unsettled, PATIENCE)

    def left(self) -> Iterable[bytes]:
        self.consumer.account.faults += [(None, fault) for fault in self._broker.faults]
        return [body for *_, body in self._broker.unsettled.values()]


class Outcome:
    """What became of all.

    :ivar deliveries: all of them.
    :ivar through_bare: the numbers of those that RabbitMQ does not take.
    :ivar ends: how each has ended, by its number: :data:`HANDLED` and the like.
    :ivar faults: what is wrong.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.deliveries: list[Delivery] = []
        self.through_bare: set[int] = set()
        self.ends: dict[int, str] = {}
        self.faults: list[Fault] = []

    def __str__(self) -> str:
        ends = ', '.join(f'{count} {end}' for end, count in Counter(self.ends.values()).items())
        lines = [f'{len(self.deliveries)} deliveries, {len(self.through_bare)} of them through'
                 f' the bare broker, seed {self.seed}: {ends}']  # fmt: skip
        for number, fault in self.faults[:20]:
            which = '' if number is None else f'python -m tests.fuzz {self.seed} {number}: '
            lines.append(which + fault)
        return '\n'.join(lines)


class Fuzz:
    """Random deliveries to two consumers.

    :param folder: for what they write; it exists.
    :param port: of RabbitMQ.
    :param queue: what the names of its queues begin with.
    :param kind: the type of the queue that is consumed.
    :param ledger: whether the consumers have a ledger of messages that end processes.
    """

    def __init__(
        self,
        folder: str,
        port: int,
        queue: str,
        seed: int,
        kind: str = 'classic',
        ledger: bool = False,
    ) -> None:
        self._queue = queue
        self._seed = seed
        options = {'kind': kind, 'daemon': 'state_directory: {}' if ledger else ''}
        self._broker = ThroughBroker(os.path.join(folder, 'broker'), port, queue, seed, options)
        self._bare = ThroughBareBroker(os.path.join(folder, 'bare'), queue, seed, options)
        self.outcome = Outcome(seed)

    def run(self, count: int, seconds: float = float('inf')) -> Outcome:
        """Deliver so many, or as many as there is time for."""
        with self._broker, self._bare:
            for side in (self._broker, self._bare):
                side.consumer.program.wait_ready(PATIENCE)
            end = time.monotonic() + seconds
            for first in range(0, count, BATCH):
                if time.monotonic() > end or not self._deliver(first):
                    break
            self._finish()
        return self.outcome

    def _deliver(self, first: int) -> bool:
        """Deliver a batch; whether all good messages of it were handled."""
        made = [delivery(self._seed, n, self._queue) for n in range(first, first + BATCH)]
        self.outcome.deliveries += made
        # One in five is delivered as RabbitMQ would, by the one that can say what it likes of it.
        taken = [each for each in made if each.number % 5 and is_taken(each.packed)]
        others = [each for each in made if each not in taken]
        self._bare.send(others)
        refused = self._broker.send(taken)
        self._bare.send(refused)
        others += refused
        self.outcome.through_bare.update(each.number for each in others)
        taken = [each for each in taken if each not in refused]
        return self._is_handled(self._broker, taken) and self._is_handled(self._bare, others)

    def _is_handled(self, side: Side, deliveries: Sequence[Delivery]) -> bool:
        missing = side.missing(deliveries)
        if missing:
            consumer = side.consumer
            self.outcome.faults.append((
                min(missing), 'the good message behind it is not handled;'
                f' printed: {consumer.program.lines[-3:]}; logged: {consumer.log()[-1500:]}',
            ))  # fmt: skip
        return not missing

    def _finish(self) -> None:
        outcome = self.outcome
        for side in (self._broker, self._bare):
            account = side.consumer.account
            if not outcome.faults:
                side.finish()
                outcome.faults += account.verdict()
            for number, made in account.sent.items():
                outcome.ends[number] = account.end_of(number) if made.body else EMPTY
