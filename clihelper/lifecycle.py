"""The life of a controller: from ``_setup`` to ``_cleanup``, and what each signal does to it.

::

    _setup --> ready --> _loop --> _cleanup --> exit status
      ^                               |
      '------------- HUP -------------'

What fails between a HUP and readiness is undone: ``_cleanup``, and a round with the configuration
of before.

Signals arrive here as numbers. They are read from the pipe by the code that waits
(:meth:`LifeCycle.serve_signals`), or passed in by the handler while a loop of the user's own runs
(:meth:`LifeCycle._deliver`). Each signal calls a hook of the controller, whose default calls
:meth:`~LifeCycle.stop`, :meth:`~LifeCycle.restart`, :meth:`~LifeCycle.reload` or
:meth:`~LifeCycle.log_stacks` here.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager

from clihelper import logs
from clihelper.config.reloading import Reloader
from clihelper.errors import Error, StopNow, StoppedEarly, in_one_line
from clihelper.loops import wait_until
from clihelper.operations import stacks
from clihelper.process.deadline import Deadline, kill_main_thread, signal_later, start_thread
from clihelper.process.flow import CALL
from clihelper.process.signals import call_back_in, running_event_loop, wait_readable
from clihelper.process.statistics import Statistics
from clihelper.states import RUNNING, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from socket import socket
    from types import FrameType
    from typing import Any

    from clihelper.amqp.handlers import Handlers
    from clihelper.config import Config
    from clihelper.controller import Controller
    from clihelper.loops import Loop
    from clihelper.process.deadline import Ending
    from clihelper.process.scoreboard import Slot
    from clihelper.process.signals import Signals
    from clihelper.process.statistics import ProcessStatistics
    from clihelper.process.systemd import Notifier

    Report = Callable[[int, Sequence[str]], object]

LOGGER = logging.getLogger('clihelper')

STOPPED = frozenset({State.STOP_REQUESTED, State.STOPPING, State.STOPPED})
"""The states in which a stop is in progress or complete."""

RUNNING_STATUS = 'running'
"""the status line of a controller that is ready"""

POSTPONED = 0.01
"""seconds after which a signal that came at a bad moment is handled again"""

READY_RETRY_MIN, READY_RETRY_MAX = 0.1, 60.0
"""seconds after which readiness is reported again to a service manager whose socket was full;
they double each time"""

RETRY = signal.SIGUSR2
"""the signal that makes the handler retry what it could not do; it has no other effect"""



class WorkerContext:
    """One of the daemon's processes.

    :param worker: its number among the workers, from 1.
    :param slot: where it records the message in flight, for the processes that survive it; None:
        it does not record it.
    :param listening: the listening sockets: those that a service manager passed, then those of
        ``Daemon.listen``.
    :param names: the names of those that were passed.
    :param statistics: where it records what it does, for whoever asks; None: nobody can ask.
    :param supervised: whether it is a worker of a supervisor, which logs what a reload changes.
    """

    def __init__(
        self,
        worker: int = 1,
        slot: Slot | None = None,
        listening: Sequence[socket] = (),
        names: Sequence[str] = (),
        statistics: ProcessStatistics | None = None,
        supervised: bool = False,
    ) -> None:
        self.worker = worker
        self.slot = slot
        self.listening = listening
        self.names = names
        self.statistics = statistics or Statistics.make().slot(0)
        self.statistics.begin(worker)
        self.supervised = supervised


class LifeCycle:
    """Drives one controller; a loop uses the controller only through this class.

    :param appname: the application's name.
    :param config: the configuration that the controller starts with.
    :param signals: the signal pipe, installed.
    :param notifier: reports to the service manager.
    :param reread: reads and validates the configuration again; raises
        :class:`~clihelper.errors.Error`.
    :param configure_logging: sets up logging from a configuration; raises the same.
    :param before_loop: called when the first ``_setup`` is done.
    :param report_ready: reports to the command that started the daemon that it is ready.
    :param ending: ends the process if the main thread does not: see
        :class:`~clihelper.process.deadline.Deadline`.
    :param context: which of the daemon's processes this is.
    :ivar watchers: called in the main thread when other processes have changed which queues are
        consumed.
    :ivar bool was_told: whether a signal or a limit stopped it, rather than the program itself.
    """

    _surround: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    _retrying: object | None = None

    def __init__(
        self,
        *,
        appname: str,
        config: Config,
        signals: Signals,
        notifier: Notifier,
        reread: Callable[[], Config],
        configure_logging: Callable[[Config], None],
        before_loop: Callable[[], None],
        report_ready: Callable[[], None],
        ending: Ending,
        context: WorkerContext | None = None,
    ) -> None:
        self.appname = appname
        self.config = config
        self.signals = signals
        self.notifier = notifier
        self.loop: Loop
        self.was_ready = self.was_told = False
        self._context = context or WorkerContext()
        self.sockets: list[socket] = []
        self.watchers: set[Callable[[], object]] = set()
        self.signum = 0
        self._reloader, self._reload = Reloader(reread, configure_logging), Reloading()
        self.configure_logging = configure_logging
        self._before_loop: Callable[[], None] | None = before_loop
        self._report_ready = report_ready
        self._deadline = Deadline(ending)
        self._controller: Controller
        self._next_config: Config | None = None
        self._proven: Config | None = None  # the last one that a round was ready with
        self._undone_by: BaseException | None = None
        self._status, self._ready_unsent = RUNNING_STATUS, 0.0
        self._announced = self._looping = self._stop_noted = False
        self._serving = self._is_answered = False
        self._waiting: deque[int] = deque()
        self._calls: deque[Callable[[], object]] = deque()
        # Threads may wait on it, so it lives as long as this object.
        self._interrupt = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._interrupt).atexit = False

    # From start to end.

    def run(self, controller: Controller) -> int:
        """Run *controller* from ``_setup`` to the end.

        :returns: the exit status: 0, or 75 (``EX_TEMPFAIL``) if it was stopped before it was
            ready. The deadline of the stop stays armed, since it applies to the whole process.
        :raises BaseException: the exception of a hook, after ``_cleanup``.
        """
        try:
            with self.alive(controller):
                while True:
                    with self.undoing(), self.round():
                        self._run_loop()
                    self.serve_signals()
                    if not self.begin_again():
                        break
        except KeyboardInterrupt:
            LOGGER.info('stopped by a KeyboardInterrupt')
        return 0 if self.was_ready else os.EX_TEMPFAIL

    @contextmanager
    def alive(self, controller: Controller) -> Iterator[None]:
        """A context for the whole life of *controller*."""
        self._controller = controller.driven()
        self._surround = controller.own_surroundings
        self.signals.urgent = self._urgent
        try:
            yield
        finally:
            self._become(State.STOPPING)
            self._become(State.STOPPED)
            self._reload.ends(os.EX_TEMPFAIL, ['it has stopped meanwhile'])
            os.eventfd_write(self._interrupt, 1)
            self._deadline.outlive()

    @contextmanager
    def round(self) -> Iterator[None]:
        """A context for one round, from ``_setup`` to ``_cleanup``; the loop runs in it."""
        self.loop = self.make_loop()
        self.sockets = [each.dup() for each in self._context.listening]
        try:
            self._set_up()
            try:
                yield
            except BaseException as error:
                if not _ends_program(error):
                    self.loop.end_iterations()  # before it stops: the message in hand has failed
                self._undoes(error)
                raise
            finally:
                if self._controller.state is not State.RELOADING:
                    self._become(State.STOPPING)
                self._clean_up()
        finally:
            self.loop.end_iterations()
            self.loop.close()
            for each in self.sockets:
                each.close()

    def _set_up(self) -> None:
        try:
            self.loop.call(self._controller._setup)
            self.signals.retake()
        except BaseException as error:
            if self._undoes(error):
                self._clean_up()  # what it had opened might be in the way of the next one
            raise

    def _clean_up(self) -> None:
        """Call ``_cleanup``. If it fails before another round, that does not end the daemon."""
        self.loop.leave()
        try:
            self.loop.call(self._controller._cleanup)
        except Exception:
            if self._controller.state is not State.RELOADING:
                raise
            LOGGER.exception('_cleanup failed; the reload goes on')

    # Undoing a reload.

    @contextmanager
    def undoing(self) -> Iterator[None]:
        """A context for a round: if a reload is undone by what it raises, the daemon goes on."""
        try:
            yield
        except BaseException as error:
            if self._undoes(error):
                return
            if self._undone_by is not None and not _ends_program(error):
                self.notifier.status(f'the old configuration fails, too: {in_one_line(error)}')
            raise

    def _undoes(self, error: BaseException) -> bool:
        """Return whether *error* undoes a reload; the first time, set off the next round.

        It does if it comes before the new configuration was ready, unless it ends the program.
        """
        if error is self._undone_by:
            return True
        state = self._controller.state
        if self._proven is None or self._proven is self.config:
            return False
        if state in STOPPED or _ends_program(error):
            return False
        self._undone_by = error
        why = in_one_line(error)
        self._reload.ends(1, [f'undone, the old configuration is set up again: {why}'])
        self._status = f'{RUNNING_STATUS} with the old configuration; the reload failed: {why}'
        trace = None if isinstance(error, Error) else error
        LOGGER.error('the reload failed, the old configuration is set up again: %s', why,
                     exc_info=trace)
        self.notifier.status(f'the reload failed, going back to the old configuration: {why}')
        if state is not State.RELOADING:
            self._next_config = self._proven
            self._become(State.RELOADING)
            os.eventfd_write(self._interrupt, 1)
        return True

    def make_loop(self) -> Loop:
        """Make the loop of the next round."""
        return self._controller.make_loop(self)

    def begin_again(self) -> bool:
        """After a round, return whether HUP asked for another; if so, prepare it."""
        if self._controller.state is not State.RELOADING:
            return False
        self._swap_configuration(begins_anew=True)
        os.eventfd_read(self._interrupt)
        self._become(State.INITIALIZING)
        return True

    def _run_loop(self) -> None:
        controller = self._controller
        if self._before_loop is not None:
            self._before_loop()
            self._before_loop = None
        self.serve_signals()
        if not controller.is_running:
            return
        self._become(State.IDLE)
        if controller.brings_loop:
            self.ready()
        self._looping = True
        self.signals.deliver = self._deliver
        try:
            self.serve_signals()
            if controller.is_running:
                controller._loop()
        finally:
            self._looping = False
            self.signals.deliver = None

    def run_own_loop(self) -> None:
        """Wait for work and do it; called by ``Controller._loop`` unless it is overridden."""
        if not self.loop.reads_signals:
            self.loop.run()
            return
        with self.signals.held():
            self.loop.run()

    def ready(self) -> None:
        """Report to the service manager and the waiting command that the loop is ready."""
        if self._announced:
            return
        self._announced = True
        self._proven = self.config
        self._undone_by = None
        self._reload.ends(0)
        self._tell_ready()
        if not self.was_ready:
            self.was_ready = True
            self._report_ready()
            LOGGER.debug('ready')

    def _tell_ready(self) -> None:
        if self.notifier.ready(self._status) or not self.notifier.enabled:
            self._ready_unsent = 0.0
        else:
            self._ready_unsent = min(max(2 * self._ready_unsent, READY_RETRY_MIN), READY_RETRY_MAX)

    # What a loop calls.

    @property
    def worker(self) -> int:
        """The number of the process among the workers."""
        return self._context.worker

    @property
    def socket_names(self) -> Sequence[str]:
        """The names of the first of :attr:`sockets`, which a service manager has passed."""
        return self._context.names

    @property
    def slot(self) -> Slot | None:
        """Where to record the message in flight."""
        return self._context.slot

    @property
    def statistics(self) -> ProcessStatistics:
        """Where to record what this process does, for whoever asks."""
        return self._context.statistics

    @property
    def is_running(self) -> bool:
        """Whether the loop has not been asked to end."""
        return not self._stop_noted and self._controller.state in RUNNING

    @property
    def interrupt(self) -> int:
        """The descriptor that is readable once the loop was asked to end; threads wait for it."""
        return self._interrupt

    @property
    def begins_again(self) -> bool:
        """Whether the loop has been asked to end because of a reload."""
        return self._controller.state is State.RELOADING

    @property
    def is_final(self) -> bool:
        """Whether nobody serves on when the loop has ended.

        The next round would, or another worker, or the service manager that passed the sockets.
        """
        if self._context.names:
            return False
        return not self.begins_again and self.notifier.service_stops

    @property
    def wake_interval(self) -> float:
        """The seconds between two calls of ``_process``."""
        return self._controller.wake_interval

    @property
    def decides_each_delay(self) -> bool:
        """Whether a subclass decides each delay itself, counted from the end of ``_process``."""
        return self._controller.overrides_wake_interval

    @property
    def process(self) -> Callable[[], object]:
        """The controller's ``_process``."""
        self.statistics.count('ticks')
        return self._controller._process

    @property
    def has_process(self) -> bool:
        """Whether the controller has its own ``_process``."""
        return self._controller.has_process

    @property
    def on_message(self) -> Callable[[Any, Any], Any]:
        """The ``on_message`` of a consumer's controller."""
        handler: Callable[[Any, Any], Any] = self._controller.on_message  # type: ignore[attr-defined]
        return handler if self._surround is None else self._surround(handler)

    @property
    def on_messages(self) -> Callable[[Any], Any]:
        """The ``on_messages`` of a consumer's controller."""
        handler: Callable[[Any], Any] = self._controller.on_messages  # type: ignore[attr-defined]
        return handler if self._surround is None else self._surround(handler)

    @property
    def handlers(self) -> Handlers | None:
        """The handlers of a consumer's controller; None: it is no consumer."""
        controller: Any = self._controller
        return controller.handler_table() if controller.is_consumer else None

    def handler(self, name: str) -> Callable[[Any, Any], Any]:
        """The method of a consumer's controller that handles a message."""
        handler: Callable[[Any, Any], Any] = getattr(self._controller, name)
        return handler if self._surround is None else self._surround(handler)

    @property
    def handles_batches(self) -> bool:
        """Whether a consumer's controller handles several messages by one call."""
        return self._controller.handles_batches  # type: ignore[attr-defined, no-any-return]

    @property
    def order_key(self) -> Callable[[Any], Any] | None:
        """The ``order_key`` of a consumer's controller, if a subclass overrides it."""
        controller: Any = self._controller
        return controller.order_key if controller.has_order_key else None

    @property
    def own_topology(self) -> tuple[Sequence[Any], Sequence[Any], str]:
        """The queues and exchanges of a consumer, and the name of its class."""
        controller: Any = self._controller
        return controller.queues, controller.exchanges, type(controller).__name__

    def idle(self) -> None:
        """Record that the loop neither works nor waits."""
        if self._controller.state in RUNNING:
            self._become(State.IDLE)

    def sleeping(self) -> None:
        """Record that the loop begins to wait."""
        if self.signals.is_reset(signal.SIGTERM):
            self.signals.retake()
        if self._controller.state in RUNNING:
            self._become(State.SLEEPING)

    def active(self) -> None:
        """Record that a hook of the user's begins to run."""
        if self._controller.state in RUNNING:
            self._become(State.ACTIVE)

    def heartbeat(self) -> float | None:
        """Feed the service manager's watchdog, and resend readiness if it was not sent.

        :returns: the seconds within which to call this again; None: no limit.
        """
        pulses = []
        if self.slot is not None:
            self.slot.heartbeat()
        if self._ready_unsent and self.is_running:
            self._tell_ready()
            pulses.append(self._ready_unsent)
        interval = self.notifier.watchdog_interval
        if interval is not None:
            self.notifier.watchdog()
            pulses.append(interval / 2)
        return min(filter(None, pulses), default=None)

    def wait(self, seconds: float) -> bool:
        """Wait until a stop or a restart is requested; see ``Controller.wait``."""
        end = time.monotonic() + seconds
        if threading.current_thread() is not threading.main_thread():
            wait_readable((self._interrupt,), max(end - time.monotonic(), 0.0))
            return self.is_running
        with self.signals.held():
            self.serve_signals()
            wait_until(self, lambda: self.is_running, end)
        return self.is_running

    # What the controller's hooks call.

    def stop(self) -> None:
        """Stop gracefully, within ``Daemon.stop_timeout``."""
        controller = self._controller
        if controller.state in STOPPED:
            return
        timeout = self.config.daemon['stop_timeout']
        self._deadline.arm(timeout)
        self._become(State.STOP_REQUESTED)
        self.notifier.stopping('finishing the current work')
        self.notifier.extend_timeout(timeout + Deadline.GRACE)
        for each in self._context.listening:
            each.close()
        self._end_loop()

    def retire(self) -> None:
        """Stop gracefully, so that the supervisor replaces this process."""
        if self._controller.state in RUNNING:
            self.was_told = True
            self.notifier.retiring()
            self.stop()

    def restart(self) -> None:
        """Read the configuration; if it is valid, stop the loop and start over with it."""
        config = self._reloader.read(self.config)
        if config is None:
            self._reload.refused(self._reloader.faults)
            return
        if self._controller.state in STOPPED:
            return
        self._reload.begins()
        self._next_config = config
        self._status = RUNNING_STATUS
        self._announced = False
        self.notifier.reloading('restarting with the new configuration')
        if self._controller.state is not State.RELOADING:
            self._become(State.RELOADING)
            self._end_loop()

    def reload(self) -> None:
        """Read the configuration; if it is valid, put it in place and reopen the log files."""
        config = self._reloader.read(self.config)
        if config is None:
            self._reload.refused(self._reloader.faults)
            return
        if self._announced:
            self.notifier.reloading('reloading the configuration')
        self._next_config = config
        self._status = RUNNING_STATUS
        self._swap_configuration(begins_anew=False)
        if self._announced:
            self._proven = config
        try:
            self._controller.on_configuration_reloaded()
        finally:
            if self._announced:
                self._tell_ready()
        self._reload.done()

    def log_stacks(self) -> None:
        """Log the state and the stack of every thread, at WARNING so that it is seen.

        Any thread may call this.
        """
        description = self.loop.description() if hasattr(self, 'loop') else ''
        parts = (f'state {self._controller.state.name}', description, stacks.threads())
        LOGGER.warning('%s', '\n'.join(filter(None, parts)))

    # What other threads call.

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have *function* called in the main thread, between two pieces of work.

        Any thread may call this, once :data:`CALL` is taken over. What is still waiting when the
        process ends is not called.
        """
        self._calls.append(function)
        kill_main_thread(CALL)

    def report_reload(self, signum: int, report: Report) -> None:
        """Serve HUP or USR1 now, and report later what has become of it; in the main thread.

        :param report: called in the main thread with an exit status and lines: 0 when the new
            configuration is in force, 78 with its faults, 1 if the reload was undone or not begun,
            75 if the program stops first.
        """
        if self._controller.state in STOPPED:
            report(os.EX_TEMPFAIL, ['it is being stopped'])
            return
        with self._reload.reporting(report):
            self._dispatch(signum)

    # Signals.

    def serve_signals(self) -> None:
        """Handle the signals in the pipe. Call this between two pieces of work."""
        self.signals.retake()
        for signum in self.signals.read():
            self.serve(signum)

    def _urgent(self, signum: int, frame: FrameType | None) -> None:
        """Handle what cannot wait for the loop: the deadline, QUIT, a second INT, and USR2."""
        if signum == signal.SIGTERM and self._deadline.expired:
            self._deadline.expired = False
            raise StopNow(signal.SIGTERM)
        if signum == signal.SIGQUIT or (signum == signal.SIGINT and self._stop_noted):
            self._stop_noted = True
            if self._deadline.force(signum):
                raise StopNow(signum)
        if signum == signal.SIGUSR2 and not self._retrying:
            self._answer_sigusr2()
        if signum in (signal.SIGTERM, signal.SIGINT):
            self._stop_noted = True
            self._deadline.arm(self.config.daemon['stop_timeout'])

    def _answer_sigusr2(self) -> None:
        """Log the state from another thread: this one may hold a lock that logging needs."""
        if not self._controller.overrides_sigusr2 and self._controller.state not in STOPPED:
            self._is_answered = True
            start_thread(self.log_stacks)

    def _deliver(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal while a loop of the user's own runs, which does not read the pipe."""
        self._waiting.append(signum)
        event_loop = running_event_loop()
        if event_loop is not None:
            event_loop.call_soon_threadsafe(self._serve_waiting)
            return
        # If logging was interrupted while it wrote to a stream, that stream cannot be used here.
        caller = frame
        while logs.is_emitting(caller):
            caller = caller and caller.f_back
        if caller is frame or caller is None:
            self._serve_waiting()
        elif not call_back_in(caller, self._serve_waiting):
            self._retry_later()

    def serve(self, signum: int) -> None:
        """Handle a signal, after the current one if there is one."""
        self._waiting.append(signum)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Handle the signals that arrived, unless one is being handled already."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting:
                self._dispatch(self._waiting.popleft())
        finally:
            self._serving = False

    def _dispatch(self, signum: int) -> None:
        if signum == CALL:
            self._serve_calls()
            return
        name = self.signals.describe(signum)
        if signum == RETRY and self._retrying:
            self._retry()
            return
        if self._controller.state in STOPPED:
            LOGGER.info('%s while stopping: noted', name)
            return
        LOGGER.info('%s', name)
        if signum == signal.SIGUSR2 and self._is_answered:
            self._is_answered = False
            return
        self.was_told = self.was_told or signum in (signal.SIGTERM, signal.SIGINT)
        self.signum = signum
        try:
            self._hook(signum)()
        except Exception as error:
            LOGGER.exception('the hook of %s failed', name)
            self._reload.failed(error)
            if signum in (signal.SIGTERM, signal.SIGINT):
                self.stop()
        if signum in (signal.SIGTERM, signal.SIGINT) and self._controller.state in RUNNING:
            # The subclass has overridden the effect of the signal.
            self._stop_noted = False
            self._deadline.disarm()

    def _serve_calls(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:
                LOGGER.exception('what another thread has asked for failed')

    def _hook(self, signum: int) -> Callable[[], object]:
        controller = self._controller
        return {
            signal.SIGTERM: controller.on_sigterm,
            signal.SIGINT: controller.on_sigterm,
            signal.SIGHUP: controller.on_sighup,
            signal.SIGUSR1: controller.on_sigusr1,
            signal.SIGUSR2: controller.on_sigusr2,
        }.get(signal.Signals(signum), self.stop)

    # The steps of a change.

    def _become(self, state: State) -> None:
        if self._controller.state is not state:
            self._controller.set_state(state)
            self.statistics.set_state(state)

    def _end_loop(self, *, again: bool = False) -> None:
        """End the loop, by ``_shutdown``, and the waits of other threads."""
        os.eventfd_write(self._interrupt, 1)
        if not self._looping:
            return
        try:
            self._controller._shutdown()
        except Exception:
            # The loop may be about to start: what _shutdown stops may not exist yet.
            if not again:
                LOGGER.warning('_shutdown failed and is tried again', exc_info=True)
            self._retry_later()

    def _retry_later(self) -> None:
        self._retrying = token = object()
        signal_later(RETRY, POSTPONED, lambda: self._retrying is token)

    def _retry(self) -> None:
        self._retrying = None
        if self._controller.state not in RUNNING:
            self._end_loop(again=True)

    def _swap_configuration(self, *, begins_anew: bool) -> None:
        assert self._next_config is not None
        old = self._proven or self.config
        self.config, self._next_config = self._next_config, None
        self._controller.config = self.config
        self.statistics.tell(config_read=time.time())
        if self._context.supervised:
            self._reloader.configure_logging(self.config)
        else:
            if self.config.daemon['metrics'] is not None:
                self.statistics.tell_configuration(self.config.shown())
            self._reloader.put_into_effect(
                self.config, old, begins_anew=begins_anew, supervised=False)


class Reloading:
    """Who waits for the end of a reload, and is told what has become of it."""

    def __init__(self) -> None:
        self._asking: Report | None = None  # of the reload whose hook is being called
        self._waiting: list[Report] = []

    @contextmanager
    def reporting(self, report: Report) -> Iterator[None]:
        """A context in which the hook is called: if it does not begin a reload, that is all."""
        self._asking = report
        yield
        self._answer(1, ['the program handles that signal itself, and has begun no reload'])

    def begins(self) -> None:
        """Note that a new round is on its way; :meth:`ends` has the outcome."""
        asking, self._asking = self._asking, None
        if asking is not None:
            self._waiting.append(asking)

    def refused(self, faults: list[str]) -> None:
        """Note that the configuration is faulty."""
        self._answer(os.EX_CONFIG, faults)

    def failed(self, error: BaseException) -> None:
        """Note that the hook has failed."""
        self._answer(1, [in_one_line(error)])

    def done(self) -> None:
        """Note that it was done in place."""
        self._answer(0, [])

    def ends(self, status: int, lines: Sequence[str] = ()) -> None:
        """Tell everybody who waits for the next round what has become of it."""
        waiting, self._waiting = self._waiting, []
        for report in waiting:
            report(status, lines)

    def _answer(self, status: int, lines: Sequence[str]) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            asking(status, lines)


def _ends_program(error: BaseException) -> bool:
    """Return whether an exception ends the program as somebody wants it, rather than fails."""
    if isinstance(error, SystemExit) and not isinstance(error, (StopNow, StoppedEarly)):
        return not error.code
    return isinstance(error, (StopNow, StoppedEarly, KeyboardInterrupt, GeneratorExit))
