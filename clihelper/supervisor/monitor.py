"""What a supervisor looks after while all is well: limits of its workers, and signs of life."""

from __future__ import annotations

import logging
import signal
import time

from clihelper.process.scoreboard import TIMEOUT
from clihelper.supervisor.policy import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from clihelper.config import Config
    from clihelper.process.systemd import Notifier
    from clihelper.supervisor.worker import Worker

LOGGER = logging.getLogger('clihelper.supervisor')

MEMORY_POLL = 0.5
"""seconds between two looks at the memory of the workers; the kernel tells nobody"""

STATUS_POLL = 5.0
"""seconds between two status lines with how many messages were handled"""

LAST_WORDS = 2.0
"""seconds that a worker whose handler hangs has to leave a traceback"""

NEVER = float('inf')


class Monitor:
    """Looks at the workers when it is time to.

    :ivar float due: when to look next, in seconds of ``time.monotonic``.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._told = ''
        self._handled = 0
        self.due = 0.0

    def check(self, workers: Iterable[Worker], config: Config) -> None:
        """Look, and have those replaced that have reached a limit."""
        now = time.monotonic()
        working = [worker for worker in workers if worker.is_staying]
        ready = [worker for worker in working if worker.is_ready]
        self.due = min(
            self._look_at_handlers(working, config.amqp['handler_timeout'], now),
            self._look_at_ages(ready, now),
            self._look_at_memory(ready, now),
            self._feed(ready, now),
        )

    def _look_at_handlers(
        self, working: Iterable[Worker], timeout: float | None, now: float
    ) -> float:
        if not timeout:
            return NEVER
        due = now + timeout  # a handler that begins now
        for worker in working:
            since = worker.slot.read()[0]
            if since and now >= since + timeout:
                LOGGER.error(
                    '%s: on_message has not returned for %.1f s (AMQP.handler_timeout): killed',
                    worker, now - since,
                )
                worker.timed_out = True
                worker.slot.set_cause(TIMEOUT)
                # It dies of it, and its traceback is written in C, whoever holds the GIL.
                worker.stop(signal.SIGABRT, LAST_WORDS)
            elif since:
                due = min(due, since + timeout)
        return due

    def _look_at_ages(self, ready: Iterable[Worker], now: float) -> float:
        due = NEVER
        for worker in ready:
            if worker.expires is None or worker.retire:
                continue
            if now >= worker.expires:
                worker.retire = 'Daemon.max_age'
            else:
                due = min(due, worker.expires)
        return due

    def _look_at_memory(self, ready: Iterable[Worker], now: float) -> float:
        limited = False
        for worker in ready:
            if worker.memory is None or worker.retire:
                continue
            limited = True
            resident = worker.resident()
            if resident > worker.memory:
                worker.retire = f'Daemon.max_memory: {resident} bytes'
        return now + MEMORY_POLL if limited else NEVER

    def check_initial_memory(self, worker: Worker) -> None:
        """A worker is ready: a limit that it exceeds already would be exceeded for ever."""
        if worker.memory is not None and (resident := worker.resident()) > worker.memory:
            LOGGER.warning(
                '%s has %d bytes of memory before it has done anything; Daemon.max_memory is %d'
                ' and has no effect on it',
                worker, resident, worker.config.daemon['max_memory'],
            )
            worker.memory = None

    def _feed(self, ready: Iterable[Worker], now: float) -> float:
        """Feed the service manager's watchdog, if each loop has come round lately."""
        interval = self._notifier.watchdog_interval
        if interval is None:
            return NEVER
        # Workers give a sign each half of it.
        if all(now - worker.slot.read()[3] < interval * 3 / 4 for worker in ready):
            self._notifier.watchdog()
        return now + interval / 4

    # The status line.

    def count_finished(self, handled: int) -> None:
        """A worker that has handled so many messages is gone."""
        self._handled += handled

    def report_status(self, workers: Iterable[Worker], wanted: int) -> None:
        """Tell the service manager how many workers there are, and what they have done."""
        if not self._notifier.enabled:
            return
        workers = list(workers)
        ready = len({worker.number for worker in workers if worker.is_ready and worker.is_staying})
        handled = self._handled + sum(worker.slot.read()[2] for worker in workers)
        parts = [f'{ready} of {counted(wanted, "worker")} ready']
        if handled:
            parts.append(counted(handled, 'message'))
        parts += [
            f'worker {worker.number}: {worker.status}'
            for worker in workers if worker.status and not worker.is_ready
        ]
        line = '; '.join(parts)
        if line != self._told and self._notifier.status(line):
            self._told = line
