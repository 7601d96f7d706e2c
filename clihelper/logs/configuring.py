"""Putting one logging configuration in the place of another."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from clihelper.errors import Error
from clihelper.logs import listeners
from clihelper.logs.defaults import install_default
from clihelper.logs.failures import watch
from clihelper.logs.formatters import adapt
from clihelper.logs.handlers import all_loggers, registered_handlers
from clihelper.logs.reopening import reopen
from clihelper.logs.section import complete, copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class _Applied:
    """What the last call of :func:`configure` did: the next one takes its place."""

    def __init__(self) -> None:
        self.request: tuple[Any, ...] | None = None
        self.handlers: list[logging.Handler] = []
        self.loggers: set[str] = set()


_applied = _Applied()


def configure(section: Mapping[str, Any] | None, *, foreground: bool, detached: bool,
              appname: str, locate: Callable[..., str],
              working_directory: str | None = None) -> None:
    """Configure logging as the ``Logging`` section says, or as is usual where there is none.

    The section is what :func:`logging.config.dictConfig` takes, with these differences:
    ``version`` may be left out; ``disable_existing_loggers`` is false unless given; sections
    that are null are as if absent; ``debug_only: true`` on a handler removes it, and each
    reference to it, unless in the foreground. Without a section records from INFO up go to
    standard error in the foreground and where nothing was detached, and to syslog else.

    Called again with the same, it reopens the log files and changes nothing. Called again with
    something else, the handlers it made before are closed once the new ones are there. If it
    raises, logging goes on as it was.

    :param section: the section, which is not changed; None if absent.
    :param foreground: whether the program was started with ``-f``.
    :param detached: whether the process is a detached daemon.
    :param appname: how the program is called in syslog.
    :param locate: gives ``file:line:column`` for a path of keys, for error messages.
    :param working_directory: what a handler's relative ``filename`` is relative to; default the
        current directory.
    :raises ConfigurationError: ``dictConfig`` rejects the section, or a file cannot be opened.
    :raises NotPermitted: a log file may not be opened.
    """
    request = (copied(section), foreground, detached, appname, working_directory)
    if request == _applied.request:
        reopen()
        return
    if section is None:
        _replace(lambda: install_default(console=foreground or not detached, appname=appname),
                 loggers={''})
    else:
        try:
            _apply(complete(section, foreground=foreground,
                            working_directory=working_directory))
        except Error:
            raise
        except Exception as error:  # Classes that the section names may raise anything.
            from clihelper.logs.explaining import explain

            raise explain(error, locate) from error
    _applied.request = request


def _apply(config: dict[str, Any]) -> None:
    from logging.config import dictConfig

    if config.get('incremental'):
        snapshot = _Snapshot()
        try:
            dictConfig(config)
        except BaseException:
            snapshot.restore()
            raise
    else:
        _keep_what_is_logged(config)
        loggers = set(config.get('loggers', {})) | ({''} if config.get('root') else set())
        _replace(lambda: dictConfig(config), loggers=loggers)


def _keep_what_is_logged(config: dict[str, Any]) -> None:
    """Let ``mode: w`` begin a file anew when the program starts, and not at a reload."""
    reopen()  # From now on every file that is open is appended to.
    ours = {handler.baseFilename for handler in _applied.handlers
            if isinstance(handler, logging.FileHandler)}
    for body in config.get('handlers', {}).values():
        mode, filename = body.get('mode'), body.get('filename')
        if isinstance(mode, str) and isinstance(filename, str) and os.path.abspath(
                filename) in ours:
            body['mode'] = mode.replace('w', 'a')


def _replace(install: Callable[[], None], *, loggers: set[str]) -> None:
    """Install handlers, and close the former ones only when that succeeded."""
    with logging._lock:  # type: ignore[attr-defined]
        snapshot = _Snapshot()
        snapshot.hide_handlers()
        try:
            install()
        except BaseException:
            snapshot.restore()
            raise
        created, former = registered_handlers(), _applied.handlers
        snapshot.retire(former, _applied.loggers - loggers)
        _applied.handlers, _applied.loggers = created, loggers
    listeners.stop()
    for handler in reversed(former):
        _close(handler)
    for handler in created:
        _finish(handler)
    listeners.start(created)


def _finish(handler: logging.Handler) -> None:
    """What a handler gets from clihelper that ``dictConfig`` does not know of."""
    adapt(handler)
    watch(handler)
    if isinstance(handler, logging.FileHandler) and handler.errors is None:
        # A lone surrogate, as in the name of a file that is not UTF-8, must not lose a record.
        handler.errors = 'backslashreplace'
        reconfigure = getattr(handler.stream, 'reconfigure', None)
        if reconfigure is not None:
            reconfigure(errors='backslashreplace')


class _Snapshot:
    """The state of logging before a change.

    ``dictConfig`` begins by closing every handler there is. So they are hidden from it: if it
    fails the log goes on, and handlers that the application made stay open.
    """

    def __init__(self) -> None:
        self._registered: list[Any] = logging._handlerList[:]  # type: ignore[attr-defined]
        self._handlers = registered_handlers()  # strong references, while this lives
        self._names = dict(logging._handlers)  # type: ignore[attr-defined]
        self._levels = [(handler, handler.level) for handler in self._handlers]
        self._loggers = {
            logger: (logger.level, logger.propagate, logger.disabled, logger.handlers[:],
                     logger.filters[:])
            for logger in all_loggers()}

    def hide_handlers(self) -> None:
        del logging._handlerList[:]  # type: ignore[attr-defined]
        logging._handlers.clear()  # type: ignore[attr-defined]

    def restore(self) -> None:
        """Make everything as it was, and close the handlers that were made since."""
        for handler in registered_handlers():
            if handler not in self._handlers:
                _close(handler)
        logging._handlerList[:] = self._registered  # type: ignore[attr-defined]
        logging._handlers.clear()  # type: ignore[attr-defined]
        logging._handlers.update(self._names)  # type: ignore[attr-defined]
        for handler, level in self._levels:
            handler.setLevel(level)
        for logger in all_loggers():
            level, propagate, disabled, handlers, filters = self._loggers.get(
                logger, (logging.NOTSET, True, False, [], []))
            logger.propagate, logger.disabled = propagate, disabled
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.setLevel(level)

    def retire(self, handlers: list[logging.Handler], loggers: set[str]) -> None:
        """Take the former configuration's handlers and loggers out of use; keep all others."""
        for logger in all_loggers():
            for handler in handlers:
                logger.removeHandler(handler)
        for name in loggers:
            logger = logging.getLogger(name)
            logger.setLevel(logging.NOTSET if name else logging.WARNING)
            logger.propagate = True
            logger.filters.clear()
        for handler in handlers:
            # Closing it must not unregister its namesake.
            handler._name = None  # type: ignore[attr-defined]
        kept = [reference for reference in self._registered if reference() not in handlers]
        logging._handlerList[:0] = kept  # type: ignore[attr-defined]
        for name, handler in self._names.items():
            if handler not in handlers:
                logging._handlers.setdefault(name, handler)  # type: ignore[attr-defined]


def _close(handler: logging.Handler) -> None:
    with suppress(OSError, ValueError):  # a full disk or a closed stream
        handler.flush()
        handler.close()
