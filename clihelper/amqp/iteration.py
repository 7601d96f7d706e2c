"""One queue, consumed for a loop of the program's own: message by message, as it asks for them.

::

    next() --> the message in hand is acknowledged --> waiting --> the next message | the end
    left   --> the message in hand has failed

Like a consumer, an iteration has a connection of its own, with heartbeats, and another one for
copies. One thread uses it; only in the main thread does it serve signals while it waits.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from contextlib import nullcontext
from math import inf
from zlib import crc32

from clihelper.amqp import context
from clihelper.amqp.client import publishing_connection
from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.declare_errors import DeclarationRefused
from clihelper.amqp.entities import Entities
from clihelper.amqp.forwarder import Forwarder
from clihelper.amqp.processing import Processor
from clihelper.amqp.settlement import Retry
from clihelper.amqp.subscription import Subscription
from clihelper.amqp.waiting import POLL, BrokerWait
from clihelper.config import Config
from clihelper.config.schema import LONGEST_NAME, QUEUE, is_short_string, name_fault
from clihelper.errors import Error, StopNow
from clihelper.process.signals import Interrupted, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.process.scoreboard import Slot
    from clihelper.process.statistics import ProcessStatistics

LOGGER = logging.getLogger('clihelper.amqp')


class Left(Retry):
    """A loop was left before it had acknowledged its message. That run has failed."""

    def __init__(self) -> None:
        super().__init__('the loop was left: by an exception, or without message.ack()')


class IterationProcessor(Processor):
    """Settles messages that the body of a loop handles.

    :ivar waiting: messages that were kept, and whose next run is due.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.waiting: deque[Message] = deque()

    def reset(self) -> None:
        self.waiting.clear()
        super().reset()

    def start(self, message: Message) -> bool:
        """Note that *message* is about to be handled.

        :returns: False if it must not be handled, and was settled.
        :raises Lost: the connection is lost.
        """
        record = self._record
        if message.redelivered and record is not None and self._is_fatal(message, record):
            return False
        if record is not None:
            record.note(crc32(message.raw, record.seeds[message.queue]))
        try:
            message.check_body(self._accept, self._max_body)
        except Exception as failure:
            self._statistics.queues[message.queue].run(0.0)
            self._finish(message, failure, None)
            return False
        self.current = message
        self._since[0] = message.began = time.monotonic()
        self.hold(message)
        return True

    def hold(self, message: Message) -> None:
        """Make a message the one that is being handled in this thread or task."""
        context.in_hand.set(message)

    def release(self) -> None:
        """Note that none is being handled in this thread or task."""
        context.in_hand.set(None)

    def end(self, message: Message, error: BaseException | None) -> None:
        """Settle a message that was handled.

        :param error: why that has failed, or None.
        :raises Lost: the connection is lost.
        """
        self.current = None
        self._since[0] = 0.0
        self.release()
        self._statistics.queues[message.queue].run(time.monotonic() - message.began)
        self._finish(message, error, None)
        if self.gates.trying:
            self.gates.ended(message)

    def give_up_record(self) -> None:
        """Accuse no message from now on: others may be handled beside those of this loop."""
        self.end_message()
        self._record = None

    def _run_again(self, message: Message) -> None:
        self.waiting.append(message)

    def _retry_queue(self, message: Message, seconds: float) -> tuple[str, float] | None:
        found = super()._retry_queue(message, seconds)
        # A message that waited in this process, for its run or for a retry queue that is too new,
        # would return uncounted: the loop ends now.
        if found is None or found[1] > 0:
            return self._topology.return_queue(message.queue), 0.0
        return found


