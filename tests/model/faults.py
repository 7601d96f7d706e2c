"""The faults that are caused from outside, one after the other or at the same time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tests.broker import Broker
from tests.model.plan import EXIT_STATUS, QUEUES, TYPES
from tests.model.service import Service

QUIET = 1.0
"""seconds between the last message that is taken from a queue and a crash of the broker, which
may forget what was acknowledged just then"""

STARTED = 300.0
"""seconds that a broker has to start"""

RETRIED = 0.1
"""seconds until it is tried again to cause a crash"""

CLASSIC = {queue for queue in QUEUES if queue.endswith('classic')}

STOPPED = (0, os.EX_TEMPFAIL, -signal.SIGTERM, 128 + signal.SIGTERM, EXIT_STATUS)
"""Statuses of a program that was asked to stop, perhaps before it was ready or had a handler, or
as one of its workers was killed or ended by its plan"""

KINDS: dict[str, int] = {
    'reset': 6, 'cut': 2, 'half-close': 4, 'silence': 4,
    'kill worker': 5, 'kill program': 3, 'stop': 6, 'reload': 6,
    'freeze broker': 2, 'kill broker': 1, 'stop broker': 1,
    'full queues': 4, 'full dead letters': 4,
}
"""How often each is caused, in proportion"""


class Fault(NamedTuple):
    """What was caused.

    :ivar program: to which program; empty for all.
    :ivar pid: to which of its processes; 0 for all.
    :ivar orderly: whether it has everything settled first that can be.
    """

    kind: str
    program: str
    began: float
    ended: float
    pid: int = 0
    orderly: bool = False


class Faults:
    """Causes faults.

    :param is_short: whether the classic queues will have no more than they take, even if all that
        is unacknowledged comes back. A broker that starts drops what is beyond that.
    :ivar done: all that have been caused.
    :ivar full: the queues that are to be kept full.
    :ivar settled: when a crash of the broker does no harm to the queues that are there.
    :ivar bool answering: whether the broker answers.
    """

    def __init__(self, broker: Broker, services: list[Service], chance: random.Random,
                 is_short: Callable[[], bool]) -> None:
        self._broker = broker
        self._services = services
        self._chance = chance
        self._waiting: list[str] = []
        self._ends: list[tuple[float, Callable[[], None]]] = []
        self.done: list[Fault] = []
        self.full: set[str] = set()
        self.answering = True
        self.settled = 0.0
        self._is_short = is_short
        self._holds = 0
        self._crashes = 0

    @property
    def going_on(self) -> bool:
        """Whether one has not ended yet."""
        return bool(self._ends)

    @property
    def taking(self) -> bool:
        """Whether what is in the queues of dead letters may be taken."""
        return not self._holds

    @property
    def counts(self) -> Counter[str]:
        """How many of each kind there were."""
        return Counter(fault.kind for fault in self.done)

    def cause(self) -> None:
        """Cause the next one. All kinds have their turn before any has another."""
        if not self._waiting:
            self._waiting = [kind for kind, times in KINDS.items() for _ in range(times)]
            self._chance.shuffle(self._waiting)
        service = self._chance.choice(self._services)
        kind = self._waiting.pop()
        getattr(self, '_' + kind.replace(' ', '_').replace('-', '_'))(service, kind)

    def look(self) -> None:
        """End those whose time is over."""
        now = time.time()
        due = [end for when, end in self._ends if when <= now]
        self._ends = [entry for entry in self._ends if entry[0] > now]
        for end in due:
            end()

    # The connection.

    def _reset(self, service: Service, kind: str) -> None:
        service.proxy.reset()
        self._note(kind, service)

    def _cut(self, service: Service, kind: str) -> None:
        service.proxy.cut()
        self._note(kind, service)

    def _half_close(self, service: Service, kind: str) -> None:
        service.proxy.half_close()
        self._note(kind, service)

    def _silence(self, service: Service, kind: str) -> None:
        """What is sent meanwhile gets lost, and so does the connection, as in TCP."""
        began = time.time()
        service.proxy.swallow()

        def end() -> None:
            service.proxy.reset()
            service.proxy.resume()
            self._note(kind, service, began)

        self._later(self._chance.uniform(0.2, 3.0), end)

    # The program.

    def _kill_worker(self, service: Service, kind: str) -> None:
        if service.has_ended() or not (workers := service.workers()):
            return
        pid = self._chance.choice(workers)
        if pid == service.pid:
            service.signal(signal.SIGKILL, -signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._note(kind, service, pid=pid)

    def _kill_program(self, service: Service, kind: str) -> None:
        """With a supervisor the record of who had which message in hand is lost, too."""
        if not service.has_ended():
            pid = 0 if service.has_supervisor else service.pid
            service.signal(signal.SIGKILL, -signal.SIGKILL)
            self._note(kind, service, pid=pid)

    def _stop(self, service: Service, kind: str) -> None:
        """It is started again when it has ended."""
        if not service.has_ended():
            service.signal(signal.SIGTERM, *STOPPED)
            self._note(kind, service, orderly=True)

    def _reload(self, service: Service, kind: str) -> None:
        if not service.has_ended():
            service.signal(signal.SIGHUP, -signal.SIGHUP)  # that was too early for a handler
            self._note(kind, service, orderly=True)

    # The broker.

    def _freeze_broker(self, service: Service, kind: str) -> None:
        began = time.time()
        if not self.answering:
            return
        self._broker.pause()
        self.answering = False

        def end() -> None:
            self._broker.resume()
            self.answering = True
            self._note(kind, None, began)

        self._later(self._chance.uniform(0.2, 3.0), end)

    def _kill_broker(self, service: Service, kind: str) -> None:
        self._restart(self._broker.kill, kind)

    def _stop_broker(self, service: Service, kind: str) -> None:
        self._restart(self._broker.stop, kind)

    def _restart(self, stop: Callable[[], None], kind: str) -> None:
        """When the classic queues are short, and it is quiet in those that are taken from."""
        self._crashes += 1
        self.full -= CLASSIC

        def wait() -> None:
            if not self._is_short():
                self._later(RETRIED, wait)
                return
            release = self._hold()
            self._later(max(QUIET, self.settled - time.time()), lambda: crash(release))

        def crash(release: Callable[[], None]) -> None:
            if not self._is_short():
                release()
                self._later(RETRIED, wait)
                return
            began = time.time()
            stop()
            self._broker.start(STARTED)
            self.answering = True
            self._crashes -= 1
            self._note(kind, None, began)
            release()

        wait()

    # The queues.

    def _full_queues(self, service: Service, kind: str) -> None:
        began = time.time()
        queues = {f'{service.name}-{each}' for each in TYPES}
        if self._crashes:
            queues -= CLASSIC
        self.full |= queues

        def end() -> None:
            self.full -= queues
            self._note(kind, service, began)

        self._later(self._chance.uniform(0.5, 2.0), end)

    def _full_dead_letters(self, service: Service, kind: str) -> None:
        """They are full soon when nobody takes them."""
        self._later(self._chance.uniform(0.5, 3.0), self._hold())

    def _hold(self) -> Callable[[], None]:
        """Leave the dead letters where they are, until the function that is returned is called."""
        began = time.time()
        self._holds += 1

        def release() -> None:
            self._holds -= 1
            self._note('full dead letters', None, began)

        return release

    def _later(self, seconds: float, end: Callable[[], None]) -> None:
        self._ends.append((time.time() + seconds, end))

    def _note(self, kind: str, service: Service | None, began: float | None = None,
              pid: int = 0, orderly: bool = False) -> None:
        now = time.time()
        self.done.append(Fault(kind, '' if service is None else service.name,
                               began or now, now, pid, orderly))
