"""A connection that an asyncio event loop reads and writes. A thread opens it, which may block."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from clihelper.amqp.connection import Lost, error_text
from clihelper.amqp.waiting import POLL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from clihelper.amqp.connection import Connection

    T = TypeVar('T')

AT_A_TIME = 4
"""the most chunks that are read before the loop does something else"""


class EventLoopConnection:
    """Has an event loop read and write a connection.

    :param connection: a connection that is not open yet, and waits without reading signals.
    :param event_loop: an asyncio event loop.
    :param on_arrival: called after something has arrived and was processed.
    :param on_lost: called once when the connection is lost; nothing reads it any more then.
    :param on_refused: called when the broker has closed only a channel; None: then all is lost.
    """

    def __init__(
        self,
        connection: Connection,
        event_loop: asyncio.AbstractEventLoop,
        on_arrival: Callable[[], None],
        on_lost: Callable[[Lost], None],
        on_refused: Callable[[Lost], None] | None = None,
    ) -> None:
        self.connection = connection
        self._event_loop = event_loop
        self._on_arrival = on_arrival
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._transport: Any = None
        self._descriptor: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._opening = False

    async def open(self, prepare: Callable[[], None], *, any_address: bool = False) -> None:
        """Connect, and start reading.

        :param prepare: called in the thread when the connection is open.
        :param any_address: whether all addresses are tried, instead of the next one.

        Raises what :meth:`Connection.open` and *prepare* raise.
        """

        def work() -> None:
            if any_address:
                self.connection.open_any()
            else:
                self.connection.open()
            prepare()

        self._opening = True
        await in_thread(self._event_loop, work, abandoned=self.connection.drop)
        self._opening = False
        self._start_reading()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that the loop reads."""
        return self._transport is not None

    def _start_reading(self) -> None:
        self._transport = self.connection.transport
        self._transport.on_unwritten = self._on_unwritten
        self._descriptor = self.connection.fileno()
        if self._descriptor is not None:
            self._event_loop.add_reader(self._descriptor, self._read)
        self._read()  # what has arrived meanwhile

    def stop_reading(self) -> None:
        """Leave the connection to a caller that waits for it, or drops it."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.on_unwritten = None
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor is not None:
            self._event_loop.remove_reader(self._descriptor)
            self._event_loop.remove_writer(self._descriptor)
            self._descriptor = None

    def lose(self, lost: Lost) -> None:
        """Stop reading a connection that is lost, and report that."""
        if self.is_open:
            self.stop_reading()
            self._on_lost(lost)

    def end(self) -> None:
        """Stop reading; drop a connection that is still being opened."""
        self.stop_reading()
        if self._opening:
            self.connection.drop()

    def _read(self) -> None:
        transport = self._transport
        if transport is None:
            return
        try:
            for _ in range(AT_A_TIME):
                if not self.connection.drain():
                    break
            else:
                self._event_loop.call_soon(self._read)
        except Lost as lost:
            if self._on_refused is None or not self.connection.is_refusal(lost):
                self.lose(lost)
                return
            self._on_refused(lost)
            self._event_loop.call_soon(self._read)
        if self._descriptor is None:
            self._timer = self._event_loop.call_later(POLL, self._read)
        self._on_arrival()

    def _on_unwritten(self) -> None:
        # The heartbeat thread writes, too.
        self._event_loop.call_soon_threadsafe(self._wait_writable)

    def _wait_writable(self) -> None:
        if self._descriptor is not None:
            self._event_loop.add_writer(self._descriptor, self._write)

    def _write(self) -> None:
        try:
            is_done = self._transport is None or self._transport.write_more()
            if is_done and self._descriptor is not None:
                self._event_loop.remove_writer(self._descriptor)
        except OSError as error:
            self.lose(_lost(error))


def _lost(error: BaseException) -> Lost:
    lost = Lost(error_text(error))
    lost.__cause__ = error
    return lost


async def in_thread(
    event_loop: asyncio.AbstractEventLoop,
    work: Callable[[], T],
    *,
    abandoned: Callable[[], None] = lambda: None,
) -> T:
    """Call *work* in a thread of its own, which does not keep the program from ending.

    :param abandoned: called in the thread after *work*, if nobody waits for it any more.
    :returns: its result; what it raises is raised.
    """
    future: asyncio.Future[T] = event_loop.create_future()

    def finish(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        if future.cancelled():
            abandoned()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            event_loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name='connecting', daemon=True).start()
    return await future
