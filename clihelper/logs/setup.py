"""Replace one logging configuration by another, run queue listeners, and reopen log files."""

from __future__ import annotations

import atexit
import logging
import os
from contextlib import suppress

from clihelper.errors import Error
from clihelper.logs import records
from clihelper.logs.defaults import install_default
from clihelper.logs.failures import discard_blocked, watch
from clihelper.logs.formatters import adapt
from clihelper.logs.section import complete, copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from logging.handlers import QueueListener
    from typing import Any

class _Applied:
    """What the last call of :func:`configure` did, which the next call replaces."""

    def __init__(self) -> None:
        self.request: tuple[Any, ...] | None = None
        self.handlers: list[logging.Handler] = []
        self.loggers: set[str] = set()


_applied = _Applied()


def configure(section: Mapping[str, Any] | None, *, foreground: bool, detached: bool,
              appname: str, locate: Callable[..., str],
              working_directory: str | None = None) -> None:
    """Configure logging from the ``Logging`` section, or by default if there is none.

    The section is what :func:`logging.config.dictConfig` takes, with these differences:
    ``version`` may be left out; ``disable_existing_loggers`` is false unless given; null values
    are treated as absent; ``debug_only: true`` on a handler removes it, and each reference to it,
    unless in the foreground. Without a section, records from INFO up go to standard error in the
    foreground and if the process is not detached, and otherwise to syslog.

    A further call with the same arguments only reopens the log files. A further call with other
    arguments closes the former handlers once the new ones are there. If it raises, logging goes
    on as it was.

    :param section: the section, which is not changed; None if absent.
    :param foreground: whether the program was started with ``-f``.
    :param detached: whether the process is a detached daemon.
    :param appname: the program's name in syslog.
    :param locate: returns ``file:line:column`` for a path of keys, for error messages.
    :param working_directory: the directory that a handler's relative ``filename`` is relative to;
        default: the current one.
    :raises ConfigurationError: ``dictConfig`` rejects the section, or a file cannot be opened.
    :raises NotPermitted: a log file may not be opened.
    :raises UnavailableForNow: a handler cannot be made now, as its server is away.
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
            from clihelper.logs.validation import explain

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
    """Let ``mode: w`` truncate a file when the program starts, but not at a reload."""
    reopen()  # From now on every open file is appended to.
    ours = {handler.baseFilename for handler in _applied.handlers
            if isinstance(handler, logging.FileHandler)}
    for body in config.get('handlers', {}).values():
        mode, filename = body.get('mode'), body.get('filename')
        if isinstance(mode, str) and isinstance(filename, str) and os.path.abspath(
                filename) in ours:
            body['mode'] = mode.replace('w', 'a')


def _replace(install: Callable[[], None], *, loggers: set[str]) -> None:
    """Install handlers, and close the former ones only if that succeeds."""
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
    stop_listeners()
    for handler in reversed(former):
        _close(handler)
    for handler in created:
        _finish(handler)
    records.attach(created)
    start_listeners(created)


def _finish(handler: logging.Handler) -> None:
    """Give a handler what ``dictConfig`` does not: adornment, failure handling, encoding."""
    adapt(handler)
    watch(handler)
    if isinstance(handler, logging.FileHandler) and handler.errors is None:
        # No record must be lost for a lone surrogate, as in a file name that is not UTF-8.
        handler.errors = 'backslashreplace'
        reconfigure = getattr(handler.stream, 'reconfigure', None)
        if reconfigure is not None:
            reconfigure(errors='backslashreplace')


class _Snapshot:
    """The state of logging before a change.

    ``dictConfig`` begins by closing every existing handler. So they are hidden from it: if it
    fails, logging goes on, and handlers that the application made stay open.
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
        """Restore everything, and close the handlers that were made since."""
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
            # Closing it must not unregister a new handler of the same name.
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


def all_loggers() -> list[logging.Logger]:
    """Return the root logger and every other logger that was ever requested."""
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


def registered_handlers() -> list[logging.Handler]:
    """Return every live handler in the list that logging keeps for the exit."""
    references = list(logging._handlerList)  # type: ignore[attr-defined]
    return [handler for handler in (reference() for reference in references) if handler]


def all_handlers() -> list[logging.Handler]:
    """Return every handler: attached to a logger, merely registered, or behind another handler."""
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
    """Yield the handlers that a MemoryHandler or a QueueHandler's listener passes records to."""
    target = getattr(handler, 'target', None)
    if isinstance(target, logging.Handler):
        yield target
    others: Iterable[object] = getattr(getattr(handler, 'listener', None), 'handlers', None) or ()
    for other in others:
        if isinstance(other, logging.Handler):
            yield other


