"""What is around each run of a handler: the context managers of ``around_message``.

::

    entered --> handler --> its reply is encoded --> left --> settled
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from clihelper.amqp.processing import check_answer, end_child, make_reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Handler = Callable[..., Any]


class Surroundings:
    """Puts the contexts of a controller around its handler.

    What leaving a context raises is what the handler has raised. What it suppresses has not been
    raised: the message is acknowledged, without a reply.

    :param around: makes the context for a message, or for the messages of a batch.
    :param hook: the name of *around*, for errors.
    :param awaits: whether the handler may be a coroutine, and the context asynchronous.
    """

    def __init__(self, around: Callable[[Any], Any], hook: str, *, awaits: bool) -> None:
        self._around = around
        self._hook = hook
        self._awaits = awaits

    def surround(self, handler: Handler) -> Handler:
        """Return *handler* with a context around each call; its last argument says which."""
        return self._awaited(handler) if self._awaits else self._called(handler)

    def _called(self, handler: Handler) -> Handler:
        def handle(*arguments: Any) -> Any:
            with self._plain(self._around(arguments[-1])), _left_by_parent():
                return _proven(handler(*arguments), arguments[-1])
            return None  # something was raised, and suppressed

        return handle

    def _awaited(self, handler: Handler) -> Handler:
        async def run(*arguments: Any) -> Any:
            with _left_by_parent():
                answer = handler(*arguments)
                if hasattr(type(answer), '__await__'):
                    answer = await answer
                return _proven(answer, arguments[-1])

        async def handle(*arguments: Any) -> Any:
            context = self._around(arguments[-1])
            if hasattr(type(context), '__aenter__'):
                async with context:
                    return await run(*arguments)
            else:
                with self._plain(context):
                    return await run(*arguments)
            return None

        return handle

    def _plain(self, context: Any) -> Any:
        """Check that a ``with`` statement takes *context*.

        :raises TypeError: it does not.
        """
        kind = type(context)
        if hasattr(kind, '__enter__') and hasattr(kind, '__exit__'):
            return context
        wrong = 'which is not a context manager'
        if hasattr(kind, '__aenter__'):
            wrong = 'which is asynchronous: only that of an AsyncConsumerController may be'
        raise TypeError(f'{self._hook} returned an object of type {kind.__name__}, {wrong}')


@contextmanager
def _left_by_parent() -> Iterator[None]:
    """A context that ends a process which the handler has forked: it must commit nothing."""
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != pid:
            end_child(error)
        raise
    if os.getpid() != pid:
        end_child(None)


def _proven(answer: Any, handled: Any) -> Any:
    """Check what a handler has returned while its context can still undo what it has done.

    :param handled: its message, or the messages of its batch.
    :raises TypeError: it cannot be encoded, or stands for a handler that has not been run.
    """
    if answer is None:
        return None
    if isinstance(handled, list):
        check_answer(answer, 'on_messages')
    else:
        make_reply(handled, answer)
    return answer
