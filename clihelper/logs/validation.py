"""Find faults of the ``Logging`` section in advance, and explain what ``dictConfig`` raises."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from io import UnsupportedOperation
from logging import Formatter

from clihelper import program
from clihelper.errors import (
    ConfigurationError,
    Error,
    NotPermitted,
    UnavailableForNow,
    did_you_mean,
)
from clihelper.logs.defaults import LOST, SYSLOG_SOCKET, SyslogHandler
from clihelper.logs.section import (
    INHERITED_FORMATTERS,
    INHERITED_HANDLERS,
    NAMED_PARTS,
    complete,
    is_memory_handler,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import CodeType
    from typing import Any

_SECTION_KEYS = (*NAMED_PARTS, 'root', 'version', 'incremental', 'disable_existing_loggers')
_LOGGER_KEYS = ('level', 'handlers', 'filters', 'propagate')
# The keys that dictConfig reads itself and does not pass on to a handler's class. Those of a
# QueueHandler are such since 3.12.
_HANDLER_KEYS = ('class', '()', '.', 'level', 'formatter', 'filters', 'debug_only')
_QUEUE_HANDLER_KEYS = ('queue', 'listener', 'handlers', 'respect_handler_level')
_FORMATTER_KEYS = ('class', 'format', 'datefmt', 'style', 'validate', 'defaults')
_FILTER_KEYS = ('name',)


def check(section: Mapping[str, Any] | None, locate: Callable[..., str], *,
          working_directory: str | None = None) -> list[str]:
    """Find the faults of the section, before detaching and without opening a log file.

    Faults are values of the wrong shape, references to undefined names, unknown levels, classes
    that cannot be imported, arguments that these do not take, formats that do not suit their
    style, and log files whose folder does not exist. The modules of the classes are imported.

    :param section: the section; None if absent.
    :param locate: returns ``file:line:column`` for a path of keys.
    :param working_directory: the directory that a relative ``filename`` is relative to; default:
        the current one.
    :returns: one line for each fault, ``file:line:column: Logging.key: what is wrong``.
    """
    checker = _Checker(section or {}, locate, working_directory or os.getcwd())
    checker.run()
    return checker.faults


def warnings(section: Mapping[str, Any], locate: Callable[..., str], *,
             foreground: bool) -> list[str]:
    """Return a warning for each handler whose syslog has no socket, as in many containers.

    Neither :class:`logging.handlers.SysLogHandler` nor syslog(3) says so.

    :param section: the section, which has no faults.
    :param foreground: whether ``debug_only`` handlers exist.
    """
    handlers = complete(section, foreground=foreground, working_directory=None).get('handlers', {})
    sockets = {name: syslog_socket(body) for name, body in handlers.items()}
    return [f'{locate("Logging", "handlers", name)}: Logging.handlers.{name}: there is no {path}:'
            f' {LOST}' for name, path in sockets.items() if path and not os.path.exists(path)]


def syslog_socket(body: Mapping[str, Any]) -> str | None:
    """Return the socket in the file system that a handler sends to; None if it does not."""
    from logging.config import BaseConfigurator

    name, address = body.get('()', body.get('class')), body.get('address')
    if not isinstance(name, str) or name.startswith('cfg://'):
        return None
    made = BaseConfigurator({}).resolve(name.removeprefix('ext://'))
    if not isinstance(made, type):
        return None
    if issubclass(made, SyslogHandler):
        return SYSLOG_SOCKET
    from logging.handlers import SysLogHandler

    is_path = issubclass(made, SysLogHandler) and isinstance(address, str) and address[:1] == '/'
    return address if is_path else None


class _Checker:
    """Walks through the section and collects faults."""

    def __init__(self, section: Mapping[str, Any], locate: Callable[..., str],
                 working_directory: str) -> None:
        self.faults: list[str] = []
        self._section = section
        self._locate = locate
        self._working_directory = working_directory
        self._parts: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        self._near_misses((), self._section, _SECTION_KEYS)
        version = self._section.get('version')
        if version is not None and version != 1:
            self._fault(('version',), f'expected 1, got {_shown(version)}')
        self._parts = {part: self._bodies(part) for part in NAMED_PARTS}
        root = self._section.get('root')
        if root is not None and self._is_mapping(('root',), root):
            self._logger(('root',), root)
        for name, body in self._parts['loggers'].items():
            self._logger(('loggers', name), body)
        incremental = bool(self._section.get('incremental'))
        for name, body in self._parts['handlers'].items():
            self._level(('handlers', name), body)
            if not incremental:
                self._handler(('handlers', name), body)
        for name, body in self._parts['formatters'].items():
            self._formatter(('formatters', name), body)
        for name, body in self._parts['filters'].items():
            self._made(('filters', name), body, _FILTER_KEYS)

    def _bodies(self, part: str) -> dict[str, Any]:
        """Return the named entries of one part, each of them a mapping."""
        found = self._section.get(part)
        if found is None or not self._is_mapping((part,), found):
            return {}
        bodies: dict[str, Any] = {}
        for name, body in found.items():
            if not isinstance(name, str):
                self._fault((part, name), f'expected a name, got {_shown(name)}')
            elif body is None and part != 'handlers':
                bodies[name] = {}
            elif self._is_mapping((part, name), body):
                bodies[name] = body
        return bodies

    def _logger(self, path: tuple[str, ...], body: Mapping[str, Any]) -> None:
        self._near_misses(path, body, _LOGGER_KEYS)
        self._level(path, body)
        if self._section.get('incremental'):
            return
        self._references(path, body, 'handlers', 'handlers', INHERITED_HANDLERS)
        self._references(path, body, 'filters', 'filters')

    def _handler(self, path: tuple[str, ...], body: Mapping[str, Any]) -> None:
        if not isinstance(body.get('debug_only', False), bool):
            self._fault((*path, 'debug_only'),
                        f'expected true or false, got {_shown(body["debug_only"])}')
        formatter = body.get('formatter')
        if formatter is not None:
            self._reference((*path, 'formatter'), formatter, 'formatters', INHERITED_FORMATTERS)
        self._references(path, body, 'filters', 'filters')
        if is_memory_handler(body):
            self._reference((*path, 'target'), body['target'], 'handlers', INHERITED_HANDLERS)
        if 'class' not in body and '()' not in body:
            self._fault(path, 'a handler needs a class')
            return
        made = self._made(path, body, _HANDLER_KEYS)
        if made is not None and getattr(made, '__module__', '').startswith('logging'):
            self._folder(path, body)

    def _formatter(self, path: tuple[str, ...], body: Mapping[str, Any]) -> None:
        if '()' in body:
            self._made(path, body, ())
        elif 'class' in body:
            self._near_misses(path, body, _FORMATTER_KEYS)
            self._resolved((*path, 'class'), body['class'])
        else:
            self._near_misses(path, body, _FORMATTER_KEYS)
            try:
                Formatter(body.get('format'), body.get('datefmt'), body.get('style', '%'),
                          body.get('validate', True))
            except (ValueError, TypeError, AttributeError) as error:
                self._fault(path, str(error))

    def _made(self, path: tuple[str, ...], body: Mapping[str, Any],
              own_keys: tuple[str, ...]) -> object | None:
        """Check and return the factory or class that makes an entry; None if it is not found."""
        key = '()' if '()' in body else 'class'
        if key not in body:
            self._near_misses(path, body, own_keys)
            return None
        made = self._resolved((*path, key), body[key])
        if made is not None:
            consumed = {*own_keys, '()', '.'}
            given = [name for name in body if name not in consumed]
            if key == 'class' and _is_composed_queue_handler(made):
                self._references(path, body, 'handlers', 'handlers', INHERITED_HANDLERS)
                given = ['queue', *(name for name in given if name not in _QUEUE_HANDLER_KEYS)]
            for argument, fault in argument_faults(made, given):
                self._fault((*path, *argument), fault)
        return made

    def _resolved(self, path: tuple[str, ...], name: object) -> object | None:
        """Return what a dotted name stands for; None if it is unknown or faulty."""
        if not isinstance(name, str):
            if not callable(name):
                self._fault(path, f'expected the dotted name of a class, got {_shown(name)}')
                return None
            return name
        if name.startswith('cfg://'):
            return None
        from logging.config import BaseConfigurator

        try:
            found: object = BaseConfigurator({}).resolve(name.removeprefix('ext://'))
        except Exception as error:  # An import may raise anything.
            reason = ' '.join(str(error.__cause__ or error).split())
            self._fault(path, f'cannot be imported: {name!r}: {reason}')
            return None
        if not callable(found):
            self._fault(path, f'expected a class, but {name!r} is not one')
            return None
        return found

    def _folder(self, path: tuple[str, ...], body: Mapping[str, Any]) -> None:
        filename = body.get('filename')
        if not isinstance(filename, str) or '://' in filename:
            return
        filename = os.path.join(self._working_directory, filename)
        folder = os.path.dirname(filename)
        try:
            os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            self._fault((*path, 'filename'), f'there is no folder {folder!r}')
            return
        except OSError:
            pass  # The user who opens the file may see more than the one who starts the daemon.
        if os.path.isdir(filename):
            self._fault((*path, 'filename'), f'{filename!r} is a folder')

    def _level(self, path: tuple[str, ...], body: Mapping[str, Any]) -> None:
        level = body.get('level')
        if level is None or (isinstance(level, int) and not isinstance(level, bool)):
            return
        known = logging.getLevelNamesMapping()
        if not isinstance(level, str):
            self._fault((*path, 'level'), f'expected the name of a level, got {_shown(level)}')
        elif level not in known and '://' not in level:
            self._fault((*path, 'level'), f'unknown level {level!r}{did_you_mean(level, known)}')

    def _references(self, path: tuple[str, ...], body: Mapping[str, Any], key: str, part: str,
                    inherited: Mapping[str, Any] | None = None) -> None:
        names = body.get(key)
        if names is None or _is_reference(names):
            return
        if not isinstance(names, list):
            self._fault((*path, key), f'expected a list of names, got {_shown(names)}')
            return
        for name in names:
            self._reference((*path, key), name, part, inherited)

    def _reference(self, path: tuple[str, ...], name: object, part: str,
                   inherited: Mapping[str, Any] | None = None) -> None:
        known = {*self._parts[part], *(inherited or ())}
        if _is_reference(name) or (callable(name) or hasattr(name, 'filter')):
            return
        if not isinstance(name, str):
            self._fault(path, f'expected a name, got {_shown(name)}')
        elif name not in known:
            self._fault(path, f'there is no {part.removesuffix("s")} {name!r}'
                              f'{did_you_mean(name, self._parts[part])}')

    def _near_misses(self, path: tuple[str, ...], body: Mapping[Any, Any],
                     known: tuple[str, ...]) -> None:
        """Note keys that would be ignored and that resemble a known one."""
        for key in body:
            if isinstance(key, str) and key not in known and did_you_mean(key, known):
                self._fault((*path, key), f'unknown key{did_you_mean(key, known)}')

    def _is_mapping(self, path: tuple[str, ...], value: object) -> bool:
        if isinstance(value, dict):
            return True
        self._fault(path, f'expected a mapping, got {_shown(value)}')
        return False

    def _fault(self, path: tuple[Any, ...], text: str) -> None:
        keys = ('Logging', *path)
        line = f'{self._locate(*keys)}: {".".join(map(str, keys))}: {text}'
        self.faults.append(line.replace('\n', '\\n'))


def _is_reference(value: object) -> bool:
    """Return whether ``dictConfig`` resolves a value, as with ``cfg://`` and ``ext://``."""
    return isinstance(value, str) and value.startswith(('cfg://', 'ext://'))


