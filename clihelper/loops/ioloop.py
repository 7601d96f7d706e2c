"""The Tornado loop: servers that ``_setup`` started, and ``_process`` every wake interval."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop
from tornado.tcpserver import TCPServer

from clihelper.loops import Loop
from clihelper.loops.interval import Ticks
from clihelper.process.signals import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from clihelper.amqp.async_client import AsyncClient
    from clihelper.loops import Host

DRAIN_POLL = 0.01
"""seconds between checks for requests in progress during a stop; Tornado does not notify"""

CANCEL_TIMEOUT = 1.0
"""seconds that tasks have to end after they are cancelled"""


class TornadoLoop(Loop):
    """Runs the IOLoop. The signal handler delivers signals to it.

    :ivar io_loop: the :class:`~tornado.ioloop.IOLoop`. It is the same one for the life of the
        process, so that what was created for it before a HUP still works afterwards.
    """

    reads_signals = False

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.io_loop = _current_io_loop()
        assert isinstance(self.io_loop, BaseAsyncIOLoop)
        self._event_loop = self.io_loop.asyncio_loop
        self._ticks: Ticks | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._runs = False

    def make_client(self) -> AsyncClient:
        from clihelper.amqp.async_client import AsyncClient
        from clihelper.amqp.client import publishing_connection

        connection = publishing_connection(self._host, polled=True, waits=False)
        return AsyncClient(connection, self._event_loop)

    def call(self, hook: Callable[[], Any]) -> Any:
        """Call ``_setup`` or ``_cleanup``, and run it to completion if it is a coroutine."""
        result = hook()
        if inspect.isawaitable(result):
            return self._event_loop.run_until_complete(_finished(result))
        return result

    def run(self) -> None:
        """Run the IOLoop until :meth:`stop` is called and the work in progress has ended."""
        pipe = self._host.signals.fileno()
        # The handler itself delivers a signal, wherever the wake-up descriptor of the process
        # points by then. The pipe only wakes the loop if another thread was interrupted.
        self._event_loop.add_reader(pipe, self._host.signals.read)
        self._event_loop.call_soon(self._start)
        self._runs = True
        try:
            self.io_loop.start()
        finally:
            self._runs = False
            self._event_loop.remove_reader(pipe)
            for timer in (self._timer, self._watchdog):
                if timer is not None:
                    timer.cancel()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Accept no new work, finish the work in progress, then make :meth:`run` return."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._draining is None:
            self._draining = self._event_loop.create_task(self._drain())

    def close(self) -> None:
        """Cancel the remaining tasks, so that their ``finally`` blocks run."""
        tasks = asyncio.all_tasks(self._event_loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._event_loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_TIMEOUT))
        super().close()

    def _start(self) -> None:
        if self._stopping:
            return
        if self._host.has_process:
            self._ticks = Ticks(self._host)
            self._begin_work()
        else:
            self._host.sleeping()
        self._begin()
        self._feed_watchdog()

    def _begin(self) -> None:
        """Begin what a subclass does besides."""
        self._host.ready()

    def _begin_work(self) -> None:
        self._work = self._event_loop.create_task(self._process())

    async def _process(self) -> None:
        """Call ``_process`` once, and set the timer for the next call."""
        assert self._ticks is not None
        self._host.active()
        try:
            result = self._host.process()
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if not self._runs:
                raise  # close() cancels what is left
            self._fail(error)
            return
        self._ticks.done()
        self._host.sleeping()
        if not self._stopping:
            # asyncio's loops use time.monotonic as their clock, too.
            self._timer = self._event_loop.call_at(self._ticks.due, self._begin_work)

    def _fail(self, error: BaseException) -> None:
        """Make :meth:`run` end and raise *error*."""
        self._failure = error
        self.io_loop.stop()

    def _feed_watchdog(self) -> None:
        watchdog_delay = self._host.heartbeat()
        if watchdog_delay is not None:
            self._watchdog = self._event_loop.call_later(watchdog_delay, self._feed_watchdog)

    async def _drain(self) -> None:
        try:
            await self._finish_work()
        except Exception as error:
            self._failure = error
        finally:
            self.io_loop.stop()

    async def _finish_work(self) -> None:
        """Close the listening sockets, then wait for requests and work in progress."""
        await asyncio.sleep(0)  # accept connections that arrived before the stop
        servers = _servers(self.io_loop)
        for server in servers:
            server.stop()
        while any(_close_idle(server) for server in servers if isinstance(server, HTTPServer)):
            await asyncio.sleep(DRAIN_POLL)
        if self._work is not None:
            await asyncio.wait([self._work])


def _current_io_loop() -> IOLoop:
    """The program's IOLoop, which is created if there is none yet."""
    with warnings.catch_warnings():
        # Python 3.12 and 3.13 warn if Tornado asks asyncio for a loop that does not exist yet.
        warnings.filterwarnings('ignore', 'There is no current event loop', DeprecationWarning)
        return IOLoop.current()


async def _finished(result: Any) -> Any:
    return await result


def _servers(io_loop: Any) -> list[TCPServer]:
    """The servers that listen on a loop; only the garbage collector knows those of ``app.listen``.

    A process may have further ones, on the loop of a test runner or of a thread.
    """
    frozen = gc.get_freeze_count()
    if frozen:
        gc.unfreeze()  # otherwise get_objects omits those that existed when the loop started
    found = [candidate for candidate in gc.get_objects() if issubclass(type(candidate), TCPServer)]
    if frozen:
        gc.freeze()
    return [
        server
        for server in found
        if any(descriptor in io_loop.handlers for descriptor in server._sockets)
    ]


def _close_idle(server: HTTPServer) -> int:
    """Close the connections without a request in progress; returns how many are busy."""
    busy = 0
    for connection in list(server._connections):
        stream = connection.stream
        waiting = not stream.closed() and _awaits_request(stream)
        if stream.closed() or (waiting and not wait_readable((stream.socket.fileno(),), 0)):
            stream.close()
        else:
            busy += 1
    return busy


def _awaits_request(stream: Any) -> bool:
    """Whether a connection waits for the headers of a request.

    Tornado has no public attribute for this. But only then does a stream read up to a regular
    expression, which matches the end of the headers.
    """
    return getattr(stream, '_read_regex', None) is not None
