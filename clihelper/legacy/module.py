"""The functions and variables that the package itself had in 1.x."""

from __future__ import annotations

import logging
import os

from clihelper import config as configuration
from clihelper import program
from clihelper.legacy import deprecation, running
from clihelper.legacy.sections import as_written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from clihelper.config import Config

SECTIONS = {'APPLICATION': 'Application', 'DAEMON': 'Daemon', 'LOGGING': 'Logging'}
"""The variables that name sections"""

DEFAULT_FORMAT = (
    '%(levelname)-10s %(asctime)s %(process)-6d %(processName)-15s %(threadName)-10s'
    ' %(name)-25s %(funcName)-25sL%(lineno)-6d: %(message)s'
)

LOGGING_DEFAULT: dict[str, Any] = {
    'version': 1,
    'disable_existing_loggers': True,
    'incremental': False,
    'filters': {},
    'formatters': {'verbose': {'format': DEFAULT_FORMAT, 'datefmt': '%Y-%m-%d %H:%M:%S'}},
    'handlers': {
        'console': {
            'class': 'logging.StreamHandler', 'formatter': 'verbose', 'debug_only': True,
        },
    },
    'loggers': {'clihelper': {'handlers': ['console'], 'level': 'INFO', 'propagate': True}},
    'root': {'handlers': [], 'level': logging.CRITICAL, 'propagate': True},
}


class _Variables:
    """The values of the package's variables, except those of ``program.current``."""

    def __init__(self) -> None:
        self.controller: Any = None
        self.configuration_file: str | None = None
        self.config_keys: list[str] | None = None
        self.others: dict[str, Any] = {
            'PIDFILE': '/var/run/%(app)s.pid',
            'EXCEPTION_LOG': '/tmp/clihelper-exceptions.log',
            'WRITE_EXCEPTION_LOG': True,
            'LOGGING_DEFAULT': LOGGING_DEFAULT,
            'DEFAULT_FORMAT': DEFAULT_FORMAT,
            'LOGGING_OBJ': None,
            **SECTIONS,
        }


_variables = _Variables()


def read(name: str) -> Any:
    """Return the value of a name that the package had."""
    deprecation.used_of_module(name)
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name == 'LOGGER':
        return logging.getLogger('clihelper')
    name = name.lstrip('_')
    readers: Mapping[str, Callable[[], Any]] = {
        'APPNAME': lambda: program.current.name or 'clihelper',
        'DESCRIPTION': lambda: program.current.description or 'Command Line Daemon',
        'VERSION': lambda: program.current.version,
        'CONFIG_KEYS': _config_keys,
        'CONFIG_FILE': lambda: _variables.configuration_file or _path_of_running(),
        'CONTROLLER': _running,
    }
    return readers[name]() if name in readers else _variables.others[name]


def assign(name: str, value: Any) -> None:
    """Assign to a variable that the package had."""
    deprecation.used_of_module(name)
    name = name.lstrip('_')
    if name in ('APPNAME', 'DESCRIPTION', 'VERSION'):
        setattr(program.current, 'name' if name == 'APPNAME' else name.lower(), value)
    elif name == 'CONFIG_KEYS':
        _config_keys()[:] = value
    elif name == 'CONFIG_FILE':
        _variables.configuration_file = value
    elif name == 'CONTROLLER':
        _variables.controller = value
    elif name == 'PIDFILE':
        _variables.others[name] = value
        program.current.default_pidfile = _default_pidfile
    elif name not in SECTIONS:
        _variables.others[name] = value


def _config_keys() -> list[str]:
    """Return the list of required sections, which from now on the application itself uses."""
    if _variables.config_keys is None:
        required = [*SECTIONS.values(), *program.current.required_sections]
        _variables.config_keys = program.current.required_sections = required
    return _variables.config_keys


def _default_pidfile(appname: str) -> str:
    """Return ``PIDFILE`` as assigned by the program; in 1.0 to 1.3 it contained a bare ``%s``."""
    path: str = _variables.others['PIDFILE']
    return path.replace('%(app)s', appname).replace('%s', appname)


