"""The AMQP loop with handlers in threads, for handlers that block.

The threads run ``on_message`` and nothing else: the main thread reads, settles, publishes copies,
serves signals and runs all other hooks, as it does with one message at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from functools import partial
from queue import SimpleQueue

from clihelper.amqp.concurrency import ConcurrentProcessor
from clihelper.amqp.connection import Lost
from clihelper.loops.consumer import ConsumerLoop
from clihelper.process.signals import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from clihelper.amqp.message import Message
    from clihelper.loops import Host

    T = TypeVar('T')


class Pool:
    """Threads that each run one job after another.

    They do not keep the program from ending: a stop past its deadline abandons what they run.

    :param count: the number of threads.
    """

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._done: deque[Any] = deque()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._threads = [
            threading.Thread(target=self._run, name=f'handler {number}', daemon=True)
            for number in range(1, count + 1)
        ]
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        """Return the descriptor that is readable when a job has ended."""
        return self._wakeup

    def submit(self, job: Callable[[], Any]) -> None:
        """Have a thread call *job*, which raises nothing."""
        self._jobs.put(job)

    def results(self) -> Iterator[Any]:
        """Yield the results of the jobs that have ended."""
        try:
            os.eventfd_read(self._wakeup)
        except BlockingIOError:
            return
        while self._done:
            yield self._done.popleft()

    def close(self) -> None:
        """Let each thread end after its job."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._done.append(job())
            os.eventfd_write(self._wakeup, 1)


class ThreadedConsumerLoop(ConsumerLoop):
    """Consumes every queue of the ``AMQP`` section; handlers run in ``AMQP.threads`` threads."""

    def __init__(self, host: Host) -> None:
        self._pool: Pool | None = None
        super().__init__(host)
        self._processor: ConcurrentProcessor

    def make_processor(self) -> Any:
        return partial(ConcurrentProcessor, most=self._host.config.amqp['threads'])

    def run(self) -> None:
        self._pool = Pool(self._processor.most)
        self._wakeups = (self._pool.fileno(),)
        super().run()
        while self._processor.in_hand:
            # The connection is lost, and so is what they return; but they are not cut short.
            wait_readable((self._pool.fileno(), self._host.signals.fileno()), None)
            self._host.serve_signals()
            self._end_handlers()

    def has_work(self) -> bool:
        return self.goes_on() or bool(self._processor.in_hand)

    def _do_next(self) -> None:
        self._end_handlers()
        if self.goes_on():
            self._start_handlers()
            super()._do_next()
        elif self._processor.in_hand:
            self._processor.flush()
            if not self._connection.drain():
                self._wait()

    @property
    def _due(self) -> float:
        return super()._due if self.goes_on() else self._watchdog_due

    def _has_message(self) -> bool:
        return False  # it is being handled already, or has to wait for a thread

    def _start_handlers(self) -> None:
        """Start handlers for what is here, as far as there are threads."""
        assert self._pool is not None
        if self._subscription.returned:
            self._renew()
        processor = self._processor
        while (message := processor.next_message(self._deliveries)) is not None:
            processor.start(message, time.monotonic())
            self._pool.submit(partial(self._execute, message))
        self._note_oldest()

    def _note_oldest(self) -> None:
        """Note since when the oldest handler has been running, for ``AMQP.handler_timeout``."""
        slot = self._host.slot
        if slot is not None and self._host.config.amqp['handler_timeout'] is not None:
            slot.set_since(next(iter(self._processor.in_hand.values()), 0.0))

    def _execute(self, message: Message) -> tuple[Any, ...]:
        return message, *self._processor.execute(message)

    def _end_handlers(self) -> None:
        assert self._pool is not None
        lost = None
        for result in self._pool.results():
            try:
                self._processor.end(*result)
            except Lost as error:
                lost = error
        self._note_oldest()
        if lost is not None:
            raise lost

    def close(self) -> None:
        """Close the connections; threads that are still at work are abandoned."""
        super().close()
        if self._pool is not None:
            self._pool.close()
