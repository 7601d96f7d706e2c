"""What log records say of the message that is being handled while they are made.

The fields are those of :data:`clihelper.logs.formatters.FIELDS`. They are added by a filter of the
handlers, and only if a formatter asks for one: other records cost nothing.
"""

from __future__ import annotations

import logging

from clihelper.logs.formatters import FIELDS, JSONFormatter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


class MessageFilter(logging.Filter):
    """Adds the fields to each record, unless the caller has given one of these names itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        fields = vars(record)
        known = _describe()
        for name in FIELDS:
            fields.setdefault(name, known.get(name, ''))
        return True


_FILTER = MessageFilter()


def _nothing() -> Mapping[str, Any]:
    return {}


_describe: Callable[[], Mapping[str, Any]] = _nothing


def describe_by(describe: Callable[[], Mapping[str, Any]]) -> None:
    """Have *describe* return the fields of the message that is being handled where it is called.

    It is called in any thread, and returns nothing while there is no message.
    """
    global _describe
    _describe = describe


def attach(handlers: Iterable[logging.Handler]) -> None:
    """Add the fields to what these handlers get, if the formatter of one asks for them.

    A handler may pass its records on to another one, in another thread: so all get them.
    """
    handlers = list(handlers)
    if any(_asks(handler.formatter) for handler in handlers):
        for handler in handlers:
            handler.addFilter(_FILTER)


def _asks(formatter: logging.Formatter | None) -> bool:
    if isinstance(formatter, JSONFormatter):
        return True
    template = getattr(formatter, '_fmt', None)
    return isinstance(template, str) and any(name in template for name in FIELDS)
