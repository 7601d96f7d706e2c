"""Write a daemon by writing only what the daemon does.

A subclass of :class:`Controller` does the work, :func:`setup` names the program, and :func:`run`
runs it. Whatever needs kombu or Tornado is imported on first use.
"""

from __future__ import annotations

import sys

__version__ = '2.0.0.dev0'

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.amqp.message import Message as Message
    from clihelper.amqp.publisher import PublishError as PublishError
    from clihelper.amqp.routes import handles as handles
    from clihelper.amqp.settlement import Pause as Pause
    from clihelper.amqp.settlement import Reject as Reject
    from clihelper.amqp.settlement import Requeue as Requeue
    from clihelper.amqp.settlement import Retry as Retry
    from clihelper.application import add_config_key as add_config_key
    from clihelper.application import run as run
    from clihelper.application import setup as setup
    from clihelper.config.json_schema import json_schema as json_schema
    from clihelper.controller import AsyncConsumerController as AsyncConsumerController
    from clihelper.controller import ConsumerController as ConsumerController
    from clihelper.controller import Controller as Controller
    from clihelper.controller import IOLoopController as IOLoopController
    from clihelper.options.types import Options as Options
    from clihelper.states import State as State

_HOMES = {
    'Controller': 'clihelper.controller',
    'IOLoopController': 'clihelper.controller',
    'AsyncConsumerController': 'clihelper.controller',
    'ConsumerController': 'clihelper.controller',
    'Message': 'clihelper.amqp.message',
    'Options': 'clihelper.options.types',
    'State': 'clihelper.states',
    'setup': 'clihelper.application',
    'run': 'clihelper.application',
    'add_config_key': 'clihelper.application',
    'handles': 'clihelper.amqp.routes',
    'json_schema': 'clihelper.config.json_schema',
    'PublishError': 'clihelper.amqp.publisher',
    'Pause': 'clihelper.amqp.settlement',
    'Reject': 'clihelper.amqp.settlement',
    'Requeue': 'clihelper.amqp.settlement',
    'Retry': 'clihelper.amqp.settlement',
}

__all__ = ['__version__', *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used (:pep:`562`)."""
    home = _HOMES.get(name)
    if home is None:
        # A lower-case word is a module that is about to be imported.
        if name.startswith('__') or (name.isalpha() and name.islower()):
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        return _imported('clihelper.legacy').module_attribute(name)
    value = globals()[name] = getattr(_imported(home), name)
    return value


def _imported(module: str) -> Any:
    """Import a module of the package.

    :raises SystemExit: a file of the program's hides a module that it needs.
    """
    try:
        import importlib

        return importlib.import_module(module)
    except (ImportError, AttributeError) as error:
        from clihelper import program

        line = program.explain_hidden(error)
        if line is None:
            raise
        raise SystemExit(f'{sys.argv[0].rpartition("/")[2]}: {line}') from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _Package(type(sys)):  # type: ignore[misc]
    """The package; programs may assign to the variables that it had in 1.x."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith('__') or name in _HOMES or isinstance(value, type(sys)):
            super().__setattr__(name, value)
            return
        from clihelper import legacy

        if not legacy.assign(name, value):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