class OneQueueHost:
    """The life cycle, as far as an iteration uses it, with a configuration of one queue.

    :param host: the life cycle.
    :param section: ``AMQP``.
    :param slot: where deaths are recorded, or None.
    """

    own_topology: tuple[Sequence[Any], Sequence[Any], str] = ((), (), '')

    def __init__(self, host: Any, section: dict[str, Any], slot: Slot | None) -> None:
        self.config = Config({**host.config, 'AMQP': section})
        self.appname: str = host.appname
        self.slot = slot
        self.retire = host.retire
        self.on_message: Any = None
        self.on_messages: Any = None
        self.handlers: Any = None
        self.handler: Any = None
        self.notifier: Any = self
        self.status = host.notifier.status
        self.worker: int = host.worker
        self.statistics: ProcessStatistics = host.statistics

    def extend_timeout(self, seconds: float) -> None:
        """Do nothing: whether the program is ready does not depend on an iteration."""


def section_for(
    queue: str, section: Mapping[str, Any], own: tuple[Sequence[Any], Sequence[Any], str]
) -> dict[str, Any]:
    """The ``AMQP`` section with one queue only: one of its own, or one that has to exist.

    :param own: the queues and exchanges of the program, and the name of its class.
    :raises LookupError: no queue can have that name.
    """
    if not queue or not is_short_string(queue):
        raise LookupError(f'there is no queue {queue[:LONGEST_NAME]!r}')
    entities = Entities(section, *own)
    if queue in entities.queues:
        # One that the program's own loop does not consume is consumed here.
        return {**section, 'exchanges': entities.exchanges,
                'queues': {queue: {**entities.queues[queue], 'consume': True}}}
    options = {**QUEUE.defaults(), 'name': queue, 'durable': True, 'exclusive': False,
               'declare': False}
    fault = name_fault(queue, options, section)
    if fault:
        raise LookupError(f'queue {queue[:LONGEST_NAME]!r}: {fault}')
    return {**section, 'exchanges': {}, 'queues': {queue: options}}


