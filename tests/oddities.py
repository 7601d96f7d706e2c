"""What a handler may return or raise and should not: each by a name.

A value that is called makes the odd thing, or raises it.
"""

from __future__ import annotations

import asyncio
import decimal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import clihelper
from clihelper.amqp.connection import Lost
from clihelper.amqp.settlement import Crashed, StoppableError, TimedOut

LONG = 2_000_000
"""characters of a long text"""

DEEP = 20_000
"""levels of what is nested too deeply for a recursion"""


def fail(*_: Any) -> NoReturn:
    raise RuntimeError('an attribute that raises')


def interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


# Results.

class StrWithoutBytes(str):
    def encode(self, *_: Any) -> Any:
        return 5


class BytesOfAnotherLength(bytes):
    def __len__(self) -> int:
        return 1_000_000

    def __bytes__(self) -> bytes:
        return self


class UnlikeAnything:
    __class__ = property(fail)  # type: ignore[assignment]
    __bool__ = __len__ = __iter__ = __eq__ = __hash__ = fail  # type: ignore[assignment]


class DictOfAnotherKind(dict[str, Any]):
    items = keys = __iter__ = fail  # type: ignore[assignment]


class FloatWithoutText(float):
    __repr__ = fail


def list_in_itself() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def nested_list() -> Any:
    found: list[Any] = []
    for _ in range(DEEP):
        found = [found]
    return found


def released_memory() -> Any:
    view = memoryview(b'gone')
    view.release()
    return view


async def coroutine() -> None:
    pass


def unawaited() -> Any:
    found = coroutine()
    found.close()  # or it would warn that nobody awaits it
    return found


RESULTS: dict[str, Callable[[], Any]] = {
    'nothing': lambda: None,
    'text': lambda: 'done',
    'empty text': str,
    'bytes': lambda: b'done',
    'empty bytes': bytes,
    'true': lambda: True,
    'a dict': lambda: {'done': [1, 2.5, None]},
    'nan': lambda: float('nan'),
    'infinity': lambda: [float('-inf')],
    'an object': object,
    'a list in itself': list_in_itself,
    'a deep list': nested_list,
    'a long text': lambda: 'é' * LONG,
    'long bytes': lambda: b'x' * LONG,
    'a lone surrogate': lambda: '\ud800',
    'lone surrogates in JSON': lambda: {'\udfff': '\ud800'},
    'a generator': lambda: (number for number in range(3)),
    'a coroutine': unawaited,
    'a set': lambda: {1},
    'an integer of 5000 digits': lambda: 10**5000,
    'a bytearray': lambda: bytearray(b'done'),
    'memory with gaps': lambda: memoryview(b'dxoxnxex')[::2],
    'released memory': released_memory,
    'keys of several types': lambda: {1: 1, None: 2, False: 3, 2.5: 4},
    'a key of no type': lambda: {(1, 2): 3},
    'an exception': lambda: ValueError('returned, not raised'),
    'a decimal': lambda: decimal.Decimal('1.5'),
    'text whose encode() is odd': lambda: StrWithoutBytes('done'),
    'bytes whose length is odd': lambda: BytesOfAnotherLength(b'done'),
    'an object without a class': UnlikeAnything,
    'a dict without items': lambda: DictOfAnotherKind(a=1),
    'a number without text': lambda: FloatWithoutText(1.5),
    'a class': lambda: ValueError,
    'Ellipsis': lambda: ...,
}


# Exceptions.

class TextRaises(Exception):
    __str__ = __repr__ = fail


class TextInterrupts(Exception):
    __str__ = __repr__ = interrupt


class TextExits(Exception):
    def __str__(self) -> str:
        sys.exit(3)

    __repr__ = __str__


class TextIsLost(Exception):
    def __str__(self) -> str:
        raise Lost('a text that is lost')


class TextIsNone(Exception):
    def __str__(self) -> Any:
        return None


class TextIsOfAnotherKind(Exception):
    def __str__(self) -> str:
        return Text('odd')


class Text(str):
    __getitem__ = __len__ = encode = __str__ = __format__ = fail  # type: ignore[assignment]


class ClassRaises(Exception):
    __class__ = property(fail)  # type: ignore[assignment]


class ClassInterrupts(Exception):
    __class__ = property(interrupt)  # type: ignore[assignment]


class ClassIsAnother(Exception):
    __class__ = clihelper.Requeue  # type: ignore[assignment]


class Unlike(Exception):
    __getattribute__ = fail
    __eq__ = __hash__ = __bool__ = fail  # type: ignore[assignment]


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