def set_appname(appname: str) -> None:
    program.current.name = appname


def set_description(description: str) -> None:
    program.current.description = description


def set_version(version: str) -> None:
    program.current.version = version


def set_controller(controller: object) -> None:
    _variables.controller = controller


def set_configuration_file(filename: str) -> None:
    """Set the file that :func:`get_configuration` reads."""
    _variables.configuration_file = os.path.abspath(filename)


def get_configuration() -> dict[str, Any]:
    """Read the file again, and return its contents without defaults.

    :raises clihelper.errors.Error: the configuration is wrong, or cannot be read.
    :raises ValueError: the file has not been set.
    """
    return as_written(_load())


def _load() -> Config:
    path = _variables.configuration_file or _path_of_running()
    if path is None:
        raise ValueError('there is no configuration file yet')
    required = program.current.required_sections
    return configuration.load(path, required, appname=program.current.name or 'clihelper')


def _running() -> Any:
    """Return the controller that runs, or another one that the program has set."""
    return _variables.controller or running.running()


def _path_of_running() -> str | None:
    life = getattr(_running(), '_life', None)
    path: str | None = life.config.path if life is not None else None
    return path


def get_logging_config() -> dict[str, Any]:
    """Return the ``Logging`` section, merged over :data:`LOGGING_DEFAULT`."""
    return logging_config(get_configuration())


def logging_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``Logging`` section of *config*, merged over :data:`LOGGING_DEFAULT`."""
    merged: dict[str, Any] = _merged(
        _variables.others['LOGGING_DEFAULT'], config.get('Logging') or {}
    )
    return merged


def _merged(base: Any, over: Any) -> Any:
    """Merge two mappings recursively; a null in *over* is ignored."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return base if over is None else over
    merged = {key: _merged(value, over.get(key)) for key, value in base.items()}
    return {**merged, **{key: _merged({}, over[key]) for key in over if key not in base}}


def setup_logging(debug: bool) -> None:
    """Configure logging from the configuration; it may be called again, also in a child.

    :param debug: whether to include handlers that are ``debug_only``.
    """
    config, controller = _load(), _running()
    logs = Logging(logging_config(as_written(config)), debug)
    logs.section = config.logging
    life = getattr(controller, '_life', None)
    if life is not None and debug == controller.options.foreground:
        life.configure_logging(config)  # as at the start of the program
    else:
        logs.configure()
    _variables.others['LOGGING_OBJ'] = logs


class Logging:
    """A logging configuration, for children that configure it themselves.

    :param configuration: as for ``dictConfig``, with ``debug_only`` allowed on handlers.
    :param debug: whether to include those handlers.
    """

    def __init__(self, configuration: dict[str, Any], debug: bool) -> None:
        self.set_configuration(configuration, debug)

    def set_configuration(self, configuration: dict[str, Any], debug: bool) -> None:
        """Replace both."""
        from clihelper.logs.section import complete

        self._debug = debug
        self.section: Mapping[str, Any] | None = configuration
        self.config = complete(configuration, foreground=debug, working_directory=None)

    def configure(self) -> None:
        """Configure logging."""
        from clihelper import logs

        life = getattr(_running(), '_life', None)
        config = life.config if life is not None else None
        logs.configure(
            self.section,
            foreground=self._debug,
            detached=not self._debug,
            appname=program.current.name or 'clihelper',
            locate=config.locate if config is not None else lambda *_: 'Logging',
            working_directory=config.daemon['logs_directory'] if config is not None else None,
        )


FUNCTIONS = {
    'set_appname': set_appname,
    'set_description': set_description,
    'set_version': set_version,
    'set_controller': set_controller,
    'set_configuration_file': set_configuration_file,
    'get_configuration': get_configuration,
    '_get_configuration': get_configuration,
    'setup_logging': setup_logging,
    '_setup_logging': setup_logging,
    'get_logging_config': get_logging_config,
    'Logging': Logging,
}
