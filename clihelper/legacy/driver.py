"""The controller that stands in for a program of 1.x, and calls the program's hooks."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from contextlib import contextmanager

from clihelper.controller import Controller
from clihelper.errors import ConfigurationError
from clihelper.legacy import states
from clihelper.legacy.hooks import PAIRS, required_arguments
from clihelper.legacy.loops import AlarmLoop
from clihelper.lifecycle import RETRY, LifeCycle
from clihelper.process.deadline import signal_later
from clihelper.process.signals import running_event_loop
from clihelper.states import RUNNING, TRANSITIONS, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any, Protocol

    from clihelper.config import Config
    from clihelper.controller import Runner
    from clihelper.loops import Host, Loop

    class Program(Protocol):
        """The program's controller: what the driver uses of it apart from its hooks."""

        later: bool
        defined_by_program: frozenset[str]
        hooks_of_program: dict[str, str]

        @property
        def wake_interval(self) -> float: ...
        def on_configuration_reloaded(self) -> None: ...
        def take_over(self, config: Config) -> None: ...
        def run(self) -> None: ...
        def _loop(self) -> None: ...

LOGGER = logging.getLogger('clihelper')

WATCHED = [name for hook in ('_setup', '_process', '_cleanup', 'end') for name in PAIRS[hook]]
OVER = ('_shutdown_complete', '_stopped', 'stopped')

AGAIN = 0.05
"""seconds after which a signal that came before an event loop runs is handled again"""

BUSY = 0.05
"""seconds that ``_sleep`` takes when the program should end, as its caller may wait in a loop"""


