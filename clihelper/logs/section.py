"""From the ``Logging`` section of a file to what ``dictConfig`` takes."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NAMED_PARTS = ('formatters', 'filters', 'handlers', 'loggers')

# Configurations for clihelper 1.6 and later name these without defining them.
INHERITED_HANDLERS = {
    'console': {'class': 'logging.StreamHandler', 'formatter': 'verbose', 'debug_only': True},
}
INHERITED_FORMATTERS = {'verbose': {'()': 'clihelper.logs.ColorFormatter'}}


def complete(section: Mapping[str, Any], *, foreground: bool,
             working_directory: str | None) -> dict[str, Any]:
    """Return a copy of the section that ``dictConfig`` understands.

    Null values are treated as absent, ``version`` is 1, existing loggers are not disabled
    unless ``disable_existing_loggers`` says so, a relative ``filename`` of a handler is made
    absolute, and ``debug_only`` handlers are removed unless in the foreground.

    :param section: the section; it is not changed.
    :param foreground: whether ``debug_only`` handlers exist.
    :param working_directory: the directory that a relative ``filename`` is relative to; None: the
        current one.
    """
    config = {name: copied(value) for name, value in section.items() if value is not None}
    config.setdefault('version', 1)
    config.setdefault('disable_existing_loggers', False)
    for part in ('formatters', 'filters', 'loggers'):
        for name, body in config.get(part, {}).items():
            config[part][name] = {} if body is None else body
    if not config.get('incremental'):
        _inherit(config)
    _settle_debug_only(config, foreground)
    if working_directory is not None:
        _locate_files(config, working_directory)
    return config


def copied(value: Any) -> Any:
    """Return a deep copy of mappings and lists; other objects are shared."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def users_of_handlers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return everything with a list of handlers: root, loggers, QueueHandlers (from 3.12 on)."""
    bodies = [config.get('root'), *config.get('loggers', {}).values(),
              *config.get('handlers', {}).values()]
    return [body for body in bodies
            if isinstance(body, dict) and isinstance(body.get('handlers'), list)]


def is_memory_handler(body: Mapping[str, Any]) -> bool:
    """Return whether ``dictConfig`` takes the ``target`` of a handler as a handler's name."""
    if 'class' not in body or 'target' not in body:
        return False
    from logging.config import BaseConfigurator
    from logging.handlers import MemoryHandler

    try:
        found = BaseConfigurator({}).resolve(body['class'])
    except Exception:  # An import may raise anything; dictConfig will report it.
        return False
    return isinstance(found, type) and issubclass(found, MemoryHandler)


def _inherit(config: dict[str, Any]) -> None:
    """Define what 1.x used to define, if it is referred to but not defined."""
    named = {name for user in users_of_handlers(config) for name in user['handlers']
             if isinstance(name, str)}
    for name, body in INHERITED_HANDLERS.items():
        if name in named:
            config.setdefault('handlers', {}).setdefault(name, copied(body))
    named = {body.get('formatter') for body in config.get('handlers', {}).values()
             if isinstance(body.get('formatter'), str)}
    for name, formatter in INHERITED_FORMATTERS.items():
        if name in named:
            config.setdefault('formatters', {}).setdefault(name, copied(formatter))


def _settle_debug_only(config: dict[str, Any], foreground: bool) -> None:
    """Remove ``debug_only`` handlers unless in the foreground, and each reference to them.

    A MemoryHandler whose target was removed is also removed: it would only collect records.
    """
    handlers: dict[str, dict[str, Any]] = config.get('handlers', {})
    marked = {name for name, body in handlers.items() if body.pop('debug_only', False)}
    gone = set() if foreground else marked
    while True:
        for name in gone:
            handlers.pop(name, None)
        orphans = {name for name, body in handlers.items()
                   if body.get('target') in _references(gone) and is_memory_handler(body)}
        if not orphans:
            break
        gone |= orphans
    references = _references(gone)
    for user in users_of_handlers(config):
        user['handlers'] = [name for name in user['handlers'] if name not in references]


def _references(names: set[str]) -> list[str]:
    return [*names, *(f'cfg://handlers.{name}' for name in names)]


def _locate_files(config: dict[str, Any], working_directory: str) -> None:
    for body in config.get('handlers', {}).values():
        filename = body.get('filename')
        if isinstance(filename, str) and '://' not in filename:
            body['filename'] = os.path.join(working_directory, filename)
