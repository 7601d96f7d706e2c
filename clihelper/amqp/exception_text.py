"""Safe access to what a handler has raised, whatever it is.

An exception is the program's own code: its text, the name of its class, an attribute or even
``isinstance`` may raise, or return something huge. The functions here never raise, and their
results are bounded.
"""

from __future__ import annotations

from clihelper.errors import StopNow
from clihelper.process.signals import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    T = TypeVar('T')

LONGEST_NAME = 255
"""the most characters of a class name that are repeated"""

LONGEST_TRACEBACK = 64 * 1024
"""the most bytes of a traceback, with the exception's text and its causes, that are logged"""

LONGEST_STACK = 20
"""the most calls that are logged for an exception that cannot be shown itself"""

SHOWN = 1024
"""the most characters of its text that are logged in this case"""


class NotShown(Exception):
    """Stands in a traceback for an exception that cannot be shown, or is too long for a log."""


def preload() -> None:
    """Import what showing an exception takes: a process without a descriptor left cannot.

    Python 3.15 imports some of it only when it shows the first one.
    """
    try:
        raise ValueError
    except ValueError as error:
        loggable(error)


def is_a(error: BaseException, kinds: type | tuple[type, ...]) -> bool:
    """Whether the class of *error* is one of *kinds*, or derived from one.

    ``isinstance`` would also ask the exception itself, which may pretend to be another or raise.
    """
    return issubclass(type(error), kinds)


def attempt(read: Callable[[], T], otherwise: T) -> T:
    """What *read* returns, or *otherwise* if it raises."""
    try:
        return read()
    except (StopNow, Interrupted):
        raise
    except BaseException:
        return otherwise


def name(error: BaseException) -> str:
    """The name of its class."""
    # Bypass the metaclass, which may return something else.
    return attempt(lambda: type.__getattribute__(type(error), '__qualname__'), '<no name>')[
        :LONGEST_NAME
    ]


def text(error: BaseException) -> str:
    """``str(error)``, or a placeholder where that raises."""
    try:
        return str.__str__(str(error))  # an object of a class derived from str may raise as well
    except (StopNow, Interrupted):
        raise
    except BaseException as failure:
        return f'<no text: str() raised {name(failure)}>'


def loggable(error: BaseException) -> BaseException:
    """The exception to log: the given one, or a substitute with its traceback."""
    import traceback

    shown = text(error)
    why = f'whose text has {len(shown)} characters'
    if len(shown) <= LONGEST_TRACEBACK:
        try:
            size = len(''.join(traceback.format_exception(error)).encode())
            if size <= LONGEST_TRACEBACK:
                return error
            why = f'whose traceback has {size} bytes'
        except (StopNow, Interrupted):
            raise
        except BaseException as failure:
            why = f'whose traceback cannot be shown ({name(failure)})'
    line = f'{name(error)}, {why}: {shown[:SHOWN]}'.encode('utf-8', 'backslashreplace')
    return NotShown(line.decode()).with_traceback(_stack(error))


def _stack(error: BaseException) -> TracebackType | None:
    """The innermost of its calls."""
    calls = []
    call = vars(BaseException)['__traceback__'].__get__(error)  # bypass the exception's methods
    while call is not None:
        calls.append(call)
        call = call.tb_next
    return calls[-min(len(calls), LONGEST_STACK)] if calls else None
