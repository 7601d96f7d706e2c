"""What ``dictConfig`` raises, in one line that says where."""

from __future__ import annotations

import errno
import re

from clihelper.errors import ConfigurationError, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clihelper.errors import Error

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_PLACE = re.compile(
    r"(?:Unable to configure|No handler found with name)\s+(\w*)\s*'(.*)'$")


def explain(error: BaseException, locate: Callable[..., str]) -> Error:
    """Word an exception of ``dictConfig`` for the one who wrote the section.

    :param error: the exception, with the chain of its causes.
    :param locate: gives ``file:line:column`` for a path of keys.
    :returns: :class:`NotPermitted` where a file may not be opened, else
        :class:`ConfigurationError`.
    """
    path = _place(str(error))
    causes = _causes(error)
    last = causes[-1]
    line = f'{locate(*path)}: {".".join(path)}: {_in_words(causes)}'.replace('\n', '\\n')
    if isinstance(last, OSError) and last.errno in _FORBIDDEN:
        return NotPermitted(line)
    return ConfigurationError(line)


def _place(message: str) -> tuple[str, ...]:
    """The keys that lead to what a message of ``dictConfig`` is about."""
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
        # "Unable to add handler 'x'" says more than the KeyError below it.
        return str(causes[-2]) if len(causes) > 2 else f'{last} is missing'
    if isinstance(last, (ValueError, TypeError, OSError, ImportError)):
        return ' '.join(str(last).split())
    return ' '.join(f'{type(last).__name__}: {last}'.split())
