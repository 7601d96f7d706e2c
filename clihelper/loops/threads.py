"""The AMQP loop with handlers in threads, for handlers that block.

The threads run ``on_message`` and nothing else: the main thread reads, settles, publishes copies,
serves signals and runs all other hooks, as it does with one message at a time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from functools import partial
from queue import SimpleQueue

from clihelper.amqp.acknowledgement import LONGEST_WAIT
from clihelper.amqp.concurrency import ConcurrentProcessor
from clihelper.amqp.connection import Lost
from clihelper.amqp.ordering import OrderedConcurrentProcessor
from clihelper.loops import processor_class
from clihelper.loops.consumer import ConsumerLoop
from clihelper.process.signals import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from clihelper.loops import Host


class Pool:
    """Threads that each run one job after another.

    They do not keep the program from ending: a stop past its deadline abandons what they run.
    Whoever waits for results is woken up only now and then while there are more jobs, since waking
    it up costs more than a job.

    :param run: runs a job in a thread, and returns its result. It raises nothing.
    :param is_urgent: whether a result has to be taken at once.
    :param count: the number of threads.
    :ivar running: when the job of each thread began, by the monotonic clock.
    """

    def __init__(
        self, run: Callable[[Any], Any], is_urgent: Callable[[Any], bool], count: int
    ) -> None:
        self._run = run
        self._is_urgent = is_urgent
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._done: deque[Any] = deque()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._serving = count
        self.running: dict[int, float] = {}
        for number in range(1, count + 1):
            threading.Thread(
                target=self._serve, args=(number,), name=f'handler {number}', daemon=True).start()

    def fileno(self) -> int:
        """Return the descriptor that is readable when results should be taken."""
        return self._wakeup

    def submit(self, job: Any) -> None:
        """Have a thread run *job*."""
        self._jobs.put(job)

    def results(self) -> Iterator[Any]:
        """Yield the results of the jobs that have ended."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while self._done:
            yield self._done.popleft()

    def close(self) -> None:
        """Let each thread end after its job."""
        self._jobs.put(None)

    def _serve(self, number: int) -> None:
        jobs, done, running = self._jobs, self._done, self.running
        while (job := jobs.get()) is not None:
            running[number] = time.monotonic()
            result = self._run(job)
            del running[number]
            done.append(result)
            if jobs.empty() or self._is_urgent(result):
                os.eventfd_write(self._wakeup, 1)
        # They end one after another, and the last one closes what all of them write to.
        self._serving -= 1
        if self._serving:
            jobs.put(None)
        else:
            os.close(self._wakeup)


class ThreadedConsumerLoop(ConsumerLoop):
    """Consumes every queue of the ``AMQP`` section; handlers run in ``AMQP.threads`` threads."""

    def __init__(self, host: Host) -> None:
        self._pool: Pool | None = None
        super().__init__(host)
        self._processor: ConcurrentProcessor

    def make_processor(self) -> Any:
        threads = self._host.config.amqp['threads']
        if self._host.handles_batches:
            from clihelper.amqp.batch_processing import BatchProcessor

            return partial(processor_class(BatchProcessor, self._section), most=threads)
        in_order = self._host.order_key is not None
        processor = OrderedConcurrentProcessor if in_order else ConcurrentProcessor
        return partial(processor_class(processor, self._section), most=threads, ahead=True)

    def run(self) -> None:
        self._pool = Pool(self._execute, self._is_urgent, self._processor.most)
        self._wakeups = (self._pool.fileno(),)
        super().run()
        while self._processor.in_hand:
            # The connection is lost, and so is what they return; but they are not cut short.
            wait_readable((self._pool.fileno(), self._host.signals.fileno()), LONGEST_WAIT)
            self._host.serve_signals()
            self._end_handlers()

    def has_work(self) -> bool:
        return self.goes_on() or bool(self._processor.in_hand)

    def _do_next(self) -> None:
        self._end_handlers()
        if self.goes_on():
            self._start_handlers()
            self._processor.note_in_hand()
            super()._do_next()
        elif self._processor.in_hand:
            self._rest()

    def _rest(self) -> None:
        # While handlers run, acknowledgements wait a moment for each other.
        processor = self._processor
        if not processor.in_hand or processor.flush_due <= time.monotonic():
            processor.flush()
            processor.end_message()
        if not self._connection.drain():
            self._wait()

    @property
    def _due(self) -> float:
        due = super()._due if self.goes_on() else self._watchdog_due
        if self._processor.in_hand:
            due = min(due, time.monotonic() + LONGEST_WAIT)
        return min(due, self._processor.flush_due, self._processor.start_due)

    def _has_message(self) -> bool:
        return False  # it is being handled already, or has to wait for a thread

    def _start_handlers(self) -> None:
        """Start handlers for what is here, as far as there are threads."""
        assert self._pool is not None
        if self._subscription.returned:
            self._renew()
        processor = self._processor
        while (message := processor.next_message(self._deliveries)) is not None:
            processor.start(message)
            self._note_oldest()
            self._pool.submit(message)

    def _execute(self, message: Any) -> tuple[Any, ...]:
        """Run a handler, in a thread, unless a stop, a pause or a lost connection was first."""
        processor = self._processor
        if (not self.goes_on() or processor.is_lost(message)
                or processor.gates.is_closed(message.queue)):
            return (message,)
        return message, *processor.execute(message)

    def _is_urgent(self, result: tuple[Any, ...]) -> bool:
        return result[1:] != (None, None) or not self.goes_on()

    def _end_handlers(self) -> None:
        assert self._pool is not None
        lost = None
        for message, *result in self._pool.results():
            try:
                if result:
                    self._processor.end(message, *result)
                elif self.goes_on() and not self._processor.is_lost(message):
                    self._processor.take_back(message)
                else:
                    self._processor.give_up(message)
            except Lost as error:
                lost = error
        self._note_oldest()
        if lost is not None:
            raise lost

    def _note_oldest(self) -> None:
        """Note since when the oldest handler has been running, for ``AMQP.handler_timeout``."""
        slot = self._host.slot
        if slot is None or self._host.config.amqp['handler_timeout'] is None:
            return
        assert self._pool is not None
        now = time.monotonic() if self._processor.in_hand else 0.0
        # A handler that starts now may never let this thread run again.
        slot.set_since(min(self._pool.running.copy().values(), default=now))

    def close(self) -> None:
        """Close the connections; threads that are still at work are abandoned."""
        super().close()
        if self._pool is not None:
            self._pool.close()