def _is_composed_queue_handler(made: object) -> bool:
    """Return whether ``dictConfig`` makes the queue and listener of a handler, as from 3.12 on."""
    if sys.version_info < (3, 12):
        return False
    from logging.handlers import QueueHandler

    return isinstance(made, type) and issubclass(made, QueueHandler)


def _shown(value: object) -> str:
    """Return a value as text for a one-line message."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


_VARKEYWORDS = 0x08  # inspect.CO_VARKEYWORDS

# dictConfig tries the older name where a class does not know the newer one.
_OLDER_NAMES = {'stream': 'strm', 'format': 'fmt'}


def argument_faults(made: object, given: Iterable[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find unknown and missing names of arguments.

    :param made: a class or another callable; nothing is found if it is not written in Python.
    :param given: the keys of the configuration that become arguments.
    :returns: for each fault, the path to it and the fault in words.
    """
    function = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
    code: CodeType | None = getattr(function, '__code__', None)
    if code is None:
        return
    given = [name for name in given if isinstance(name, str) and name.isidentifier()]
    first = 1 if isinstance(made, type) or hasattr(made, '__self__') else 0
    positional = code.co_varnames[first:code.co_argcount]
    by_keyword = code.co_varnames[code.co_argcount:code.co_argcount + code.co_kwonlyargcount]
    takes = {*positional, *by_keyword}
    if not code.co_flags & _VARKEYWORDS:
        for name in given:
            if name not in takes and _OLDER_NAMES.get(name) not in takes:
                yield (name,), f'unknown key{did_you_mean(name, takes)}'
    defaults = len(getattr(function, '__defaults__', None) or ())
    required = [*positional[:max(len(positional) - defaults, 0)],
                *(name for name in by_keyword
                  if name not in (getattr(function, '__kwdefaults__', None) or {}))]
    given_older = {_OLDER_NAMES.get(name) for name in given}
    for name in required:
        if name not in given and name not in given_older:
            yield (), f'{name!r} is missing'


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# What may keep even a file from being opened that the configuration names rightly.
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS,
              errno.EIO)
