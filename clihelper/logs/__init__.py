"""Logging: the ``Logging`` section, formatters, log files, and output that becomes records.

The section is what :func:`logging.config.dictConfig` takes, plus ``debug_only: true`` on handlers
that exist only in the foreground. A handler that cannot write neither stops the daemon nor
floods its standard error. These classes are useful in YAML by name::

    formatters:
      console: {(): clihelper.logs.ColorFormatter}
      json:    {(): clihelper.logs.JSONFormatter}
      journal: {(): clihelper.logs.PriorityFormatter}
    handlers:
      syslog:  {class: clihelper.logs.SyslogHandler, ident: orders}

``section`` prepares the section for ``dictConfig``, ``validation`` finds its faults, ``setup``
replaces one configuration by another and reopens files, ``defaults`` applies when there is no
section. ``failures`` deals with a handler that cannot write, ``redirect`` with what is printed.
"""

from __future__ import annotations

# Signal handlers call it, and must not have to import it.
from clihelper.logs.redirect import is_emitting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.logs.defaults import ConsoleHandler as ConsoleHandler
    from clihelper.logs.defaults import SyslogHandler as SyslogHandler
    from clihelper.logs.defaults import check_default as check_default
    from clihelper.logs.formatters import ColorFormatter as ColorFormatter
    from clihelper.logs.formatters import JSONFormatter as JSONFormatter
    from clihelper.logs.formatters import PriorityFormatter as PriorityFormatter
    from clihelper.logs.redirect import redirect_output as redirect_output
    from clihelper.logs.redirect import restore_output as restore_output
    from clihelper.logs.setup import configure as configure
    from clihelper.logs.setup import reopen as reopen
    from clihelper.logs.setup import unblock as unblock
    from clihelper.logs.validation import check as check
    from clihelper.logs.validation import warnings as warnings

_HOMES = {
    'check': 'validation',
    'check_default': 'defaults',
    'configure': 'setup',
    'redirect_output': 'redirect',
    'reopen': 'setup',
    'restore_output': 'redirect',
    'unblock': 'setup',
    'warnings': 'validation',
    'ColorFormatter': 'formatters',
    'ConsoleHandler': 'defaults',
    'JSONFormatter': 'formatters',
    'PriorityFormatter': 'formatters',
    'SyslogHandler': 'defaults',
}

__all__ = ['is_emitting', *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (:pep:`562`)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f'{__name__}.{home}'), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