class Iteration:
    """The messages of one queue.

    :param host: the life cycle.
    :param queue: its key in ``AMQP.queues``, or the name of a queue that exists.
    :param section: ``AMQP`` with this queue only.
    :param timeout: seconds without a message after which it ends; None: never.
    :param slot: where to record which message is handled, or None.
    :param announces: whether to log at INFO what is consumed.
    :param reports: whether to report the broker's state as that of the process.
    :param processor_class: what settles the messages.
    :ivar wakeup: a further descriptor that ends waiting, when it is readable.
    :ivar on_closed: called when its connections were closed.
    :ivar bool has_ended: whether its connections are closed.
    """

    wakeup: int | None = None

    def __init__(
        self,
        host: Any,
        queue: str,
        section: dict[str, Any],
        timeout: float | None,
        slot: Slot | None,
        announces: bool,
        *,
        reports: bool,
        processor_class: type[IterationProcessor] = IterationProcessor,
    ) -> None:
        self._host = host
        self._queue = queue
        self._timeout = timeout
        self._announces = announces
        context.begin(host.worker)
        self._connection = connection = Connection.of(section, host.appname)
        connection.wait_for = BrokerWait(host.signals, lambda: host.is_running).wait
        self._forwarder = Forwarder(publishing_connection(host, polled=True))
        self._subscription = Subscription(
            OneQueueHost(host, section, slot), connection, self._forwarder,
            lambda *arguments: processor_class(*arguments), reports=reports)
        self._processor: IterationProcessor = self._subscription.processor  # type: ignore[assignment]
        self._in_hand: Message | None = None
        self._is_busy = self._is_over = False
        self._bell_lock = threading.Lock()
        self._bell = -1  # only in other threads than the main one
        self.has_ended = False
        self.on_closed: Callable[[], None] = lambda: None

    @property
    def is_running(self) -> bool:
        """Whether nothing has asked it to end."""
        return not self._is_over and self._host.is_running

    @property
    def in_hand(self) -> Message | None:
        """The message that is being handled; None also if that was settled explicitly."""
        message = self._in_hand
        return None if message is None or message.outcome is not None else message

    def hold(self, message: Message) -> None:
        """See :meth:`IterationProcessor.hold`; for a task that another thread takes it for."""
        self._processor.hold(message)

    def release(self) -> None:
        """See :meth:`IterationProcessor.release`."""
        self._processor.release()

    def give_up_record(self) -> None:
        """See :meth:`IterationProcessor.give_up_record`."""
        self._processor.give_up_record()

    def cancel(self) -> None:
        """Have :meth:`next` yield no more messages. Any thread may call this."""
        self._is_over = True

    def next(self) -> Message | None:
        """Acknowledge the message in hand, and wait for the next one.

        :returns: None at the end: there was a stop, or no message for so long.
        :raises LookupError: there is no such queue.
        :raises clihelper.errors.UnavailableError: the broker refuses.
        :raises ValueError: another thread, or a hook, calls it while it waits.
        """
        if self._is_busy:
            raise ValueError(f'the messages of {self._queue!r} are awaited already')
        self._is_busy = True
        try:
            with self._signals_held():
                message = self._in_hand = self._next()
        except BaseException:
            self._close()
            raise
        finally:
            self._is_busy = False
        if message is None:
            self._close()
        return message

    def end(self, error: BaseException | None, *, leaves_unsettled: bool = False) -> None:
        """Settle the message in hand, and end; prefetched messages return to the queue.

        :param error: why the message has failed; None: it is acknowledged.
        :param leaves_unsettled: whether the message returns to its queue instead, uncounted.
        """
        self._is_over = True
        if self._is_busy or self.has_ended or self._connection.is_foreign:
            return  # next() is waiting, and ends now; or this is a forked child
        if self.in_hand is None:
            error = None  # it was settled explicitly
        unsettled = leaves_unsettled or isinstance(error, (StopNow, Interrupted))
        with self._signals_held():
            if not unsettled:
                self._settle_last(error)
            self._close()

    def leave(self) -> None:
        """End where nobody says what has become of the message in hand: that run has failed.

        If the program stops, or the message was not handled yet, it is not counted.
        """
        if self.in_hand is None or not self.is_running:
            self.end(None, leaves_unsettled=self.in_hand is not None)
            return
        if not self._connection.is_foreign:
            LOGGER.warning(
                'a loop was left with a message from %s in hand; message.ack() acknowledges it,'
                ' and so does a `with` around the loop', self._in_hand,
            )  # fmt: skip
        self.end(Left())

    def description(self) -> str:
        """The broker, and the unsettled messages, for USR2."""
        return self._subscription.description()

    # The steps of next().

    def _signals_held(self) -> AbstractContextManager[None]:
        held: AbstractContextManager[None] = (
            self._host.signals.held() if _is_main_thread() else nullcontext())
        return held

    def _goes_on(self) -> bool:
        # What a signal means is known when it has been served: a hook may replace its effect.
        if self._host.signals.arrived and _is_main_thread():
            self._host.serve_signals()
        return self.is_running

    def _next(self) -> Message | None:
        until = inf if self._timeout is None else time.monotonic() + self._timeout
        try:
            self._settle_in_hand(None)
        except Lost as lost:
            self._lose(lost, until)
        while self._goes_on():
            try:
                if not self._connection.is_open:
                    self._connect()
                return self._take(until)
            except Interrupted:
                self._subscription.drop()
                self._host.serve_signals()
            except (Lost, Unreachable, Error) as error:
                self._check_queue(error)
                self._lose(error, until)
            if time.monotonic() >= until:
                break
        return None

    def _connect(self) -> None:
        """Connect, and consume the queue."""
        subscription, signals = self._subscription, self._host.signals
        with signals.interrupting() if _is_main_thread() else nullcontext():
            self._connection.open()
            subscription.subscribe()
        if self._announces or subscription.was_consuming:
            subscription.begin()
        else:
            self._connection.serves()
            subscription.was_consuming = True

    def _check_queue(self, error: Exception) -> None:
        """Check that the queue was not simply missing at the beginning.

        :raises LookupError: it was.
        """
        if self._subscription.was_consuming or not isinstance(error, DeclarationRefused):
            return
        if error.missing and str(error).startswith(f'AMQP.queues.{self._queue}:'):
            raise LookupError(f'there is no queue {self._queue!r}') from error

    def _lose(self, error: Exception, until: float) -> None:
        """Drop the connection, and wait before the next attempt."""
        self._subscription.drop()
        due = min(time.monotonic() + self._subscription.report_outage(error), until)
        while self._goes_on() and time.monotonic() < due:
            self._wait((), due)

    def _take(self, until: float) -> Message | None:
        """Wait for the next message; None if none has come by then."""
        processor, deliveries = self._processor, self._subscription.deliveries
        gates = processor.gates
        while self._goes_on():
            if gates.changes[0] != gates.seen:
                gates.look()
            if processor.due <= time.monotonic():
                processor.do_next()
                continue
            self._renew()
            while processor.waiting or deliveries:
                message = (processor.waiting or deliveries).popleft()
                if gates.must_ask and not gates.admit(message):
                    continue
                if processor.start(message):
                    self._become_active()
                    return message
            processor.flush()
            processor.end_message()
            if self._connection.drain():
                continue
            if time.monotonic() >= until:
                return None
            self._wait_for_work(until)
        return None

    def _renew(self) -> None:
        """Republish messages that the broker may drop the next time they are returned."""
        returned = self._subscription.returned
        if returned:
            near = self._processor.near_limit(returned)
            returned.clear()
            if near:
                self._processor.renew(self._subscription.deliveries, near)

    def _wait_for_work(self, until: float) -> None:
        """Wait until something has arrived, or is due."""
        due = min(until, self._processor.due)
        descriptors = []
        socket, publishing = self._connection.fileno(), self._forwarder.fileno()
        if socket is None:
            due = min(due, time.monotonic() + POLL)
        else:
            descriptors.append(socket)
        if publishing is not None:
            descriptors.append(publishing)
        if publishing in self._wait(tuple(descriptors), due):
            self._forwarder.poll()

    def _wait(self, descriptors: tuple[int, ...], due: float) -> list[int]:
        """Wait until one of the descriptors is readable, a signal arrives, or it is time.

        :returns: those that are readable.
        """
        host, main = self._host, _is_main_thread()
        pulse = None
        if main:
            host.sleeping()
            pulse = host.heartbeat()
        own = (host.signals.fileno(),) if main else (host.interrupt, self._hear_changes())
        others = (*own, *(() if self.wakeup is None else (self.wakeup,)))
        seconds = max(due - time.monotonic(), 0.0)
        if pulse is not None:
            seconds = min(seconds, pulse)
        ready = wait_readable((*descriptors, *others), None if seconds == inf else seconds)
        if main:
            host.serve_signals()
        elif self._bell in ready:
            os.eventfd_read(self._bell)
        return ready

    def _hear_changes(self) -> int:
        """The descriptor that is readable when the queue is paused, or is to go on."""
        if self._bell < 0:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._host.watchers.add(self._ring)
        return self._bell

    def _ring(self) -> None:
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _become_active(self) -> None:
        if _is_main_thread():
            self._host.active()

    # Settling.

    def _settle_in_hand(self, error: BaseException | None) -> None:
        message, self._in_hand = self._in_hand, None
        if message is not None:
            self._processor.end(message, error)

    def _settle_last(self, error: BaseException | None) -> None:
        """Settle the message in hand, as the connection is about to be closed."""
        try:
            self._settle_in_hand(error)
        except Lost as lost:
            LOGGER.warning('the last message from queue %s was not settled: %s; it will be'
                           ' delivered again', self._queue, lost)  # fmt: skip

    def _close(self) -> None:
        """Close the connections: what is unsettled returns to the queue."""
        self.has_ended = True
        self._in_hand = None
        if self._bell >= 0:
            self._host.watchers.discard(self._ring)
            with self._bell_lock:
                os.close(self._bell)
                self._bell = -1
        if not self._connection.is_foreign:
            self._subscription.close()
            self.on_closed()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
