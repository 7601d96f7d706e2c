"""The controller of a program of 1.x, with the names that the program calls.

:class:`LegacyController` becomes the base of such a program's classes in place of
``Controller``, so that ``super()`` finds each old name in any order of inheritance. The program's
hooks are called by the :class:`~clihelper.legacy.driver.HookDriver`.
"""

from __future__ import annotations

import logging

from clihelper.controller import Controller
from clihelper.legacy import deprecation, states
from clihelper.legacy.driver import HookDriver
from clihelper.legacy.sections import as_written
from clihelper.states import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from clihelper.config import Config

LOGGER = logging.getLogger('clihelper')


class Old:
    """An attribute with an old name, computed when it is read. A program may assign to it.

    :param compute: returns the value for a controller.
    """

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, controller: Controller | None, owner: type) -> Any:
        if controller is None:
            return self
        deprecation.used_of_controller(self._name)
        return self._compute(controller)


class Constant(Old):
    """A constant with an old name, which can also be read on the class."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __get__(self, controller: Controller | None, owner: type) -> Any:
        deprecation.used_of_controller(self._name)
        return self._value


class LegacyController(Controller):
    """A controller that also has the attributes of controllers of 1.0 to 1.7."""

    later: bool
    """Whether the program is for 1.6 or 1.7; see :func:`clihelper.legacy.adaptation.adapt`"""
    defined_by_program: frozenset[str]
    """The names that the program's classes define"""
    hooks_of_program: dict[str, str]
    """The program's names for the hooks; see :mod:`clihelper.legacy.hooks`"""
    _sections: Any

    def __init__(self, options: Any, arguments: list[str]) -> None:
        self.options = options
        self.arguments = arguments

    def driven(self) -> Controller:
        return self._driver

    @property
    def _driver(self) -> HookDriver:
        driver: HookDriver | None = vars(self).get('_its_driver')
        if driver is None:
            driver = vars(self)['_its_driver'] = HookDriver(self, self._life)
        return driver

    # The hooks that 1.6 renamed. Each calls the one of the other name, if the program defines it.

    def _setup(self) -> None:
        self._driver.call_other('_setup', 'setup')

    def setup(self) -> None:
        self._driver.call_other('_setup', '_setup')

    def _process(self) -> Any:
        return self._driver.call_other('_process', 'process')

    def process(self) -> Any:
        return self._driver.call_other('_process', '_process')

    def _cleanup(self) -> None:
        self._driver.call_other('_cleanup', 'cleanup')

    def cleanup(self) -> None:
        self._driver.call_other('_cleanup', '_cleanup')

    # Signals. In 1.0 to 1.3 these received the frame as an argument.

    def on_sigterm(self, frame: object = None) -> None:
        self._driver.end_program()

    def on_sighup(self, frame: object = None) -> None:
        self._life_cycle.restart()

    def on_sigusr1(self, frame: object = None) -> None:
        self._driver.reload_by_hook()

    def on_sigusr2(self, frame: object = None) -> None:
        self._life_cycle.log_stacks()

    _on_sigterm, _on_sighup = on_sigterm, on_sighup
    _on_sigusr1, _on_sigusr2 = on_sigusr1, on_sigusr2

    def reload_configuration(self) -> None:
        """Read the configuration again; subclasses may extend this."""
        deprecation.used_of_controller('reload_configuration')
        self._driver.reload()

    def _reload_configuration(self) -> None:
        deprecation.used_of_controller('_reload_configuration')
        self._driver.reload()

    # The main loop, and its end.

    def run(self) -> None:
        """Run the usual main loop, for a program that extends it."""
        self._driver.run_usual_loop()

    def _loop(self) -> None:
        self._driver.run_loop_of_clihelper()

    def stop(self) -> None:
        self._driver.end_program()

    def _shutdown(self) -> None:
        self._driver.end_program()

    def _shutdown_complete(self) -> None:
        """React to the end of the program; a hook."""

    _stopped = stopped = _shutdown_complete

    def _sleep(self) -> None:
        deprecation.used_of_controller('_sleep')
        self._driver.sleep()

    def sleep(self) -> None:
        deprecation.used_of_controller('sleep')
        self._driver.sleep()

    def _wake(self, signum: int = 0, frame: object = None) -> None:
        """Do one piece of work; called by the alarm in a main loop of the program's own."""
        self._driver.wake()

    wake = _wake

    # The configuration.

    def take_over(self, config: Config) -> None:
        self._sections = as_written(config)

    @property
    def _config(self) -> Any:
        deprecation.used_of_controller('_config')
        return self._sections

    @_config.setter
    def _config(self, sections: Any) -> None:
        self._sections = sections

    @_config.deleter
    def _config(self) -> None:
        del self._sections

    @property
    def config(self) -> Any:
        """The configuration as written in the file."""
        return self._sections

    @config.setter
    def config(self, config: Any) -> None:
        self._sections = config

    @property
    def application_config(self) -> Any:
        """The ``Application`` section as written in the file."""
        return self._sections['Application']

    @property
    def wake_interval(self) -> float:
        interval: float = self.application_config.get('wake_interval', self._default_interval)
        return interval

    @property
    def _default_interval(self) -> float:
        """The seconds if the file does not set them: the program's constant, of either name."""
        for cls in type(self).__mro__:
            for name in ('WAKE_INTERVAL', '_WAKE_INTERVAL'):
                value = vars(self).get(name, vars(cls).get(name))
                if value is not None and not isinstance(value, Constant):
                    return float(value)
        return 60

    @Old
    def logging_config(self) -> Any:
        if not isinstance(self, LegacyController):
            return self.config['Logging']  # a controller of today, on which it can be read too
        from clihelper.legacy import module

        return module.logging_config(self._sections)

    def _get_application_config(self) -> Any:
        deprecation.used_of_controller('_get_application_config')
        return self.application_config

    def _get_config(self, key: str, default: object = None) -> Any:
        deprecation.used_of_controller('_get_config')
        return self.application_config.get(key, default)

    def _get_wake_interval(self) -> float:
        deprecation.used_of_controller('_get_wake_interval')
        return self.wake_interval

    # The command line.

    _options = Old(lambda self: self.options)
    _arguments = Old(lambda self: self.arguments)
    _debug = Old(lambda self: self.options.foreground)

    # The state.

    @property
    def state(self) -> State:
        return self._driver.state

    @property
    def _state(self) -> Any:
        deprecation.used_of_controller('_state')
        return states.number_of(self._driver.state, later=self.later)

    @_state.setter
    def _state(self, value: object) -> None:
        if value is not None:
            self._driver.note(value)

    def set_state(self, state: Any) -> None:
        """Change to *state*; an illegal transition is refused with a line in the log."""
        self._driver.note(state)

    def _set_state(self, state: Any) -> None:
        deprecation.used_of_controller('_set_state')
        self.set_state(state)

    @property
    def is_running(self) -> bool:
        return self._driver.is_going_on

    @property
    def is_idle(self) -> bool:
        if self.later:
            return self.state is State.IDLE
        return self.state in (State.INITIALIZING, State.STOPPED)

    is_initializing = property(lambda self: self.state is State.INITIALIZING)
    is_sleeping = property(lambda self: self.state is State.SLEEPING)
    is_active = property(lambda self: self.state is State.ACTIVE)
    is_reloading = property(lambda self: self.state is State.RELOADING)
    is_waiting_to_stop = property(lambda self: self.state is State.STOP_REQUESTED)
    is_stopping = property(lambda self: self.state in (State.STOP_REQUESTED, State.STOPPING))
    is_stopped = property(lambda self: self.state is State.STOPPED)
    is_shutting_down = Old(lambda self: self.is_stopping)
    is_connecting = Old(lambda self: self._driver.is_connecting)
    current_state = Old(lambda self: self._driver.words)
    state_description = Old(lambda self: self._driver.words)


def _add_constants() -> None:
    for names in (states.LATER, states.EARLIER):
        for name, number in names.items():
            _add(name, number)
    for name, value in (
        ('WAKE_INTERVAL', 60), ('_WAKE_INTERVAL', 60), ('SLEEP_UNIT', 0.5), ('_SLEEP_UNIT', 0.5),
    ):
        _add(name, value)


def _add(name: str, value: object) -> None:
    constant = Constant(value)
    constant.__set_name__(LegacyController, name)
    setattr(LegacyController, name, constant)


_add_constants()
