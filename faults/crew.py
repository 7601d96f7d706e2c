"""Workers under a supervisor, and the notes of what each of them has run."""

from __future__ import annotations

import os
import struct
from collections import Counter

from benchmarks.crews import descendants
from benchmarks.programs import LOGGING, Program, Workshop
from faults.publisher import Publisher

NOTE = struct.Struct('<Q?7xd')


class Crew:
    """A program that is running, a publisher, and a folder of ledgers.

    :param workers: how many.
    :param name: of the queue.
    :param more: further keys of the section ``AMQP``.
    """

    def __init__(
        self, workshop: Workshop, workers: int, name: str, more: str = '', **environment: object
    ) -> None:
        self._workshop = workshop
        self.name = name
        self._folder = os.path.join(workshop.directory, name)
        os.mkdir(self._folder)
        configuration = workshop.configuration(
            name, f'Daemon: {{workers: {workers}}}\nAMQP:\n  url: {workshop.url}\n'
            f'  queues: {{{name}: {{durable: true}}}}\n  {more}\n{LOGGING}')
        self.publisher = Publisher(workshop.broker.port, name)
        self.program: Program = workshop.run(
            f'clihelper_runs -f -c {configuration}', ledgers=self._folder, **environment)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.publisher.close()
        self.program.__exit__()

    def publish(self, last: int) -> None:
        """Publish all numbers below *last*."""
        while self.publisher.next < last:
            self.publisher.publish(last)

    def workers(self) -> list[int]:
        """The pids of those that live."""
        return descendants(self.program.pid)[1:]

    def busy(self) -> int:
        """How many of them have handled something."""
        paths = [os.path.join(self._folder, str(pid)) for pid in self.workers()]
        return sum(os.path.exists(path) and os.path.getsize(path) > 0 for path in paths)

    def noted(self) -> int:
        """How many notes there are: two for each run that has ended."""
        return sum(entry.stat().st_size for entry in os.scandir(self._folder)) // NOTE.size

    def notes(self) -> list[tuple[int, bool, float]]:
        """The notes: a number, whether its run has ended, and when."""
        found: list[tuple[int, bool, float]] = []
        for entry in os.scandir(self._folder):
            with open(entry.path, 'rb') as file:
                data = file.read()
            found += NOTE.iter_unpack(data[: len(data) // NOTE.size * NOTE.size])
        return found

    def runs(self, ended: bool) -> Counter[int]:
        """How often each number was run, or run to its end."""
        return Counter(number for number, end, _ in self.notes() if end is ended)

    def left(self) -> tuple[int, int]:
        """How many messages are in the queue, and how many among the dead letters."""
        queued, dead = (self._workshop.count(name) for name in (self.name, f'{self.name}.dead'))
        return queued, dead
