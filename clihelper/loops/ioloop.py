"""The Tornado loop: servers that ``_setup`` started, and ``_process`` every wake interval."""

from __future__ import annotations

import asyncio
import inspect
import logging
import warnings
from contextlib import contextmanager
from functools import partial

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from clihelper.errors import StopNow
from clihelper.loops import Loop, listeners
from clihelper.loops.draining import Drain
from clihelper.loops.interval import Ticks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from clihelper.amqp.async_client import AsyncClient
    from clihelper.amqp.async_iterators import AsyncIterations
    from clihelper.loops import Host

LOGGER = logging.getLogger('clihelper')

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
        self._drain: Drain | None = None
        self._draining: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._abandoned: StopNow | None = None
        self._runs = self._is_cut = False

    def make_client(self) -> AsyncClient:
        from clihelper.amqp.async_client import AsyncClient
        from clihelper.amqp.client import publishing_connection

        connection = publishing_connection(self._host, polled=True, waits=False)
        connect = partial(publishing_connection, self._host, waits=False)
        return AsyncClient(connection, self._event_loop, connect)

    def make_iterations(self) -> AsyncIterations:
        from clihelper.amqp.async_iterators import AsyncIterations

        return AsyncIterations(self._host, self._event_loop, consumes=self.consumes)

    def call(self, hook: Callable[[], Any]) -> Any:
        """Call ``_setup`` or ``_cleanup``, and run it to completion if it is a coroutine."""
        result = hook()
        if inspect.isawaitable(result):
            return self._complete(_finished(result))
        return result

    def run(self) -> None:
        """Run the IOLoop until :meth:`stop` is called and the work in progress has ended."""
        slot = self._host.slot
        if slot is not None:
            listeners.accept_unless(lambda: slot.is_outdated, self._host.sockets, self.io_loop)
        listeners.binder.release()  # what the servers of an earlier round had, and none has now
        pipe = self._host.signals.fileno()
        # The handler itself delivers a signal, wherever the wake-up descriptor of the process
        # points by then. The pipe only wakes the loop if another thread was interrupted.
        self._event_loop.add_reader(pipe, self._host.signals.read)
        self._event_loop.call_soon(self._start)
        self._runs = True
        try:
            self.io_loop.start()
        except StopNow as stop:
            self._abandoned = stop
            self._report_cut(stop.signum.name)
            raise
        finally:
            self._runs = False
            self._event_loop.remove_reader(pipe)
            for timer in (self._timer, self._watchdog):
                if timer is not None:
                    timer.cancel()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Accept no new work, finish the work in progress, then make :meth:`run` return.

        Before a reload, what is not finished within ``Daemon.stop_timeout`` is cut. Otherwise
        the deadline is that of the process.
        """
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._draining is not None:
            if self._drain is not None and self._host.is_final:  # the reload has become a stop
                self._drain.refuse()
                listeners.close(self._host.sockets, self._event_loop)
            return
        self._draining = self._event_loop.create_task(self._wind_down())
        if self._host.is_final or self._host.begins_again:
            try:
                self._begin_drain()
            except Exception as error:
                self._failure = error
                self.io_loop.stop()

    def leave(self) -> None:
        """Begin no request from now on: ``_cleanup`` is next, which may run the IOLoop."""
        if self._drain is None:  # run() was not called, or has failed
            self._begin_drain().hurry()

    def close(self) -> None:
        """Cancel the remaining tasks, so that their ``finally`` blocks run."""
        if self._drain is not None:
            self._drain.end()
        tasks = asyncio.all_tasks(self._event_loop)
        for task in tasks:
            task.cancel()
        if tasks:
            with self._cancelling():
                self._complete(_finished(asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)))
        super().close()

    @contextmanager
    def _cancelling(self) -> Iterator[None]:
        """A context in which asyncio does not log that a handler's task was cancelled.

        Tornado before 6.6 takes it for an error.
        """
        before = self._event_loop.get_exception_handler()

        def handle(event_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if isinstance(context.get('exception'), asyncio.CancelledError):
                return
            if before is not None:
                before(event_loop, context)
            else:
                event_loop.default_exception_handler(context)

        self._event_loop.set_exception_handler(handle)
        try:
            yield
        finally:
            self._event_loop.set_exception_handler(before)

    def _complete(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, even if some other code stops the IOLoop meanwhile."""
        task = self._event_loop.create_task(awaitable)
        while not task.done():
            try:
                self._event_loop.run_until_complete(task)
            except RuntimeError:
                if self._event_loop.is_running() or self._event_loop.is_closed():
                    raise
            except StopNow as stop:
                # If it has ended a handler, Tornado raises it again from the handler's task.
                if stop is not self._abandoned:
                    raise
        return task.result()

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
        self._ticks.begin()
        try:
            result = self._host.process()
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if not self._runs or self._is_cut:
                raise
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

    async def _wind_down(self) -> None:
        try:
            await self._finish_work()
        except Exception as error:
            self._failure = error
        finally:
            if self._runs:
                self.io_loop.stop()

    def _begin_drain(self) -> Drain:
        host = self._host
        self._drain = drain = Drain(
            self.io_loop, is_final=host.is_final, keeps_listening=host.begins_again)
        drain.begin()
        if not host.begins_again:
            listeners.close(host.sockets, self._event_loop)
        return drain

    async def _finish_work(self) -> None:
        """Let requests and ``_process`` finish; before a reload, only until ``stop_timeout``."""
        if self._drain is None:
            for _ in range(2):  # accept who waits at a socket that this worker alone has
                await asyncio.sleep(0)
        drain = self._drain or self._begin_drain()
        finished = self._event_loop.create_task(drain.finished())
        work = {finished, *self._begin_finishing()}
        try:
            if not await self._finish_before_reload(work):
                await asyncio.wait(work)
            if not self._host.begins_again:
                await drain.parted()
        finally:
            drain.end()
        if finished.done():
            finished.result()

    def _begin_finishing(self) -> set[asyncio.Task[None]]:
        """Return the tasks that are to be finished, besides requests."""
        work = set() if self._work is None else {self._work}
        return work if self._iterations is None else work | self._iterations.finishing()

    def _cut_work(self) -> None:
        """Cancel those tasks."""
        if self._work is not None:
            self._work.cancel()

    async def _finish_before_reload(self, work: set[asyncio.Task[None]]) -> bool:
        """Wait for the work, and cut what is not finished in time; False: it is not a reload."""
        if not self._host.begins_again:
            return False
        timeout = self._host.config.daemon['stop_timeout']
        _, pending = await asyncio.wait(work, timeout=timeout)
        if not pending:
            return True
        if not self._host.begins_again:  # a stop has come, with a deadline of its own
            return False
        assert self._drain is not None
        self._report_cut(f'at stop_timeout, {timeout:g} s')
        self._is_cut = True
        with self._cancelling():
            self._drain.cut()
            self._cut_work()
            await asyncio.wait(work, timeout=CANCEL_TIMEOUT)
        return True

    def _report_cut(self, when: str) -> None:
        """Log what is abandoned."""
        words = self._in_progress()
        if words:
            LOGGER.warning('abandoned (%s): %s', when, '; '.join(words))

    def _in_progress(self) -> list[str]:
        """Return in words what is not finished."""
        drain = self._drain or Drain(self.io_loop, is_final=True)
        words = drain.in_progress()
        if self._work is not None and not self._work.done():
            words.append('_process')
        return words


def _current_io_loop() -> IOLoop:
    """The program's IOLoop, which is created if there is none yet."""
    with warnings.catch_warnings():
        # Python 3.12 and 3.13 warn if Tornado asks asyncio for a loop that does not exist yet.
        warnings.filterwarnings('ignore', 'There is no current event loop', DeprecationWarning)
        return IOLoop.current()


async def _finished(result: Any) -> Any:
    return await result
