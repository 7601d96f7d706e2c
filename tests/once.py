"""A trial of ``once``: messages with an effect in a database, and programs that are killed."""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import kombu
import psycopg

from clihelper.testing import Program
from tests.broker import Broker

PROGRAM = str(Path(__file__).parent / 'programs' / 'once.py')

PROGRAMS = 2
"""that run at the same time"""

LONGEST_LIFE = 0.5
"""seconds that a program has, at most, once it consumes"""

REPEATED = 10
"""every so manieth message is published twice"""


class Trial:
    """Some messages, each of which has to have its effect once.

    :param folder: where files are written.
    :param database: ``file:PATH`` of SQLite's, or how libpq connects to it.
    :param queue: a name.
    :param messages: how many different ones.
    """

    def __init__(
        self, folder: Path, broker: Broker, database: str, queue: str, messages: int
    ) -> None:
        self.kills = 0
        self.messages = messages
        self._broker, self._database, self._queue = broker, database, queue
        self._config = folder / 'once.yml'
        self.configure(once=True)

    def configure(self, once: bool, statements: int = 1) -> None:
        """Write the configuration.

        :param once: whether the program uses ``once``.
        :param statements: rows that make up an effect.
        """
        self._config.write_text(
            f'Application: {{database: "{self._database}", once: {str(once).lower()},'
            f' statements: {statements}}}\n'
            f'AMQP:\n  url: {self._broker.url()}\n  retry: {{attempts: 50, delay: 0}}\n'
            f'  queues: {{{self._queue}: {{durable: true}}}}\n')

    def publish(self) -> None:
        """Publish the messages, and some of them once more."""
        with kombu.Connection(self._broker.url()) as connection:
            channel = connection.channel()
            channel.queue_declare(self._queue, durable=True, auto_delete=False)
            producer = kombu.Producer(channel)
            for number in range(self.messages):
                for _ in range(1 + (number % REPEATED == 0)):
                    producer.publish(
                        number, routing_key=self._queue, message_id=f'm{number}')

    def kill(self, kills: int, seconds: float) -> None:
        """Run programs, and kill so many of them at random moments."""
        deadline = time.monotonic() + seconds
        with ExitStack() as running:
            programs = [running.enter_context(Program(self._command)) for _ in range(PROGRAMS)]
            for turn in count():
                if self.kills == kills:
                    break
                assert time.monotonic() < deadline
                place = turn % PROGRAMS
                programs[place].wait_ready(30)
                time.sleep(random.uniform(0, LONGEST_LIFE))
                programs[place].signal('KILL')
                programs[place].wait()
                self.kills += 1
                programs[place] = running.enter_context(Program(self._command))

    def finish(self, seconds: float) -> float:
        """Have what is left handled; the seconds that the last program took for it."""
        with Program(self._command) as program:
            program.wait_ready(30)
            began = time.monotonic()
            for depth in self._depths():
                if not depth:
                    break
                assert time.monotonic() < began + seconds
                time.sleep(0.05)
            took = time.monotonic() - began
            assert program.stop() == 0
        if self.left() and not self.dead():  # what was prefetched has gone back
            return took + self.finish(seconds)
        return took

    def left(self) -> int:
        """How many messages are in the queue."""
        return next(self._depths())

    def dead(self) -> int:
        """How many dead letters there are."""
        with kombu.Connection(self._broker.url()) as connection:
            return _depth(connection, f'{self._queue}.dead')

    def effects(self) -> tuple[int, int]:
        """How many effects there are, and of how many messages."""
        query = 'SELECT count(*), count(DISTINCT number) FROM effects'
        with closing(self._connect()) as connection:
            rows, numbers = connection.execute(query).fetchone()
        return rows, numbers

    def _connect(self) -> Any:
        if self._database.startswith('file:'):
            return sqlite3.connect(self._database, uri=True)
        return psycopg.connect(self._database)

    @property
    def _command(self) -> list[str]:
        return [sys.executable, PROGRAM, '-c', str(self._config), '-f']

    def _depths(self) -> Iterator[int]:
        with kombu.Connection(self._broker.url()) as connection:
            while True:
                yield _depth(connection, self._queue)


def _depth(connection: kombu.Connection, queue: str) -> int:
    try:
        with connection.channel() as channel:
            depth: int = channel.queue_declare(queue, passive=True).message_count
            return depth
    except connection.channel_errors:  # there is none
        return 0
