"""What ``IOLoopController.messages`` returns. A thread waits for the messages.

Waiting, reconnecting and settling are the same as without an event loop, which only the code that
handles a message runs on. That costs a change of threads for each message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from functools import partial
from queue import SimpleQueue

from clihelper.amqp.iterators import Iterations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from clihelper.amqp.iteration import Iteration
    from clihelper.amqp.message import Message

    Job = tuple[Callable[[], Any], asyncio.Future[Any] | None]

LAST_MOMENT = 1.0
"""seconds that a thread has to end at the end of a round"""


class IterationThread:
    """A thread that uses an iteration.

    :param iteration: the iteration.
    :param event_loop: where its results are awaited.
    :ivar pending: the result of :meth:`Iteration.next` that nobody has seen yet, or None.
    :ivar finished: set when nothing more will be asked of it.
    """

    def __init__(self, iteration: Iteration, event_loop: asyncio.AbstractEventLoop) -> None:
        self.iteration = iteration
        self.pending: asyncio.Future[Message | None] | None = None
        self.finished = asyncio.Event()
        self._event_loop = event_loop
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._wakeup = -1

    @property
    def is_open(self) -> bool:
        """Whether messages are to come."""
        return not self.finished.is_set()

    @property
    def is_at_work(self) -> bool:
        """Whether a message is awaited, or is being handled."""
        return self.is_open and (self.pending is not None or self.iteration.in_hand is not None)

    def next(self) -> asyncio.Future[Message | None]:
        """The next message; asking again before it was :meth:`seen` has the same result."""
        if self.pending is None:
            self.pending = self._event_loop.create_future()
            self.pending.add_done_callback(_retrieve)
            self._post(self.iteration.next, self.pending)
        return self.pending

    def seen(self) -> None:
        """Note that the caller has the message, or the end."""
        self.pending = None

    def end(self, job: Callable[[], None]) -> asyncio.Future[None]:
        """Have *job* end the iteration; a message that nobody has seen returns to its queue."""
        if self.pending is not None:
            job = partial(self.iteration.end, None, leaves_unsettled=True)
            self.iteration.cancel()
            os.eventfd_write(self._wakeup, 1)
        done: asyncio.Future[None] = self._event_loop.create_future()
        if self._thread is None or self.iteration.has_ended:
            done.set_result(None)
        else:
            done.add_done_callback(_retrieve)
            self._post(job, done)
        self.leave()
        return done

    def leave(self) -> None:
        """Have the thread end after what it was asked for."""
        self.finished.set()
        self._jobs.put(None)

    def give_up_record(self) -> None:
        """See :class:`Iteration`."""
        self.iteration.give_up_record()

    def finish(self) -> None:
        """End at the end of a round, and wait a moment for that."""
        if self.is_open:
            self.end(self.iteration.leave)
        if self._thread is not None:
            self._thread.join(LAST_MOMENT)

    def description(self) -> str:
        """See :class:`Iteration`."""
        return self.iteration.description() if self.is_open else ''

    def _post(self, job: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        if self._thread is None:
            self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.iteration.wakeup = self._wakeup
            self._thread = threading.Thread(target=self._run, name='messages', daemon=True)
            self._thread.start()
        self._jobs.put((job, future))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:
                failure = error
            if future is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._event_loop.call_soon_threadsafe(_set, future, result, failure)
        os.close(self._wakeup)


def _set(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Take note of an exception, or asyncio would log that nobody has."""
    if not future.cancelled():
        future.exception()


class AsyncMessages:
    """The messages of one queue; an asynchronous iterator.

    Messages are settled as :class:`~clihelper.amqp.iterators.Messages` has them settled, in an
    ``async with`` and without one.
    """

    def __init__(self, thread: Any) -> None:
        self._thread = thread

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        thread = self._thread
        if not thread.is_open:
            raise StopAsyncIteration
        thread.iteration.release()
        future = thread.next()
        try:
            message: Message | None = await asyncio.shield(future)
        except asyncio.CancelledError:
            raise  # the message, if there is one, will be the next one
        except BaseException:
            thread.seen()
            thread.leave()
            raise
        thread.seen()
        if message is None:
            thread.leave()
            raise StopAsyncIteration
        thread.iteration.hold(message)
        return message

    async def aclose(self) -> None:
        """End: prefetched messages return to the queue, and the message in hand has failed."""
        self._thread.iteration.release()
        if self._thread.is_open:
            await asyncio.shield(self._thread.end(self._thread.iteration.leave))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        thread = self._thread
        thread.iteration.release()
        if not thread.is_open:
            return
        iteration = thread.iteration
        # What a stop has cancelled has not failed.
        is_cut = isinstance(error, asyncio.CancelledError) and not iteration.is_running
        await asyncio.shield(
            thread.end(partial(iteration.end, error, leaves_unsettled=is_cut)))

    def __del__(self) -> None:
        if self._thread.is_open:
            self._thread.end(self._thread.iteration.leave)


class AsyncIterations(Iterations):
    """Opens iterations for code on an event loop.

    :param event_loop: that loop.
    """

    def __init__(
        self, host: Any, event_loop: asyncio.AbstractEventLoop, *, consumes: bool
    ) -> None:
        super().__init__(host, consumes=consumes)
        self._event_loop = event_loop
        self._threads: list[IterationThread] = []

    def messages(  # type: ignore[override]
        self, queue: str, timeout: float | None, prefetch: int | None
    ) -> AsyncMessages:
        """The messages of *queue*; see ``IOLoopController.messages``."""
        thread = IterationThread(self.iteration(queue, timeout, prefetch), self._event_loop)
        self.add(thread)
        self._threads = [each for each in self._threads if each.is_open] + [thread]
        return AsyncMessages(thread)

    def finishing(self) -> set[asyncio.Task[Any]]:
        """Tasks that wait for the messages in hand at a stop, and for what awaits messages."""
        return {
            self._event_loop.create_task(each.finished.wait())
            for each in self._threads if each.is_at_work
        }
