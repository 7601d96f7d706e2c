"""Regular checks of a supervisor: the limits of its workers, and their heartbeats."""

from __future__ import annotations

import logging
import signal
import time

from clihelper.errors import counted
from clihelper.process.scoreboard import TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from clihelper.config import Config
    from clihelper.process.systemd import Notifier
    from clihelper.supervisor.worker import Worker

LOGGER = logging.getLogger('clihelper.supervisor')

MEMORY_POLL = 0.5
"""seconds between two checks of the workers' memory, which the kernel does not report"""

STATUS_POLL = 5.0
"""seconds between two status lines with the number of messages handled"""

LAST_WORDS = 2.0
"""seconds allowed for a worker with a hanging handler to write a traceback"""

NEVER = float('inf')


class Monitor:
    """Checks the workers when a check is due.

    :ivar float due: when the next check is due, in seconds of ``time.monotonic``.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._told = ''
        self._handled = 0
        self.due = 0.0

    def check(self, workers: Iterable[Worker], config: Config) -> None:
        """Check the workers, and mark those that have reached a limit for replacement."""
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
        due = now + timeout  # for a handler that starts now
        for worker in working:
            since = worker.slot.read()[0]
            if since and now >= since + timeout:
                LOGGER.error(
                    '%s: on_message has not returned for %.1f s (AMQP.handler_timeout): killed',
                    worker, now - since,
                )
                worker.timed_out = True
                worker.slot.set_cause(TIMEOUT)
                # This kills it, and its traceback is written in C, whoever holds the GIL.
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
        """Lift the limit of a ready worker that exceeds it already, as every successor would."""
        if worker.memory is not None and (resident := worker.resident()) > worker.memory:
            LOGGER.warning(
                '%s uses %d bytes of memory before it has done anything; Daemon.max_memory is %d'
                ' and has no effect on it',
                worker, resident, worker.config.daemon['max_memory'],
            )
            worker.memory = None

    def _feed(self, ready: Iterable[Worker], now: float) -> float:
        """Feed the service manager's watchdog, if every loop has made progress recently."""
        interval = self._notifier.watchdog_interval
        if interval is None:
            return NEVER
        # Workers send a heartbeat each half of the interval.
        if all(now - worker.slot.read()[3] < interval * 3 / 4 for worker in ready):
            self._notifier.watchdog()
        return now + interval / 4

    # The status line.

    def count_finished(self, handled: int) -> None:
        """Add the messages handled by a worker that has ended."""
        self._handled += handled

    def report_status(
        self, workers: Collection[Worker], wanted: int, missing: Mapping[int, str], given_up: str
    ) -> None:
        """Report to the service manager the number of workers, and of messages handled.

        :param missing: the workers that cannot be started, and why.
        :param given_up: why the last reload was given up; empty: it was not.
        """
        if not self._notifier.enabled:
            return
        ready = len({worker.number for worker in workers if worker.is_ready and worker.is_staying})
        handled = self._handled + sum(worker.slot.read()[2] for worker in workers)
        parts = [f'{"degraded: " * bool(missing)}{ready} of {counted(wanted, "worker")} ready']
        if handled:
            parts.append(counted(handled, 'message'))
        parts += [f'worker {number} cannot be started: {why}' for number, why in missing.items()]
        parts += [
            f'worker {worker.number}: {worker.status}'
            for worker in workers
            if worker.status and not worker.is_ready and worker.number not in missing
        ]
        if given_up:
            parts.append(f'the reload was given up: {given_up}')
        line = '; '.join(parts)
        if line != self._told and self._notifier.status(line):
            self._told = line
