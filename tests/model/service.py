"""A program of the model test, kept running as a service manager would."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from clihelper.testing import Program, WaitError
from tests.model.broker import arguments_of
from tests.model.kind import PREFETCH, SEVERAL, WORKERS
from tests.model.plan import ATTEMPTS, DELAY, EXIT_STATUS, FACTOR, TYPES
from tests.proxy import Proxy

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / 'tests' / 'programs' / 'model.py'
HEARTBEAT = 1

DAEMON = {
    'bare': '',
    'ledger': 'state_directory: {folder}, ',
    'crew': f'workers: {WORKERS}, ',
}
"""What each program has in its section ``Daemon``"""

PLANNED = (-signal.SIGKILL, EXIT_STATUS)
"""Statuses of a process that its plan has ended"""

LATENCY = 0.01
"""seconds, at most, that what a program sends is on its way: so what it sends over two connections
may arrive in another order, or one without the other"""

LAST_LINES = 20
"""of what a program has logged, that tell why it has ended"""

MOST_ENDS = 5
"""ends for no reason, after which it is not started again"""

CONFIGURATION = """\
Application: {{journal: {folder}/journal, seed: {seed}}}
Daemon: {{{daemon}stop_timeout: 10}}
AMQP:
  url: {url}
  heartbeat: {heartbeat}
  prefetch: {prefetch}
  {several}
  retry: {{attempts: {attempts}, delay: {delay}, factor: {factor}}}
  queues: {queues}
Logging:
  version: 1
  formatters:
    timed: {{format: '%(created).6f %(process)d %(levelname)s %(message)s'}}
  handlers:
    console: {{class: logging.StreamHandler, formatter: timed}}
  root: {{handlers: [console], level: INFO}}
"""


class Service:
    """One program.

    :param name: one of ``plan.PROGRAMS``.
    :param folder: of the configuration, and of the journal.
    :ivar proxy: what it connects to the broker by.
    :ivar log: the lines that it has logged, in all its lives.
    :ivar ends: why it has ended, each time that nobody had asked for it.
    """

    def __init__(self, name: str, folder: str, port: int, seed: int) -> None:
        self.name = name
        self.proxy = Proxy(port)
        self.proxy.see = lambda data: time.sleep(random.uniform(0, LATENCY))
        self.proxy.__enter__()
        self._configuration = os.path.join(folder, f'{name}.yml')
        queues = {f'{name}-{kind}': {'arguments': arguments_of(f'{name}-{kind}')}
                  for kind in TYPES}
        with open(self._configuration, 'w') as file:
            file.write(CONFIGURATION.format(
                folder=folder, seed=seed, url=self.proxy.url, heartbeat=HEARTBEAT,
                daemon=DAEMON[name].format(folder=folder), prefetch=PREFETCH,
                several=SEVERAL, attempts=ATTEMPTS, delay=DELAY, factor=FACTOR, queues=queues))
        self._program: Program | None = None
        self._log: list[str] = []
        self._accepted: tuple[int, ...] = ()
        self.ends: list[str] = []

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._program is not None
        return self._program.pid

    @property
    def has_supervisor(self) -> bool:
        """Whether it is several processes."""
        return self.name == 'crew'

    @property
    def log(self) -> list[str]:
        """The lines that it has logged."""
        return self._log + ([] if self._program is None else self._program.lines)

    def start(self) -> None:
        """Start it."""
        self._accepted = () if self.has_supervisor else PLANNED
        self._program = Program(
            [sys.executable, PROGRAM, '-c', self._configuration, '-f'],
            env={'PYTHONPATH': str(ROOT)})
        self._program.__enter__()

    def wait_ready(self) -> None:
        """Wait until it consumes."""
        assert self._program is not None
        self._program.wait_ready(30)

    def signal(self, signum: int, *accepted: int) -> None:
        """Send it a signal.

        :param accepted: statuses with which it may end from now on.
        """
        self._accepted += accepted
        assert self._program is not None
        self._program.signal(signum)

    def workers(self) -> list[int]:
        """The processes that handle messages."""
        return _children(self.pid) if self.has_supervisor else [self.pid]

    def look(self) -> None:
        """Start it again if it has ended."""
        if self.has_ended() and len(self.ends) < MOST_ENDS:
            self.start()

    def has_ended(self) -> bool:
        """Whether it is not running; why it has ended is noted then."""
        if self._program is None:
            return True
        try:
            status = self._program.wait(0)
        except WaitError:
            return False
        if status not in self._accepted:
            self.ends.append('\n  '.join([
                f'{self.name} ended with status {status} at {time.time():.3f}',
                *self._program.lines[-LAST_LINES:]]))
        self._log += self._program.lines
        self._program.__exit__()
        self._program = None
        return True

    def kill(self) -> None:
        """Kill it, if it has not ended though it was to."""
        if not self.has_ended():
            self.ends.append(f'{self.name} did not stop until {time.time():.3f}')
            self.signal(signal.SIGKILL, -signal.SIGKILL)
            while not self.has_ended():
                time.sleep(0.01)

    def close(self) -> None:
        """Kill what runs still."""
        if self._program is not None:
            self._program.__exit__()
        self.proxy.__exit__()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError), open(f'/proc/{pid}/task/{pid}/children') as file:
        return [int(word) for word in file.read().split()]
    return []