class OddName(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ('__name__', '__qualname__', '__module__'):
            fail()
        return super().__getattribute__(name)


class NameRaises(Exception, metaclass=OddName):
    pass


class Settings(type):
    __instancecheck__ = __subclasscheck__ = __eq__ = __hash__ = fail  # type: ignore[assignment]


class ChecksRaise(Exception, metaclass=Settings):
    pass


class Stopped(Exception):
    stopped = True


class StoppedRaises(StoppableError):
    stopped = property(fail)  # type: ignore[assignment]


class RetryWithoutDelay(clihelper.Retry):
    delay = property(fail)  # type: ignore[assignment]


class OwnBase(BaseException):
    pass


LongName = type('L' * 200_000, (Exception,), {})
OddlyNamed = type('a\nb\x1b[1mé', (Exception,), {'__module__': 5})


def retry(delay: Any) -> Exception:
    error = clihelper.Retry('odd')
    error.delay = delay
    return error


def with_notes(notes: Any) -> Exception:
    error = ValueError('with notes')
    error.__notes__ = notes  # type: ignore[attr-defined]
    return error


def caused_by(cause: BaseException) -> Exception:
    error = ValueError('it has a cause')
    error.__cause__ = cause
    return error


def chain(length: int) -> BaseException:
    error = first = ValueError('the last of a chain')
    for number in range(length):
        error.__cause__ = ValueError(f'link {number}')
        error = error.__cause__
    return first


def cycle() -> BaseException:
    first, second = ValueError('first'), ValueError('second')
    first.__cause__, second.__context__ = second, first
    return first


def nested_group(depth: int) -> BaseException:
    error: Exception = ValueError('innermost')
    for _ in range(depth):
        error = ExceptionGroup('one in another', [error])
    return error


def recurse() -> NoReturn:
    recurse()
    raise AssertionError


def deep_in_a_stack() -> NoReturn:
    def descend(depth: int) -> NoReturn:
        if depth:
            descend(depth - 1)
        raise ValueError('far below')

    descend(sys.getrecursionlimit() - 200)
    raise AssertionError


def in_a_generator() -> NoReturn:
    def numbers() -> Iterator[int]:
        yield next(iter(()))

    next(numbers())
    raise AssertionError


def without_attribute() -> NoReturn:
    class Odd:
        __dir__ = interrupt

    Odd().missing  # type: ignore[attr-defined]  # noqa: B018
    raise AssertionError


def syntax_error() -> BaseException:
    error = SyntaxError('odd')
    error.filename, error.lineno, error.offset, error.text = (  # type: ignore[assignment]
        5, 'one', object(), b'text')  # fmt: skip
    return error


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    'ValueError': lambda: ValueError('it failed'),
    'Reject': lambda: clihelper.Reject('never'),
    'Reject of much': lambda: clihelper.Reject('é' * LONG),
    'Requeue': lambda: clihelper.Requeue('once'),
    'Retry': lambda: clihelper.Retry(delay=0.01),
    'Retry at once': lambda: clihelper.Retry(delay=0),
    'Retry without a delay': RetryWithoutDelay,
    'Retry, a delay that is text': lambda: retry('soon'),
    'Retry, a delay that is nan': lambda: retry(float('nan')),
    'Retry, a delay that is negative': lambda: retry(-1e300),
    'Retry, a delay that is a decimal': lambda: retry(decimal.Decimal('0.01')),
    'Retry, a delay that is an object': lambda: retry(UnlikeAnything()),
    'KeyboardInterrupt': KeyboardInterrupt,
    'SystemExit': SystemExit,
    'SystemExit of an object': lambda: SystemExit(object()),
    'GeneratorExit': GeneratorExit,
    'StopIteration': lambda: StopIteration(1),
    'StopIteration in a generator': in_a_generator,  # type: ignore[dict-item]
    'StopAsyncIteration': StopAsyncIteration,
    'CancelledError': asyncio.CancelledError,
    'RecursionError': recurse,  # type: ignore[dict-item]
    'far below in a stack': deep_in_a_stack,  # type: ignore[dict-item]
    'MemoryError': MemoryError,
    'a BaseException of its own': OwnBase,
    'str() raises': TextRaises,
    'str() interrupts': TextInterrupts,
    'str() exits': TextExits,
    'str() is lost': TextIsLost,
    'str() is None': TextIsNone,
    'str() is odd': TextIsOfAnotherKind,
    'its class raises': ClassRaises,
    'its class interrupts': ClassInterrupts,
    'its class is another': ClassIsAnother,
    'each attribute raises': Unlike,
    'it is false': Falsy,
    'its name raises': NameRaises,
    'checks of its class raise': ChecksRaise,
    'it has an attribute stopped': Stopped,
    'stopped raises': StoppedRaises,
    'Lost': lambda: Lost('raised by a handler'),
    'Crashed': lambda: Crashed(10**30),
    'TimedOut': lambda: TimedOut(-1),
    'PublishError': lambda: clihelper.PublishError('raised by a handler', refused=True),
    'a clihelper.Error': lambda: clihelper.ConfigurationError('one', 'two'),
    'a long text': lambda: ValueError('é' * LONG),
    'a long name': LongName,
    'an odd name': OddlyNamed,
    'odd characters': lambda: ValueError('a\nb\r\x1b[1m\0\ud800\u2028\x85'),
    'an argument that is odd': lambda: KeyError(UnlikeAnything()),
    'an errno that is odd': lambda: OSError('five', b'\xff', object()),
    'UnicodeDecodeError': lambda: UnicodeDecodeError('odd', b'x' * LONG, 0, LONG, 'long'),
    'a syntax error that is odd': syntax_error,
    'an attribute that is missing': without_attribute,  # type: ignore[dict-item]
    'a group': lambda: ExceptionGroup('two', [ValueError('one'), TextRaises()]),
    'a group of BaseException': lambda: BaseExceptionGroup('two', [OwnBase(), SystemExit()]),
    'a group of Reject': lambda: ExceptionGroup('one', [clihelper.Reject('in a group')]),
    'a large group': lambda: ExceptionGroup('many', [ValueError(str(n)) for n in range(2000)]),
    'a deep group': lambda: nested_group(2000),
    'a group of long texts': lambda: ExceptionGroup('1', [ValueError('é' * LONG)]),
    'a cause with a long text': lambda: caused_by(ValueError('é' * LONG)),
    'a cause whose str() interrupts': lambda: caused_by(TextInterrupts()),
    'a cause that raises': lambda: caused_by(Unlike()),
    'a long chain': lambda: chain(2000),
    'a cycle': cycle,
    'notes that are none': lambda: with_notes(5),
    'notes of no text': lambda: with_notes([TextRaises(), None]),
    'notes that are long': lambda: with_notes(['é' * LONG]),
    'many notes': lambda: with_notes(['é'] * 10_000),
}