class HookDriver(Controller):
    """Has the hooks of 2.0, which call the hooks that the program has.

    :param program: the program's own controller.
    :ivar bool ending: whether the program knows that this round ends, or has ended it itself.
    """

    def __init__(self, program: Program, life: Runner | None) -> None:
        super().__init__(None, [])  # type: ignore[arg-type]  # the program has them
        self.program = program
        self.ending = False
        self.is_connecting = False
        self._life = life
        self._defined = program.defined_by_program
        self._hooks = program.hooks_of_program
        self._active: list[str] = []
        self._clean = False
        self._runs_itself = False
        self._ended_itself = False
        self._in_loop_of_clihelper = False
        self._kept: list[int] = []
        self._works = False
        self._retrying: object | None = None
        for name in WATCHED:
            if name in self._defined:
                vars(program)[name] = self._watched(name, getattr(program, name))

    # Which hooks the program has.

    def defines(self, name: str) -> bool:
        """Return whether the program itself defines the method."""
        return name in self._defined

    def hook(self, which: str) -> str | None:
        """Return the program's name for a hook, or None if it does not have the hook."""
        return self._hooks.get(which)

    def call_hook(self, which: str, *arguments: object) -> Any:
        """Call a hook, if the program has it."""
        name = self.hook(which)
        return getattr(self.program, name)(*arguments) if name is not None else None

    def call_other(self, which: str, name: str) -> Any:
        """Call the hook under its other name *name*, if the program defines that."""
        if self.defines(name) and not self._is_active(which):
            return getattr(self.program, name)()
        return None

    def _watched(self, name: str, method: Any) -> Any:
        def watched(*arguments: Any, **keywords: Any) -> Any:
            if name in PAIRS['_cleanup']:
                self._clean = True
            self._active.append(name)
            try:
                return method(*arguments, **keywords)
            finally:
                self._active.remove(name)
                if name in PAIRS['_process']:
                    self._process_returned()

        return watched

    def _is_active(self, which: str) -> bool:
        return any(name in self._active for name in PAIRS[which])

    # What the life cycle calls.

    def _setup(self) -> None:
        self.ending = self._clean = self._ended_itself = False
        if not self.defines('run'):
            self.call_hook('_setup')

    def _process(self) -> Any:
        with self._listening():
            if self.state in RUNNING:
                return self.call_hook('_process')
        return None

    def _loop(self) -> None:
        if not self.defines('run'):
            self.program._loop()
            return
        self._runs_itself = True
        try:
            self.program.run()
        except KeyboardInterrupt:
            LOGGER.info('KeyboardInterrupt')
            self.end_program()
        finally:
            self._runs_itself = False

    def _shutdown(self) -> None:
        if not self.ending and not self._is_active('end'):
            self.call_hook('end')
        self.ending = True
        self._end_loop()

    def _cleanup(self) -> None:
        if not self._clean:
            self._clean = True
            self.call_hook('_cleanup')
        for name in OVER:
            if self.defines(name):
                getattr(self.program, name)()

    def on_sigterm(self) -> None:
        if self._life_cycle.signum != signal.SIGINT:
            self._on_signal('on_sigterm')
        elif self._runs_itself and not self.ending:
            raise KeyboardInterrupt
        else:
            self.end_program()

    def on_sighup(self) -> None:
        self._on_signal('on_sighup')

    def on_sigusr1(self) -> None:
        self._on_signal('on_sigusr1')

    def on_sigusr2(self) -> None:
        self._on_signal('on_sigusr2')

    def on_configuration_reloaded(self) -> None:
        self.program.on_configuration_reloaded()

    def set_state(self, state: State) -> None:
        super().set_state(state)
        self.is_connecting = False
        if self.hook('set_state') is not None:
            self._active.append('set_state')
            try:
                self.call_hook('set_state', self.number)
            finally:
                self._active.remove('set_state')

    @property
    def config(self) -> Config:
        return self._life_cycle.config

    @config.setter
    def config(self, config: Config) -> None:
        self.program.take_over(config)
        if self.state is State.RELOADING:
            self.call_hook('reload')

    @property
    def wake_interval(self) -> float:
        if self.hook('wake_interval') == '_get_wake_interval':
            return float(self.call_hook('wake_interval'))
        interval = float(self.program.wake_interval)
        if interval <= 0 and not self.overrides_wake_interval:
            name = type(self.program).__name__
            raise ConfigurationError(f'the wake interval of {name} is {interval:g}, not above 0')
        return interval

    @property
    def brings_loop(self) -> bool:
        return self.defines('run') or self.defines('_loop')

    @property
    def has_process(self) -> bool:
        return self.hook('_process') is not None

    @property
    def overrides_sigusr2(self) -> bool:
        return self.hook('on_sigusr2') is not None or self._retrying is not None

    @property
    def overrides_wake_interval(self) -> bool:
        return self.hook('wake_interval') is not None

    def make_loop(self, life: Host) -> Loop:
        if self.hook('sleep') is not None or self.hook('wake') is not None:
            return AlarmLoop(life, self)
        return super().make_loop(life)

    def _on_signal(self, name: str) -> None:
        method = getattr(self.program, self.hook(name) or name)
        self._active.append(name)
        try:
            method(*([sys._getframe()] if required_arguments(method) else []))
        finally:
            self._active.remove(name)

    @property
    def _life_cycle(self) -> LifeCycle:
        life = super()._life_cycle
        assert isinstance(life, LifeCycle)
        return life

    # What the program calls.

    @property
    def is_going_on(self) -> bool:
        """Whether, as far as the program knows, it has not been asked to end."""
        if self.ending or self._is_active('end'):
            return not self.ending
        return self.state in RUNNING and (self._runs_itself or self._life_cycle.is_running)

    @property
    def number(self) -> states.Number:
        """The state as a number of the program's version."""
        return states.number_of(self.state, later=self.program.later)

    @property
    def words(self) -> str:
        """The state as 1.6 describes it."""
        if self.is_connecting:
            return states.CONNECTING.words
        return states.number_of(self.state, later=True).words

    def note(self, value: object) -> None:
        """Handle the program setting its state.

        :raises ValueError: *value* is not a state.
        """
        if 'set_state' in self._active:
            return  # the life cycle has called the program's set_state, which calls its super()
        number = states.read(value, later=self.program.later)
        if number == self.number and not self.is_connecting:
            return
        if number.state in states.ENDING:
            self._ended_itself = self._ended_itself or not self.ending
            self.ending = True
            if self.state in RUNNING:
                self._life_cycle.stop()
        elif self.state in RUNNING and number.state in {*TRANSITIONS[self.state], self.state}:
            self._state = number.state
            self.is_connecting = number is states.CONNECTING
        else:
            LOGGER.warning('a program that is %s cannot become %s', self.words, number.words)

    def end_program(self) -> None:
        """End, as ``stop`` and ``_shutdown`` do; call the program's own hook, if it has one."""
        if threading.current_thread() is not threading.main_thread():
            signal_later(signal.SIGTERM, 0)
            return
        if not self._is_active('end') and not self.ending:
            self.call_hook('end')
        self.ending = True
        if self.state is State.RELOADING:
            self._end_loop()
        elif self.state in RUNNING and self._is_active('on_sighup'):
            self._life_cycle.restart()
            self.ending = self.state not in RUNNING
        elif self.state in RUNNING:
            self._life_cycle.stop()

    def reload_by_hook(self) -> None:
        """Reload, as USR1 does; call the program's own hook, if it has one."""
        if self.hook('reload') is not None:
            self.call_hook('reload')
        else:
            self.reload()

    def reload(self) -> None:
        """Read the configuration again, unless HUP has just done that."""
        if self.state in RUNNING:
            self._life_cycle.reload()

    def run_usual_loop(self) -> None:
        """Set up, and run the loop, as ``Controller.run`` did."""
        if self._is_active('on_sighup'):
            return  # HUP itself starts over
        self.call_hook('_setup')
        if self.is_going_on:
            self.program._loop()

    def run_loop_of_clihelper(self) -> None:
        """Run the loop that the life cycle runs for a program without its own."""
        self._in_loop_of_clihelper = True
        try:
            self._life_cycle.run_own_loop()
        finally:
            self._in_loop_of_clihelper = False

    def sleep(self) -> None:
        """See ``_sleep`` in :data:`clihelper.legacy.tables.HOOKS`."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and callable(signal.getsignal(signal.SIGALRM)):
            if self.is_going_on:
                signal.setitimer(signal.ITIMER_REAL, self.wake_interval)
                self.note(State.SLEEPING)
            return
        works = self._is_active('_process')
        if not works:
            self.note(State.SLEEPING)
        if not self._life_cycle.wait(self.sleep_unit if works else self.wake_interval):
            threading.Event().wait(BUSY)
        elif not works:
            self.note(State.ACTIVE)

    @property
    def sleep_unit(self) -> float:
        """The seconds of the program's ``SLEEP_UNIT``, of either name."""
        for name in ('SLEEP_UNIT', '_SLEEP_UNIT'):
            if self.defines(name):
                return float(getattr(self.program, name))
        return 0.5

    def wake(self) -> None:
        """Work, and sleep again; called by the alarm in a main loop of the program's own."""
        if not self.is_going_on:
            return
        self.note(State.ACTIVE)
        self.call_hook('_process')
        if self.is_going_on:
            getattr(self.program, self.hook('sleep') or '_sleep')()

    # The end of a round.

    def _end_loop(self) -> None:
        """Make the loop return. The program's own loop may be waiting for something that its
        cleanup ends."""
        if not self._runs_itself or self._in_loop_of_clihelper:
            self._life_cycle.loop.stop()
        if self._clean or self._ended_itself or self.hook('_cleanup') is None:
            return
        if _runs_for_ever(sys._getframe()):
            is_due = self._runs_itself or self._is_active('_process')
        else:
            is_due = self._runs_itself and not (
                self._in_loop_of_clihelper or self._is_active('_process')
            )
        if is_due:
            self._clean = True
            self.call_hook('_cleanup')

    def _process_returned(self) -> None:
        if self.ending and self._runs_itself:
            self._end_loop()

    # Signals while the process hook runs.

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """A context in which signals are handled on an event loop, if one runs in it."""
        signals = self._life_cycle.signals
        if signals.deliver is not None:
            yield
            return
        signals.deliver = self._deliver
        self._works = True
        try:
            self._life_cycle.serve_signals()
            yield
        finally:
            self._works = False
            while self._retrying:  # later it would be treated like any other signal
                time.sleep(AGAIN)
            signals.deliver = None
            kept, self._kept = self._kept, []
        # The loop handles them when this call has returned.
        signals.put_back(kept)

    def _deliver(self, signum: int, frame: FrameType | None) -> None:
        if signum == RETRY and self._retrying:
            self._retrying = None
        elif signum not in self._kept:
            self._kept.append(signum)
        event_loop = running_event_loop()
        if event_loop is not None and _runs_for_ever(frame):
            event_loop.call_soon_threadsafe(self._serve_kept)
        elif self._works and 'asyncio' in sys.modules and not self._retrying:
            # An event loop may be about to start.
            self._retrying = token = object()
            signal_later(RETRY, AGAIN, lambda: self._retrying is token)

    def _serve_kept(self) -> None:
        kept, self._kept = self._kept, []
        for signum in kept:
            self._life_cycle.serve(signum)


def _runs_for_ever(frame: FrameType | None) -> bool:
    """Return whether *frame* is in an event loop that does not end by itself after its work."""
    if running_event_loop() is None:
        return False
    while frame is not None:
        if frame.f_code.co_name in ('run_until_complete', 'run_sync'):
            return False
        frame = frame.f_back
    return True