_running: list[QueueListener] = []
_hooked = False


def start_listeners(handlers: Iterable[logging.Handler]) -> None:
    """Start each handler's listener, if it has one that is not running.

    Listeners are stopped, with their queues emptied, around each fork of this process; those that
    are started here, at exit as well.
    """
    for handler in handlers:
        listener: Any = getattr(handler, 'listener', None)
        if not hasattr(listener, 'start') or getattr(listener, '_thread', None) is not None:
            continue
        # dictConfig gives one without handlers to a class that has a running one of its own.
        if getattr(listener, 'handlers', True):
            listener.start()
            _running.append(listener)
    if running_listeners():
        _hook()


def stop_listeners() -> None:
    """Stop what :func:`start_listeners` started, after handling every queued record."""
    while _running:
        _running.pop().stop()


def stop_all_listeners() -> None:
    """Stop every listener, also those that a handler's class has started itself."""
    for listener in running_listeners().values():
        listener.stop()
    _running.clear()


def running_listeners() -> dict[threading.Thread, QueueListener]:
    """Return the threads of listeners, whoever has started them, and the listeners.

    Those of :mod:`logging.handlers` and of logutils have threads that run a method of theirs.
    """
    import threading

    owners: dict[threading.Thread, Any] = {
        thread: getattr(getattr(thread, '_target', None), '__self__', None)
        for thread in threading.enumerate()
    }
    return {thread: owner for thread, owner in owners.items()
            if all(hasattr(owner, name) for name in ('start', 'stop', 'handlers', '_thread'))}


def _hook() -> None:
    """Pause the listeners at each fork: a child would have their locks, but not their threads."""
    global _hooked
    if not _hooked:
        paused: list[QueueListener] = []

        def pause() -> None:
            paused[:] = running_listeners().values()
            for listener in paused:
                listener.stop()

        def resume() -> None:
            for listener in paused:
                listener.start()

        os.register_at_fork(before=pause, after_in_parent=resume, after_in_child=resume)
        atexit.register(stop_listeners)
        _hooked = True


def reopen() -> None:
    """Reopen the log files that were renamed or removed; see logrotate(8).

    Every open :class:`logging.FileHandler` is checked, wherever it is attached. A file that
    is still at its path stays open: appending continues at its end even if it was truncated
    (``copytruncate``). No record is lost: other threads wait. If a file cannot be opened, the
    logger ``clihelper`` reports it, and the old one stays in use.
    """
    failures = []
    for handler in all_handlers():
        if isinstance(handler, logging.FileHandler):
            try:
                _reopen(handler)
            except (OSError, ValueError) as error:
                failures.append((handler.baseFilename, error))
    for path, failure in failures:
        logging.getLogger('clihelper').error(
            'Cannot reopen the log file %s, the old one stays in use: %s', path, failure)


def _reopen(handler: logging.FileHandler) -> None:
    handler.acquire()
    try:
        old = handler.stream
        if old is None or old.closed or _is_current(handler, old.fileno()):
            return
        handler.mode = handler.mode.replace('w', 'a').replace('x', 'a')
        handler.stream = handler._open()
        with suppress(OSError):  # a full disk; the loss has been counted already
            old.close()
    finally:
        handler.release()


def _is_current(handler: logging.FileHandler, descriptor: int) -> bool:
    """Return whether the open file is in append mode, and still the one at the path."""
    try:
        there = os.stat(handler.baseFilename)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there) and 'a' in handler.mode


def close_handlers() -> None:
    """Close all handlers, and remove them: nothing is logged until :func:`configure` is called.

    For a process that was just forked: what is buffered is left to its parent.
    """
    stop_all_listeners()
    for handler in all_handlers():
        buffer = getattr(handler, 'buffer', None)
        if isinstance(buffer, list):
            buffer.clear()
        _close(handler)
    for logger in all_loggers():
        logger.handlers.clear()
    _applied.request = None


def unblock() -> bool:
    """Discard what handlers, and the standard streams, wait to write because nobody reads it.

    :returns: whether there was any; a thread that waits must then be interrupted by a signal.
    """
    descriptors = {1, 2}
    for handler in all_handlers():
        for name in ('stream', 'socket', 'sock'):
            with suppress(AttributeError, OSError, ValueError):  # none, or it is closed
                descriptors.add(getattr(handler, name).fileno())
    return discard_blocked(descriptors)
