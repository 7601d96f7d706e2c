"""Logging: the ``Logging`` section, formatters, log files, and output that becomes records.

The section is what :func:`logging.config.dictConfig` takes, and ``debug_only: true`` on handlers
that exist only in the foreground. A handler that cannot write neither stops the daemon nor
floods its standard error. From YAML these are useful by name::

    formatters:
      console: {(): clihelper.logs.ColorFormatter}
      json:    {(): clihelper.logs.JSONFormatter}
      journal: {(): clihelper.logs.PriorityFormatter}
    handlers:
      syslog:  {class: clihelper.logs.SyslogHandler, ident: orders}

What each module is about: ``section`` prepares the section for ``dictConfig``, ``checking``
finds its faults beforehand, ``explaining`` words the ones that ``dictConfig`` finds,
``configuring`` puts one configuration in the place of another, ``defaults`` is what happens
without a section; ``failures``, ``reopening``, ``listeners`` and ``output`` are about the time
after that.
"""

from __future__ import annotations

# Asked by signal handlers, which must not be the ones to import it.
from clihelper.logs.emission import is_emitting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.logs.checking import check as check
    from clihelper.logs.configuring import configure as configure
    from clihelper.logs.defaults import ConsoleHandler as ConsoleHandler
    from clihelper.logs.defaults import SyslogHandler as SyslogHandler
    from clihelper.logs.defaults import check_default as check_default
    from clihelper.logs.formatters import ColorFormatter as ColorFormatter
    from clihelper.logs.formatters import JSONFormatter as JSONFormatter
    from clihelper.logs.formatters import PriorityFormatter as PriorityFormatter
    from clihelper.logs.output import redirect_output as redirect_output
    from clihelper.logs.output import restore_output as restore_output
    from clihelper.logs.reopening import reopen as reopen

_HOMES = {
    'check': 'checking',
    'check_default': 'defaults',
    'configure': 'configuring',
    'redirect_output': 'output',
    'reopen': 'reopening',
    'restore_output': 'output',
    'ColorFormatter': 'formatters',
    'ConsoleHandler': 'defaults',
    'JSONFormatter': 'formatters',
    'PriorityFormatter': 'formatters',
    'SyslogHandler': 'defaults',
}

__all__ = ['is_emitting', *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used (:pep:`562`)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f'{__name__}.{home}'), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
