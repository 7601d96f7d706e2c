"""Which handlers there are."""

from __future__ import annotations

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def all_loggers() -> list[logging.Logger]:
    """The root logger and every other that was ever asked for."""
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


def registered_handlers() -> list[logging.Handler]:
    """Every live handler that logging keeps in its list for the exit."""
    references = list(logging._handlerList)  # type: ignore[attr-defined]
    return [handler for handler in (reference() for reference in references) if handler]


def all_handlers() -> list[logging.Handler]:
    """Every handler, attached to a logger, merely registered, or behind another handler."""
    found: dict[int, logging.Handler] = {}
    waiting = registered_handlers()
    for logger in all_loggers():
        waiting.extend(logger.handlers)
    while waiting:
        handler = waiting.pop()
        if id(handler) not in found:
            found[id(handler)] = handler
            waiting.extend(_behind(handler))
    return list(found.values())


def _behind(handler: logging.Handler) -> Iterator[logging.Handler]:
    """The handlers that a MemoryHandler or the listener of a QueueHandler passes records to."""
    target = getattr(handler, 'target', None)
    if isinstance(target, logging.Handler):
        yield target
    others: Iterable[object] = getattr(getattr(handler, 'listener', None), 'handlers', None) or ()
    for other in others:
        if isinstance(other, logging.Handler):
            yield other
