"""The supervisor: starts workers, waits for events, and acts on them."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
import warnings

from clihelper.backoff import Backoff, when
from clihelper.config.reloading import Reloader
from clihelper.errors import Error, StopNow, counted
from clihelper.process import title
from clihelper.process.deadline import Deadline, discard_if_stuck
from clihelper.process.init import reap
from clihelper.process.scoreboard import SLOTS, Scoreboard
from clihelper.process.signals import HANDLED, wait_readable
from clihelper.supervisor import child
from clihelper.supervisor.control import MOST, Control
from clihelper.supervisor.leftovers import Leftovers, has_terminal
from clihelper.supervisor.monitor import LAST_WORDS, NEVER, STATUS_POLL, Monitor
from clihelper.supervisor.policy import (
    RestartBackoff,
    StartFailures,
    describe,
    exit_status,
)
from clihelper.supervisor.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket
    from types import FrameType

    from clihelper.config import Config
    from clihelper.operations.control import ControlServer
    from clihelper.process.deadline import Ending
    from clihelper.process.scoreboard import Slot
    from clihelper.process.signals import Signals
    from clihelper.process.statistics import ProcessStatistics, Statistics
    from clihelper.process.systemd import Notifier

LOGGER = logging.getLogger('clihelper.supervisor')

OWN_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)
"""the signals that a supervisor handles in addition to those of a controller"""

BLOCKED = (*HANDLED, *OWN_SIGNALS, signal.SIGCHLD)

GRACE = 0.5
"""seconds after ``Daemon.stop_timeout``, when a worker should end itself, until it is killed"""

OVERTIME = 2.0
"""seconds after ``Daemon.stop_timeout``, when every worker has ended, until the supervisor is
ended in spite of whatever it still does"""

AT_ONCE = 2.0
"""seconds allowed for a worker to stop at once"""

LONGEST_POLL = 86400.0


class WorkersFailed(Error):
    """The service ends because workers failed, with the status of the last one."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Supervisor:
    """Runs workers until it is stopped.

    :param appname: the application's name.
    :param config: the configuration that the first workers are started with.
    :param signals: the signal pipe, installed.
    :param notifier: reports to the service manager.
    :param scoreboard: the memory shared with the workers.
    :param statistics: what the workers write what they do into.
    :param reread: reads and validates the configuration again.
    :param configure_logging: sets up the supervisor's own logging.
    :param report_ready: reports to the waiting command that all workers are ready.
    :param ending: ends the process if its main thread does not: see
        :class:`~clihelper.process.deadline.Deadline`.
    :param stop_listening: closes this process's copies of the sockets of ``Daemon.listen``.
    :param control: the control socket; None: there is none.
    :param work: called in a new process, with its channel and configuration; returns its exit
        status. It takes over the signals and unblocks them.
    """

    def __init__(
        self,
        *,
        appname: str,
        config: Config,
        signals: Signals,
        notifier: Notifier,
        scoreboard: Scoreboard,
        statistics: Statistics,
        reread: Callable[[], Config],
        configure_logging: Callable[[Config], None],
        report_ready: Callable[[], None],
        ending: Ending,
        stop_listening: Callable[[], None],
        control: ControlServer | None = None,
        work: Callable[[child.WorkerChannel, Config], int],
    ) -> None:
        self._appname, self._config = appname, config
        self._signals = signals
        self._ledger, self._statistics = scoreboard, statistics
        self._reloader = Reloader(reread, configure_logging)
        self._report_ready, self._stop_listening = report_ready, stop_listening
        self._notifier, self._ending = notifier, ending
        self._deadline, self._work = Deadline(ending, interrupts=False), work
        self._wanted: int = config.daemon['workers']
        self._workers: list[Worker] = []
        self._slots = list(range(SLOTS - 1, -1, -1))
        self._left: set[int] = set()
        self._backoffs: dict[int, RestartBackoff] = {}
        self._due: dict[int, float] = {}
        self._status_due = self._now = 0.0
        self._fork_backoff, self._failures = Backoff(cap=5.0), StartFailures()
        self._leftovers, self._monitor = Leftovers(), Monitor(notifier)
        self._shares_group, self._reaps = has_terminal(), os.getpid() == 1
        self._old_config: Config | None = None
        self._given_up = ''  # why the last reload was given up
        self._announced = self._was_ready = self._is_watched = False
        self._stopping: int | None = None
        self._failure: WorkersFailed | None = None
        self._control = Control(control, self) if control is not None else None

    # The main loop.

    def run(self) -> int:
        """Run the workers.

        :returns: the exit status: 0, or 75 if it was stopped before all workers were ready.
        :raises WorkersFailed: no worker becomes ready, or one failed while it was stopping.
        :raises clihelper.errors.StopNow: it was told to stop at once.
        """
        title.set_title(f'{self._appname}: supervisor')
        self._signals.urgent = self._urgent
        self._signals.take_over((*OWN_SIGNALS, *((signal.SIGCHLD,) if self._reaps else ())))
        try:
            while self._stopping is None or self._workers:
                self._step()
            self._leftovers.wait()
        finally:
            self._deadline.outlive()
        return self._judge()

    def _step(self) -> None:
        self._now = time.monotonic()
        if self._stopping is None:
            self._start_workers()
            self._end_hanging_starts()
            self._replace_workers()
            self._release_workers()
            self._tell_whether_needed()
            self._announce()
        if self._stopping is None and not self._workers and len(self._left) >= self._wanted:
            self._stopping = signal.SIGTERM  # each has ended of its own accord
            return
        self._wait()
        for signum in self._signals.read():
            self._serve(signum)
        if self._control is not None:
            self._control.server.serve()
        for worker in list(self._workers):
            self._hear(worker)
        self._reap()
        self._kill_stragglers()
        self._leftovers.kill()
        now = time.monotonic()
        if now >= self._monitor.due:
            self._monitor.check(self._workers, self._config)
        self._status(now)

    def _wait(self) -> None:
        """Wait for a signal, a report or the end of a worker, or the next timer."""
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        for worker in self._workers:
            poll.register(worker.pidfd, select.POLLIN)
            poll.register(worker.reader, select.POLLIN)
        if self._control is not None:
            poll.register(self._control.server.fileno(), select.POLLIN)
        dues = [self._monitor.due, self._status_due, self._leftovers.due]
        dues += [worker.deadline for worker in self._workers if worker.deadline is not None]
        if self._stopping is None:
            # For times in the past, the worker was started or is already there.
            dues += [due for due in self._due.values() if due > self._now]
            dues += [self._patience(worker) for worker in self._workers]
        dues += [] if self._control is None else [self._control.server.due]
        left = min(max(min(dues) - time.monotonic(), 0.0), LONGEST_POLL)
        # Rounded up, so that it does not return slightly too early and loop for nothing.
        poll.poll(int(left * 1000) + (left > 0))

    def _judge(self) -> int:
        if self._stopping not in (None, signal.SIGTERM):
            raise StopNow(self._stopping)
        if self._failure is not None:
            raise self._failure
        return 0 if self._was_ready else os.EX_TEMPFAIL

    def _tell(self) -> None:
        """Write what is known of the daemon as a whole."""
        self._statistics.tell(
            workers=self._wanted,
            missing=self._missing or None,
            reload_failed=self._given_up or None,
        )

    def _status(self, now: float) -> None:
        self._tell()
        self._monitor.report_status(self._workers, self._wanted, self._missing, self._given_up)
        self._status_due = now + STATUS_POLL if self._notifier.enabled else NEVER

    # Starting.

    def _start_workers(self) -> None:
        """Start each missing worker whose delay is over."""
        present = {worker.number for worker in self._workers if worker.is_staying}
        for number in range(1, self._wanted + 1):
            if number in present or number in self._left:
                continue
            if self._due.get(number, 0.0) <= self._now:
                self._start(number)

    def _start(self, number: int, replaces: Worker | None = None) -> bool:
        """Start a process; return False if that is not possible now."""
        try:
            worker = Worker(number, self._config, self._slot(), replaces)
        except IndexError:
            LOGGER.error('worker %d cannot be started: too many are being stopped', number)
            self._due[number] = time.monotonic() + self._fork_backoff.next()
            return False
        self._workers.append(worker)
        try:
            self._fork(worker)
        except OSError as error:
            self._forget(worker)
            delay = self._fork_backoff.next()
            LOGGER.error(
                'worker %d cannot be started: %s; next attempt %s',
                number, error.strerror, when(delay),
            )
            self._due[number] = time.monotonic() + delay
            return False
        self._due.pop(number, None)
        self._fork_backoff = Backoff(cap=5.0)
        self._monitor.due = 0.0
        LOGGER.debug('%s starts', worker)
        return True

    def _slot(self) -> Slot:
        slot = self._ledger.slot(self._slots.pop())
        slot.clear()
        return slot

    def _fork(self, worker: Worker) -> None:
        """Fork a worker. This returns in the supervisor only."""
        writer, lifeline = worker.open()
        control: socket | None = None
        statistics = self._statistics.slot(worker.slot.index)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            if self._control is not None:
                control = self._control.open(worker)
            pid = _fork_process()
            if not pid:
                self._become(worker, statistics, writer, lifeline, control)
            try:
                worker.meet(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(writer)
            os.close(lifeline)
            if control is not None:
                control.close()

    def _become(
        self,
        worker: Worker,
        statistics: ProcessStatistics,
        writer: int,
        lifeline: int,
        control: socket | None,
    ) -> None:
        """Run the new process. This does not return, and never gets back into the supervisor."""
        status = 1
        try:
            if not self._shares_group:
                os.setpgid(0, 0)
            child.forget_exit_handlers()
            for other in self._workers:
                other.close()
            place = child.WorkerChannel(
                worker.number, worker.slot, statistics, writer,
                lifeline, self._notifier.watchdog_interval, control,
            )
            title.set_title(f'{self._appname}: worker {worker.number}')
            status = self._work(place, worker.config)
            child.leave(status, place.finished)
        finally:
            os._exit(status)

    # The reports of workers, and their ends.

    def _hear(self, worker: Worker) -> None:
        for name, value in worker.hear():
            if name == 'READY':
                self._note_ready(worker)
            elif name == 'STATUS':
                worker.status = value
            elif name == 'WHY':
                worker.why.append(value)
            elif name == 'RETIRING':
                worker.is_retiring = True
            elif name == 'LEFT':
                worker.left = True
            elif name == 'FINISHED':
                worker.finished = True
            elif name == 'EXTEND_TIMEOUT_USEC' and value.isdigit():
                self._extend(worker, int(value) / 1_000_000)

    def _note_ready(self, worker: Worker) -> None:
        if worker.is_ready:
            return
        worker.is_ready = True
        worker.slot.heartbeat()
        self._monitor.check_initial_memory(worker)
        self._monitor.due = 0.0
        LOGGER.info('%s is ready', worker)
        if self._failures.ready(worker.number) and not self._missing:
            LOGGER.info('all workers can be started again')
        took, limit = time.monotonic() - worker.started, worker.config.daemon['start_timeout']
        if took > limit and not worker.extended:
            LOGGER.warning(
                '%s was ready after %.1f s: one that takes its place would be ended after %g s'
                ' (Daemon.start_timeout)', worker, took, limit,
            )

    def _extend(self, worker: Worker, seconds: float) -> None:
        """Give a worker more time, which waits for its broker, as the service manager does."""
        worker.extended = time.monotonic() + seconds
        if not self._announced:
            self._notifier.extend_timeout(seconds)

    def _announce(self) -> None:
        """Report once that all are ready; after a reload, that all are which can be started."""
        if self._announced or self._outdated():
            return
        here = {worker.number for worker in self._workers if worker.is_ready} | self._left
        if self._was_ready:
            here.update(self._missing)
        if not here.issuperset(range(1, self._wanted + 1)):
            return
        self._conclude(0)
        self._announced = self._notifier.ready() or not self._notifier.enabled
        if not self._was_ready:
            self._was_ready = True
            self._report_ready()
            LOGGER.debug('ready')

    def _reap(self) -> None:
        """Reap the processes that have ended: workers, and, as process 1, orphans."""
        ended = dict(reap() if self._reaps else ())
        for worker in list(self._workers):
            status = ended.get(worker.pid)
            if status is None and not self._reaps:
                pid, raw = os.waitpid(worker.pid, os.WNOHANG)
                status = os.waitstatus_to_exitcode(raw) if pid else None
            if status is not None:
                self._hear(worker)
                self._bury(worker, status)

    def _bury(self, worker: Worker, status: int) -> None:
        """Clean up after a worker that has ended, and log how it ended."""
        asked = worker.deadline is not None and not worker.timed_out
        self._monitor.count_finished(worker.slot.read()[2])
        worker.slot.record_death()
        self._statistics.end(worker.slot.index)
        self._forget(worker)
        if not worker.finished and not self._shares_group:
            self._leftovers.end(worker.pid, str(worker))
        lived = time.monotonic() - worker.started
        if worker.trace:
            trace = worker.trace.decode(errors='replace').rstrip()
            LOGGER.error('%s died here:\n%s', worker, trace)
        if asked or (worker.is_retiring and not status):
            LOGGER.log(logging.WARNING if status else logging.INFO, '%s has ended: %s', worker,
                       describe(status))
            if status not in (0, os.EX_TEMPFAIL):
                self._note_failure(worker, status)
            return
        if worker.left and not status:
            LOGGER.info('%s has ended of its own accord', worker)
            self._left.add(worker.number)
            return
        self._note_death(worker, status, lived)

    def _note_death(self, worker: Worker, status: int, lived: float) -> None:
        words = f'{worker} ended after {lived:.1f} s: {describe(status)}'
        if self._stopping is not None:
            LOGGER.warning('%s', words)
        elif worker.is_ready or worker.timed_out:
            delay = self._delay(worker, lived)
            LOGGER.error('%s; starting another %s', words, when(delay))
        else:
            why = ' '.join(worker.why) or describe(status)
            self._note_failed_start(worker, f'{words}, before it was ready', why, status)

    def _delay(self, worker: Worker, lived: float, *, was_ready: bool = True) -> float:
        """Decide when another worker takes its place; return the seconds until then."""
        backoff = self._backoffs.setdefault(worker.number, RestartBackoff())
        delay = backoff.next(lived, was_ready=was_ready)
        self._due[worker.number] = time.monotonic() + delay
        self._statistics.count('worker_restarts')
        return delay

    def _note_failed_start(self, worker: Worker, words: str, why: str, status: int) -> None:
        """Decide what follows from a worker that has not become ready.

        Workers that are ready go on. Without any, the third failure in a row ends the service.

        :param words: how it ended, for the log.
        :param why: why, for the status line.
        :param status: its exit status, which may become that of the service.
        """
        delay = self._delay(worker, 0.0, was_ready=False)
        is_current = worker.config is self._config
        if is_current and self._old_config is not None:
            LOGGER.error('%s', words)
            self._give_up_reload(why)
            return
        too_many = False
        # One that was killed from outside would have become ready as others did.
        if is_current and not (self._was_ready and status == -signal.SIGKILL):
            too_many = self._failures.failed(worker.number, why)
        working = sum(other.is_ready and other.is_staying for other in self._workers)
        if too_many and not (self._was_ready and working):
            LOGGER.error('%s', words)
            self._failure = WorkersFailed(f'no worker becomes ready: {why}', exit_status(status))
            self._stop(signal.SIGTERM)
            return
        self._tell_whether_needed()  # before the log, which takes time: others may be finishing
        LOGGER.error('%s; %d of %s ready; starting another %s', words, working,
                     counted(self._wanted, 'worker'), when(delay))

    def _tell_whether_needed(self) -> None:
        """Have no worker stop at its number of messages while another cannot be started."""
        needed = bool(self._missing)
        for worker in self._workers:
            if worker.is_needed != needed:
                worker.is_needed = needed
                worker.slot.set_needed(needed)

    @property
    def _missing(self) -> dict[int, str]:
        """The workers that cannot be started, and why."""
        reasons = self._failures.reasons
        return {number: reasons[number] for number in sorted(reasons) if number <= self._wanted}

    def _note_failure(self, worker: Worker, status: int) -> None:
        """Record that a worker failed to stop cleanly; the service then ends with its status."""
        if self._stopping is None or self._failure is not None:
            return
        if status in (-signal.SIGKILL, 128 + signal.SIGTERM):
            status = -signal.SIGTERM
        elif self._was_ready and not worker.is_ready:
            return  # one that was about to take another's place
        self._failure = WorkersFailed(
            ' '.join(worker.why) or f'worker {worker.number} ended: {describe(status)}',
            exit_status(status),
        )

    def _forget(self, worker: Worker) -> None:
        self._workers.remove(worker)
        if self._control is not None:
            self._control.forget(worker)
        worker.close()
        self._slots.append(worker.slot.index)
        for other in self._workers:
            if other.replaces is worker:
                other.replaces = None

    # Replacing.

    def _outdated(self) -> list[Worker]:
        """Return the workers that must be replaced while they work."""
        return [
            worker for worker in self._workers
            if worker.is_staying and worker.number <= self._wanted
            and (worker.config is not self._config or worker.retire)
            and worker.replaces is None
        ]

    def _replace_workers(self) -> None:
        """Replace workers one after the other: when the new one is ready, the old one stops."""
        for worker in list(self._workers):
            old = worker.replaces
            if old is None:
                continue
            if worker.config is not self._config:
                self._stop_worker(worker)  # it was started for an earlier reload
                worker.replaces = None
            elif worker.is_ready:
                worker.replaces = None
                self._note_outdated()
                self._stop_worker(old)
            else:
                return
        outdated = self._outdated()
        if not outdated:
            self._old_config = None
            return
        old = min(outdated, key=lambda worker: worker.number)
        if self._due.get(old.number, 0.0) <= self._now:
            if old.retire:
                LOGGER.info('%s is replaced: %s', old, old.retire)
            self._start(old.number, replaces=old)

    def _end_hanging_starts(self) -> None:
        """End each worker that has not become ready in time."""
        for worker in list(self._workers):
            if time.monotonic() >= self._patience(worker):
                self._end_start(worker)

    def _patience(self, worker: Worker) -> float:
        """Return when a worker that is not ready yet is given up.

        The first start takes as long as it takes, as without workers. Later, one that waits for
        its broker is waited for, unless it holds up a reload.
        """
        if worker.is_ready or not worker.is_staying or not self._was_ready:
            return NEVER
        due = worker.started + float(worker.config.daemon['start_timeout'])
        return due if self._old_config is not None else max(due, worker.extended)

    def _end_start(self, worker: Worker) -> None:
        why = f'not ready after {worker.config.daemon["start_timeout"]:g} s'
        if worker.extended:
            self._stop_worker(worker)
        else:  # it hangs: its traceback is written in C, whoever holds the GIL
            worker.stop(signal.SIGABRT, LAST_WORDS)
        worker.replaces = None
        self._note_failed_start(
            worker, f'{worker} is {why} (Daemon.start_timeout): ended', worker.status or why,
            os.EX_TEMPFAIL,
        )

    def _note_outdated(self) -> None:
        """Tell the workers with another configuration to leave newcomers to the others."""
        for worker in self._workers:
            worker.slot.set_outdated(worker.config is not self._config)

    def _give_up_reload(self, why: str) -> None:
        """Go back to the old configuration, because the new workers fail."""
        assert self._old_config is not None
        LOGGER.error('the reload is given up, the old workers go on: %s', why)
        if self._config.daemon['workers'] != self._old_config.daemon['workers']:
            self._wanted = self._old_config.daemon['workers']
        self._config, self._old_config = self._old_config, None
        self._given_up = why
        self._conclude(1, [f'given up, the old workers go on: {why}'])
        self._note_outdated()
        self._reloader.configure_logging(self._config)

    def _release_workers(self) -> None:
        """Stop surplus workers."""
        for worker in self._workers:
            if worker.number > self._wanted and worker.is_staying:
                self._stop_worker(worker)

    # Stopping.

    def _stop_worker(self, worker: Worker) -> None:
        worker.stop(signal.SIGTERM, worker.config.daemon['stop_timeout'] + GRACE)

    def _stop(self, signum: int) -> None:
        if self._stopping is None:
            timeout = self._config.daemon['stop_timeout']
            self._notifier.stopping('stopping')
            self._notifier.extend_timeout(timeout + GRACE)
            self._stop_listening()
            self._conclude(os.EX_TEMPFAIL, ['it is being stopped'])
        self._stopping = signum
        for worker in self._workers:
            if signum == signal.SIGTERM:
                worker.slot.set_stopping()
                self._stop_worker(worker)
            else:
                worker.stop(signal.SIGQUIT, AT_ONCE)

    def _kill_stragglers(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.deadline is not None and now >= worker.deadline:
                LOGGER.error('%s has not stopped in time: killed', worker)
                worker.deadline = NEVER
                if not worker.timed_out:
                    worker.slot.clear_in_flight()
                worker.signal(signal.SIGKILL)

    # Signals.

    def _urgent(self, signum: int, frame: FrameType | None) -> None:
        """Ensure that a stop ends, whatever this process waits for or does when workers are gone.

        That may be an exit handler, or a log that nobody reads.
        """
        if signum == signal.SIGQUIT or (signum == signal.SIGINT and self._stopping is not None):
            self._deadline.arm(AT_ONCE + OVERTIME, signum)
        elif signum in (signal.SIGTERM, signal.SIGINT):
            self._deadline.arm(self._config.daemon['stop_timeout'] + OVERTIME)
        else:
            return
        if self._workers and not self._is_watched:
            self._is_watched = True
            discard_if_stuck(self._ending, self._is_stuck)

    def _is_stuck(self) -> bool:
        """Return, in another thread, whether this process has not read its signals."""
        self._is_watched = False
        return bool(wait_readable((self._signals.fileno(),), 0))

    def _serve(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            return
        LOGGER.info('%s', self._signals.describe(signum))
        if signum == signal.SIGQUIT or (signum == signal.SIGINT and self._stopping is not None):
            self._stop(signum)
        elif signum in (signal.SIGTERM, signal.SIGINT):
            if self._stopping is None:
                self._stop(signal.SIGTERM)
        elif self._stopping is None:
            {
                signal.SIGHUP: self.reload,
                signal.SIGUSR1: self._reload_all_in_place,
                signal.SIGUSR2: self._log_state,
                signal.SIGTTIN: self._add,
                signal.SIGTTOU: self._remove,
            }[signal.Signals(signum)]()

    # What is asked of it, by signals or by the control socket.

    def reload(self) -> list[str] | None:
        """Replace the workers by ones with the new configuration, if it is valid.

        :returns: what is wrong with it; None: they are being replaced.
        """
        if not self._read_configuration(begins_anew=True):
            return self._reloader.faults
        self._notifier.reloading('replacing the workers')
        self._announced = False
        self._given_up = ''
        self._left.clear()
        for number in self._missing:  # the new configuration may be what they need
            self._due.pop(number, None)
        self._failures = StartFailures()
        return None

    def reload_in_place(self) -> list[str] | None:
        """Adopt the new configuration, which each worker has to do then.

        :returns: what is wrong with it; the workers have reopened their log files all the same.
        """
        if not self._read_configuration(begins_anew=False):
            self._signal_all(signal.SIGUSR1)
            return self._reloader.faults
        self._old_config = None
        for worker in self._workers:
            worker.config = self._config
        self._note_outdated()
        return None

    def _reload_all_in_place(self) -> None:
        """Handle USR1: each worker adopts the new configuration and reopens the log files."""
        if self.reload_in_place() is None:
            self._signal_all(signal.SIGUSR1)

    def _conclude(self, status: int, lines: Sequence[str] = ()) -> None:
        """Tell whoever has asked for a reload what has become of it."""
        if self._control is not None:
            self._control.reloaded(status, lines)

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes, those that are being stopped included."""
        return self._workers

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._wanted

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stopping is not None

    def want(self, number: int) -> None:
        """Have another number of workers, until a reload changes it."""
        self._wanted = number

    def _read_configuration(self, *, begins_anew: bool) -> bool:
        config = self._reloader.read(self._config)
        if config is None:
            return False
        old, self._config = self._config, config
        self._statistics.tell(config_read=time.time())
        if config.daemon['metrics'] is not None:
            self._statistics.tell_configuration(config.shown())
        self._old_config = self._old_config or old
        self._reloader.put_into_effect(config, old, begins_anew=begins_anew, supervised=True)
        if config.daemon['workers'] != old.daemon['workers']:
            self._wanted = config.daemon['workers']
        return True

    def _log_state(self) -> None:
        """Handle USR2: log the workers; each worker logs its own state."""
        for worker in self._workers:
            LOGGER.warning(
                '%s: %s, %.0f s old, %s', worker, worker.state,
                time.monotonic() - worker.started, counted(worker.slot.read()[2], 'message'),
            )
        self._signal_all(signal.SIGUSR2)

    def _add(self) -> None:
        self._wanted = min(self._wanted + 1, MOST)
        LOGGER.info('%s', counted(self._wanted, 'worker'))

    def _remove(self) -> None:
        self._wanted = max(self._wanted - 1, 1)
        LOGGER.info('%s', counted(self._wanted, 'worker'))

    def _signal_all(self, signum: int) -> None:
        for worker in self._workers:
            if worker.deadline is None:
                worker.signal(signum)


def _fork_process() -> int:
    """Fork, without a warning of threads that do not run meanwhile.

    Listeners of log handlers are stopped at each fork, and run again by the time that Python, from
    3.12 on, counts the threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        return os.fork()