# What is raised for a class or an argument that is wrong; anything else may be different tomorrow.
_WRONG = (ValueError, TypeError, AttributeError, ImportError, LookupError, NameError,
          AssertionError, NotImplementedError)
_PLACE = re.compile(
    r"(?:Unable to configure|No handler found with name)\s+(\w*)\s*'(.*)'$")


def explain(error: BaseException, locate: Callable[..., str]) -> Error:
    """Word an exception of ``dictConfig`` for the author of the section.

    :param error: the exception, with the chain of its causes.
    :param locate: returns ``file:line:column`` for a path of keys.
    :returns: :class:`NotPermitted` if a file may not be opened, :class:`UnavailableForNow` if a
        later attempt may succeed, as with a log server that is away, otherwise
        :class:`ConfigurationError`.
    """
    hidden = program.explain_hidden(error)
    if hidden is not None:
        return Error(hidden)
    path = _place(str(error))
    causes = _causes(error)
    last = causes[-1]
    line = f'{locate(*path)}: {".".join(path)}: {_in_words(causes)}'.replace('\n', '\\n')
    if isinstance(last, OSError) and last.errno in _FORBIDDEN:
        return NotPermitted(line)
    if _is_unavailable(last):
        return UnavailableForNow(f'{line} (this may be different at a later start)')
    return ConfigurationError(line)


def _is_unavailable(error: BaseException) -> bool:
    """Return whether an exception of a handler's class is no fault of the configuration."""
    if isinstance(error, OSError) and not isinstance(error, UnsupportedOperation):
        return error.filename is None or error.errno in _EXHAUSTED
    return not isinstance(error, _WRONG)


def _place(message: str) -> tuple[str, ...]:
    """Return the keys that lead to what a message of ``dictConfig`` is about."""
    if 'root logger' in message:
        return ('Logging', 'root')
    found = _PLACE.search(message)
    if found is None:
        return ('Logging',)
    return ('Logging', f'{found[1] or "handler"}s', found[2])


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    return causes


def _in_words(causes: list[BaseException]) -> str:
    last = causes[-1]
    if isinstance(last, OSError) and last.filename is not None:
        return f'cannot open {last.filename!r}: {last.strerror}'
    if isinstance(last, KeyError):
        # "Unable to add handler 'x'" says more than the KeyError that caused it.
        return str(causes[-2]) if len(causes) > 2 else f'{last} is missing'
    if isinstance(last, (ValueError, TypeError, OSError, ImportError)):
        return ' '.join(str(last).split())
    return ' '.join(f'{type(last).__name__}: {last}'.split())
