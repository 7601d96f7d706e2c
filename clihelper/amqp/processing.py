"""Processes one message at a time: decode, handle, settle.

::

    delivered --> handled --> outcome --> acknowledged | requeued
                                 |
                                 '--> a copy is published: for the next run, as a dead letter
                                          | confirmed             | not confirmed yet   | refused
                                          v                       v                     v
                                     acknowledged         published again later   kept here

Whatever goes wrong when a message is read, decoded, copied, encoded or refused is a failure of
that message only; :meth:`Processor.handle` is the one place that ensures this.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from zlib import crc32

from clihelper.amqp import exception_text, settlement
from clihelper.amqp.connection import Lost
from clihelper.amqp.encoding import encode
from clihelper.amqp.escaping import escaped
from clihelper.amqp.frames import HeadersTooLarge
from clihelper.amqp.gates import Gates
from clihelper.amqp.message import PERSISTENT, Message, decode, settle_at_once
from clihelper.amqp.poison import PoisonGuard
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.publisher import PublishError
from clihelper.amqp.retries import LocalRetries, RetryQueues
from clihelper.amqp.settlement import Outcome, Retry
from clihelper.backoff import uniformly
from clihelper.errors import StopNow, UnavailableError, counted
from clihelper.process.signals import Interrupted
from clihelper.process.statistics import FAST, NOT_COUNTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Any, NoReturn, Protocol

    from clihelper.amqp.acknowledgement import Acknowledger, ConcurrentAcknowledger
    from clihelper.amqp.connection import Connection
    from clihelper.amqp.forwarder import Forwarder
    from clihelper.amqp.handlers import Handlers
    from clihelper.amqp.topology import Topology
    from clihelper.config import Config
    from clihelper.process.scoreboard import Slot
    from clihelper.process.statistics import ProcessStatistics

    class ProcessorFactory(Protocol):
        """A subclass of :class:`Processor`, or what makes one."""

        def __call__(
            self, host: Any, connection: Connection, topology: Topology, forwarder: Forwarder
        ) -> Processor: ...

    class Host(Protocol):
        """The life cycle, as far as this module uses it."""

        config: Config

        @property
        def statistics(self) -> ProcessStatistics: ...
        @property
        def appname(self) -> str: ...
        @property
        def slot(self) -> Slot | None: ...
        @property
        def on_message(self) -> Callable[[Any, Any], Any]: ...
        @property
        def on_messages(self) -> Callable[[Any], Any]: ...
        @property
        def handlers(self) -> Handlers | None: ...
        def handler(self, name: str) -> Callable[[Any, Any], Any]: ...
        def retire(self) -> None: ...

LOGGER = logging.getLogger('clihelper.amqp')

ACK = Outcome.ACK  # needed twice for each message; looking a member up in its class is slow

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""seconds, at most, until a copy that the broker has not confirmed is published again; doubled
each time"""

FATAL = 1.5
"""how many times more often than others a message is returned before it is renewed, if it has
killed too many processes"""

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Processor:
    """Handles messages and settles them.

    :param host: the life cycle, which calls the handler.
    :param connection: the connection that delivers messages.
    :param topology: says to which queues copies are published.
    :param forwarder: publishes the copies.
    :param retry_queues: makes what knows the queues in which messages wait for their next run.
    :ivar gates: which queues are consumed now, and which message may be handled.
    :ivar current: the message that is being handled, or None.
    :ivar float ended: when the last handler ended, by the monotonic clock.
    :ivar int most: the number of messages that are handled at a time.
    :ivar bool is_concurrent: whether each message that arrives is to be :meth:`delivered`.
    :ivar message_class: what a delivery becomes.
    :ivar str hook: the name of the handler, for the log.
    """

    most = 1
    is_concurrent = False
    message_class: type[Message] = Message
    hook = 'on_message'
    guard_class: type[PoisonGuard] = PoisonGuard

    def __init__(
        self,
        host: Host,
        connection: Connection,
        topology: Topology,
        forwarder: Forwarder,
        retry_queues: Callable[[Topology, Mapping[str, Any]], RetryQueues] = RetryQueues,
    ) -> None:
        self._host = host
        section = host.config.amqp
        self._retry: Mapping[str, Any] = section['retry']
        self._accept: Collection[str] = section['accept']
        self._max_body: int = section['max_body']
        self._connection = connection
        self._topology = topology
        self._forwarder = forwarder
        self._retry_queues = retry_queues(topology, section['retry'])
        self._record = self.guard_class(host.slot, section) if host.slot is not None else None
        self._postponed = LocalRetries()
        self._acknowledger: Acknowledger | ConcurrentAcknowledger | None = None
        self._round = 0
        # What handlers, or their threads, have settled and handle() has not processed yet.
        self._settled_by_handler: dict[Message, Outcome] = {}
        self._to_return: set[Message] = set()  # those of them that handle() publishes anew
        self._unconfirmed: set[Message] = set()  # their copies may still be refused
        self._lock = threading.Lock()
        self._forks = _forks
        handlers = host.handlers
        self._handlers: Handlers | None = None
        if handlers is not None and not handlers.is_plain:
            self._handlers = handlers.within(topology.partitions)
        self._statistics = host.statistics
        self.gates = gates = Gates(host.statistics.flow, topology, section)
        gates.keep, gates.give_back, gates.do_later = self._keep, self.give_back, self.do_later
        self._since = host.statistics.since
        self._queue = ''
        self._figures = NOT_COUNTED
        self.current: Message | None = None
        self.ended = 0.0

    @property
    def least_prefetch(self) -> int:
        """The number of messages that the broker has to send ahead at least."""
        return self.most

    # One connection after another.

    def begin(self, channel: Any, prefetch: int) -> None:
        """Begin with the messages of a new *channel*.

        :param prefetch: the number of messages that the broker sends ahead.
        """
        self._acknowledger = self._connection.transport.acknowledger(channel, prefetch)

    def reset(self) -> None:
        """Forget the messages of a lost connection: they can no longer be settled."""
        self._round += 1
        self._settled_by_handler.clear()
        self._unconfirmed.clear()
        self._to_return.clear()
        self._postponed.clear()
        self._retry_queues.reset()
        self._acknowledger = None
        self.gates.disconnect()
        self.end_message()

    def description(self, prefetched: int) -> str:
        """The current message and the numbers of unsettled messages. Any thread may call this.

        :param prefetched: the number of messages that have arrived and are not being handled yet.
        """
        message = self.current
        held = pending = 0
        if self._acknowledger is not None:
            held, pending = self._acknowledger.held, self._acknowledger.pending
        current = 'no message' if message is None else f'a message from {message}'
        unacknowledged = prefetched + held + pending + (message is not None)
        return (f'handling {current}; prefetched {prefetched}, held {held},'
                f' unacknowledged {unacknowledged}')

    @property
    def lowest_unsettled(self) -> int:
        """The delivery tag below which all messages are settled."""
        return 0 if self._acknowledger is None else self._acknowledger.lowest_unsettled

    # One message.

    def delivered(self, message: Message) -> None:
        """Note a message that has arrived; called where several are handled at a time."""

    def units(self, messages: Iterable[Message]) -> Iterator[Any]:
        """What is to be run one after the other if no more messages than these arrive."""
        yield from messages

    def handle(self, message: Message) -> None:
        """Run the handler, then settle the message. Failures affect this message only.

        :raises Lost: the connection is lost.
        """
        record = self._record
        if message.redelivered and record is not None and self._is_fatal(message, record):
            return
        error: BaseException | None = None
        reply = None
        if message.queue is not self._queue:
            self._count_queue(message.queue)
        self.current = message
        self._since[0] = began = time.monotonic()
        try:
            if record is not None:
                record.note(crc32(message.raw, record.seeds[message.queue]))
            if self._handlers is None:
                body = decode(message, self._accept, self._max_body)
                answer = self._host.on_message(body, message)
            else:
                answer = self._call_handler(self._handlers, message)
            if answer is not None:
                reply = make_reply(message, answer)
        except (StopNow, Interrupted) as stop:
            self._abandon(stop)
            raise
        except BaseException as failure:
            error = failure
        finally:
            self.current = None
        self.ended = ended = time.monotonic()
        figures, seconds = self._figures, ended - began
        try:
            figures.histogram[FAST[int(seconds * 1e6)]] += 1
            figures.seconds += seconds
        except IndexError:
            figures.run(seconds)
        self._finish(message, error, reply)

    def _call_handler(self, handlers: Handlers, message: Message) -> Any:
        """Call the handler that a message is for, with the body that its annotation names."""
        handler = handlers.find(message)
        body = decode(message, self._accept, self._max_body, None, handler.body)
        return self._host.handler(handler.name)(body, message)

    def _abandon(self, stop: BaseException) -> None:
        """Leave the current message as it is, because the program stops at once."""
        self._end_if_forked(stop)
        self.end_message()

    def _count_queue(self, queue: str) -> None:
        """Count the messages of another queue than before."""
        self._figures.write()
        self._queue = queue
        self._figures = self._statistics.queues[queue]
        self._statistics.set_queue(self._figures)

    def _finish(self, message: Message, error: BaseException | None, reply: Reply | None) -> None:
        """Settle a message whose handler has returned or raised."""
        record = self._record
        if _forks != self._forks:
            self._end_if_forked(error)
        if record is not None and record.timed:
            record.end_message()  # settling takes the broker's time, not the handler's
        outcome = message.outcome
        if outcome is None:
            message.outcome = ACK
        if self._settled_by_handler:
            outcome = self._pop_settled(message) or outcome
        if outcome is None and error is None and reply is None:
            self._acknowledge(message)
        else:
            self._conclude(message, outcome, error, reply)
        if record is not None:
            slot = record.slot
            slot.handled += 1
            if record.suspect or slot.handled >= slot.limit:
                self._after_settling(message, record)

    def _conclude(
        self,
        message: Message,
        outcome: Outcome | None,
        error: BaseException | None,
        reply: Reply | None,
    ) -> None:
        """Settle a message that has failed, or that has a reply.

        :param outcome: the outcome if the handler itself has settled it.
        """
        if outcome is None:
            self._settle(message, error, reply)
            return
        self._count(message, outcome)
        if error is not None:
            self._statistics.queues[message.queue].count('failed')
            LOGGER.error(
                'on_message failed after a message from %s was %s',
                message,
                outcome.value,
                exc_info=exception_text.loggable(error),
            )
        if message in self._to_return:
            self._to_return.discard(message)
            self._attempt(message, self._return_anew, message)

    def _end_if_forked(self, error: BaseException | None) -> None:
        """End a process that the handler has forked: the message belongs to its parent."""
        if _forks != self._forks:
            end_child(error)

    def _settle(
        self, message: Message, error: BaseException | None, reply: Reply | None
    ) -> None:
        """Settle a message that has failed, or that has a reply."""
        if error is not None:
            self._attempt(message, self._fail, message, error)
        elif reply is not None:
            self._attempt(message, self._send_reply, message, reply)

    def _attempt(self, message: Message, settle: Callable[..., None], *arguments: Any) -> None:
        """Call *settle*. What it raises is a failure of this message, too."""
        try:
            settle(*arguments)
        except (Lost, StopNow, Interrupted):
            raise
        except BaseException as failure:
            self._leave(message, failure)

    def _fail(self, message: Message, error: BaseException) -> None:
        """Act on the outcome of a message that has failed."""
        outcome = settlement.judge(error, message.attempts, self._retry['attempts'])
        was_tried = self.gates.is_tried(message)
        if outcome is not Outcome.REQUEUE or exception_text.is_a(error, settlement.Pause):
            # Where its queue is not consumed any more, the failure is not the message's.
            outcome = Outcome.REQUEUE if self.gates.failed(message, error) else outcome
        if outcome is not Outcome.REQUEUE:
            try:
                message.check()
            except InvalidProperties as invalid:
                if settlement.reason(error) == 'exception':
                    LOGGER.warning('on_message failed for a message from %s', message,
                                   exc_info=exception_text.loggable(error))  # fmt: skip
                error, outcome = invalid, Outcome.DEAD_LETTER
        message.outcome = outcome
        self._note_failure(message, error, outcome)
        if outcome is Outcome.REQUEUE:
            # Another one is tried the next time: it may be the message after all.
            is_pause = exception_text.is_a(error, settlement.Pause)
            self._requeue(message, at_end=was_tried and not is_pause)
        elif outcome is Outcome.RETRY:
            delay = settlement.delay(error, message.attempts, self._retry)
            self._retry_later(message, error, delay)
        else:
            self._dead_letter(message, error)

    def _note_failure(self, message: Message, error: BaseException, outcome: Outcome) -> None:
        """Note for whoever asks what has failed, and what becomes of it."""
        self._count(message, outcome)
        if exception_text.is_a(error, settlement.UNRUN):
            return
        if outcome is not Outcome.REQUEUE:
            self._statistics.queues[message.queue].count('failed')
        text = exception_text.text(error)[: exception_text.SHOWN]
        self._statistics.tell(last_error={
            'time': time.time(), 'message': escaped(str(message)), 'outcome': outcome.value,
            'error': f'{exception_text.name(error)}: {escaped(text)}',
        })

    def _count(self, message: Message, outcome: Outcome) -> None:
        if outcome is not ACK:
            self._statistics.queues[message.queue].count(outcome.name.lower())

    def _requeue(self, message: Message, *, at_end: bool = False) -> None:
        """Return the message to its queue, or a copy to the retry queue of its stream."""
        if not self._topology.is_stream(message.queue):
            if at_end or self._is_near_limit(message):
                self._return_anew(message)
            else:
                self._settle_by_itself(message, Outcome.REQUEUE)
            return
        queue = self._topology.return_queue(message.queue)
        self._copy(message, queue, [message.renewal()], partial(self._hold, message, 0.0))

    def _return_anew(self, message: Message) -> None:
        """Publish it anew instead of returning it, as that may have it dropped. It is run again by
        this process if the broker does not take it, as a full queue does not."""
        current = self._round
        self._keep(message)

        def run_again() -> None:
            message.outcome = None
            self._run_again(message)

        def on_settled(failure: PublishError | None) -> None:
            if current != self._round:
                return
            if failure is None:
                self._acknowledge(message)
                self.flush()
                _log_renewed([message])
            else:
                _log_not_renewed(message, failure)
                self._postponed.put(run_again, FIRST_PAUSE)

        queue = self._topology.return_queue(message.queue)
        self._forwarder.submit_all([(message.raw, queue, message.renewal(), on_settled)])

    def _retry_later(self, message: Message, error: BaseException, seconds: float) -> None:
        """Have the message run again after *seconds*."""
        LOGGER.warning(
            'a message from %s failed in run %d of %d and will run again in %g s',
            message,
            message.attempts,
            self._retry['attempts'],
            seconds,
            exc_info=None if exception_text.is_a(error, Retry) else exception_text.loggable(error),
        )
        self._move_to_retry_queue(message, seconds)

    def _move_to_retry_queue(self, message: Message, seconds: float) -> None:
        """Publish a copy to the queue from which it comes back after *seconds*."""
        found = self._retry_queue(message, seconds)
        if found is None:
            self._hold(message, seconds)
            return
        queue, pause = found
        if pause > 0:
            self._keep(message)
            move = partial(self._attempt, message, self._move_to_retry_queue, message, seconds)
            self._postponed.put(move, pause)
            return
        headers = settlement.run_headers(message.attempts, message.origin)
        hold = partial(self._hold, message, seconds)
        self._copy(message, queue, [message.copy(headers)], hold)

    def _retry_queue(self, message: Message, seconds: float) -> tuple[str, float] | None:
        """The queue in which a copy waits for its run, and the seconds until it may be published.

        None: there is no such queue.
        """
        if not self._connection.expires:
            return None
        if seconds <= 0:
            return self._topology.return_queue(message.queue), 0.0
        try:
            return self._retry_queues.queue(self._connection, message.queue, seconds)
        except UnavailableError as refused:
            LOGGER.error('%s; the message waits in this process', refused)
            return None

    def _hold(
        self, message: Message, seconds: float, failure: PublishError | None = None
    ) -> None:
        """Keep the message in this process, and run it again after *seconds*."""
        if failure is not None:
            LOGGER.warning('the copy of a message from %s for its next run was refused; the'
                           ' message waits in this process: %s', message, failure)  # fmt: skip
        self._keep(message)
        message.run_again()
        self._postponed.put(partial(self._run_again, message), seconds)

    def _run_again(self, message: Message) -> None:
        """Run a message that was kept, now that its next run is due."""
        if self.gates.admit(message):
            self.handle_admitted(message)

    def handle_admitted(self, message: Message) -> None:
        """Run a message; note that if it was to show whether its queue can be consumed."""
        self.handle(message)
        if self.gates.trying:
            self.gates.ended(message)

    def give_back(self, message: Message) -> None:
        """Return a message that was not run to its queue."""
        self._settle_by_itself(message, Outcome.REQUEUE)

    def collected(self, queues: Collection[str]) -> list[Message]:
        """Take back messages of *queues* that were collected to be handled together."""
        return []

    def _dead_letter(self, message: Message, error: BaseException) -> None:
        """Dead-letter the message, or drop it if there is no queue for dead letters."""
        queue = self._topology.dead_letters_of(message.queue)
        word = settlement.reason(error)
        shown = escaped(exception_text.text(error)[: exception_text.SHOWN])
        LOGGER.error(
            'dead-lettered a message from %s: %s: %s' if queue
            else 'dropped a message from %s, as AMQP.dead_letter is false: %s: %s',
            message, word, shown or exception_text.name(error),
            exc_info=exception_text.loggable(error) if word == 'exception' else None,
        )  # fmt: skip
        if queue is None:
            self._settle_by_itself(message, Outcome.DEAD_LETTER)
            return
        runs = message.attempts - exception_text.is_a(error, settlement.UNRUN)
        if message.is_cut:
            self._reject_refused(message, PublishError('its body is too large to be copied'))
            return
        name = self._topology.lasting_name(message.queue)
        self._statistics.count_dead_letter(
            message.queue, word, exception_text.name(error) if word == 'exception' else '')
        ran = settlement.run_headers(runs, message.origin)
        full = settlement.dead_letter_headers(error, name, self._host.appname)
        short = settlement.shortest_dead_letter_headers(error, name)
        copies = [
            message.copy(full | ran),
            message.copy(short),
            message.copy(full | ran, own_headers=False),
        ]
        self._copy(message, queue, copies, partial(self._reject_refused, message))

    def _reject_refused(self, message: Message, failure: PublishError) -> None:
        """Reject a message whose dead letter is refused: its dead-letter exchange gets it."""
        if not self._topology.has_dead_letter_exchange(message.queue):
            self._leave(message, failure)
            return
        LOGGER.error(
            'the dead letter of a message from %s was refused; the message goes to the'
            ' dead-letter exchange of its queue: %s', message, failure,
        )  # fmt: skip
        self._settle_by_itself(message, Outcome.DEAD_LETTER)

    def _leave(self, message: Message, failure: BaseException) -> None:
        """Leave the message unsettled: nothing can be done with it. Other messages go on."""
        self._keep(message)
        LOGGER.error(
            'a message from %s can be neither handled nor dead-lettered, and stays in its queue,'
            ' unacknowledged: %s',
            message,
            exception_text.text(failure)[: exception_text.SHOWN],
            exc_info=None
            if exception_text.is_a(failure, PublishError)
            else exception_text.loggable(failure),
        )

    def _send_reply(self, message: Message, reply: Reply) -> None:
        """Publish what the handler returned, then acknowledge the message."""
        body, reply_to, properties = reply

        def no_queue(failure: PublishError) -> None:
            LOGGER.warning(
                'the reply to a message from %s has nowhere to go: %s', message, failure)
            self._acknowledge(message)

        refused = partial(self._fail, message)
        self._publish(_Copy(message, body, reply_to, [properties], refused, no_queue))

    # Copies

    def _copy(
        self,
        message: Message,
        queue: str,
        properties: list[Any],
        on_refused: Callable[[PublishError], None],
    ) -> None:
        """Publish the message to *queue*, and acknowledge it only when the broker confirms that.

        :param properties: alternatives for its properties, each shorter than the one before.
        :param on_refused: called if the broker refuses it permanently.
        """

        def no_queue(failure: PublishError) -> None:
            # The connection is opened again, so that the queue is declared again.
            raise Lost(f'the message was not moved to {queue}: {failure}') from failure

        self._publish(_Copy(message, message.raw, queue, properties, on_refused, no_queue))

    def _publish(self, copy: _Copy) -> None:
        if copy.round is None:
            copy.round = self._round
        while True:
            try:
                self._forwarder.submit(
                    copy.body, copy.queue, copy.properties[0],
                    partial(self._on_published, copy),
                )  # fmt: skip
                break
            except HeadersTooLarge as error:
                if len(copy.properties) == 1:
                    copy.on_refused(PublishError(str(error), refused=True))
                    return
                del copy.properties[0]
        if not copy.done:
            self._keep(copy.message)
            self._unconfirmed.add(copy.message)

    def _on_published(self, copy: _Copy, failure: PublishError | None) -> None:
        if copy.round != self._round:
            return  # its original will be redelivered
        message = copy.message
        if failure is None:
            copy.done = True
            self._acknowledge(message)
            self.flush()  # if the next message kills this process, this one must not come again
            if message in self._unconfirmed:
                self._unconfirmed.discard(message)
                if self._record is not None:
                    self._record.forget(message)
        elif failure.unroutable:
            copy.done = True
            copy.on_unroutable(failure)
        elif failure.refused:
            copy.done = True
            self._attempt(message, copy.on_refused, failure)
        else:
            if not copy.pause:
                LOGGER.warning('the broker has not taken the copy of a message from %s, which is'
                               ' published again later: %s', message, failure)  # fmt: skip
            copy.pause = min(max(2 * copy.pause, FIRST_PAUSE), LONGEST_PAUSE)
            publish = partial(self._attempt, message, self._publish, copy)
            # Not all at once: a queue that was full may have room for only a few at a time.
            self._postponed.put(publish, uniformly(copy.pause / 2, copy.pause))

    def forget(self) -> None:
        """Forget all unsettled messages, including the current one: they will be redelivered."""
        self._round += 1
        self._to_return.clear()
        self._postponed.clear()
        self.gates.forget()
        if self.current is not None:
            self.current.outcome = Outcome.REQUEUE

    # What is done later.

    @property
    def due(self) -> float:
        """When :meth:`do_next` should be called, by the monotonic clock."""
        return self._postponed.due

    def do_next(self) -> None:
        """Do the next thing that is due."""
        self._postponed.take()()

    def do_later(self, action: Callable[[], None], seconds: float) -> None:
        """Have *action* called after *seconds*, unless the connection is lost before."""
        self._postponed.put(action, seconds)

    # Returned too often.

    def near_limit(self, messages: Iterable[Message]) -> list[Message]:
        """The messages that were returned so often that their queues may drop them soon.

        One that has killed too many processes is to be dead-lettered, and not to be run once more,
        as its renewal would be. But it must not be dropped if that fails again and again.
        """
        return [
            message
            for message in messages
            if self._is_near_limit(message)
            and (
                self._record is None
                or not self._record.is_fatal(message)
                or self._is_near_limit(message, FATAL)
            )
        ]

    def _is_near_limit(self, message: Message, factor: float = 1.0) -> bool:
        threshold = self._topology.renewal_threshold(message.queue) * factor
        return message.returns >= threshold and not message.is_cut

    def renew(self, deliveries: deque[Message], near: list[Message]) -> None:
        """Republish messages at the end of their queues, so that the broker counts from 0 again.

        A message that cannot be published stays among the *deliveries*.
        """
        for message in near:
            deliveries.remove(message)
            self._keep(message)  # earlier and later messages are acknowledged without it
        current = self._round
        renewed: list[Message] = []

        def on_settled(message: Message, failure: PublishError | None) -> None:
            if current != self._round:
                return
            if failure is None:
                renewed.append(message)
                message.outcome = ACK
                self._acknowledge(message)
            else:
                _log_not_renewed(message, failure)
                deliveries.appendleft(message)

        self._forwarder.submit_all([
            (message.raw, self._topology.return_queue(message.queue), message.renewal(),
             partial(on_settled, message))
            for message in near
        ])  # fmt: skip
        self.flush()
        if renewed:
            _log_renewed(renewed)

    # Deaths of processes.

    def _is_fatal(self, message: Message, record: PoisonGuard) -> bool:
        """Whether a message has killed so many processes that it is settled without a run."""
        error = record.look_up(message)
        if record.suspect:
            self.flush()  # if this message kills the process, earlier ones must not come again
        if error is None:
            return False
        message.outcome = Outcome.DEAD_LETTER
        self._statistics.queues[message.queue].count('unrun')
        self._settle(message, error, None)
        self._after_settling(message, record)
        return True

    def _after_settling(self, message: Message, record: PoisonGuard) -> None:
        """Do what is rarely necessary after a message has been settled."""
        is_settled = message.outcome is not Outcome.REQUEUE and message not in self._unconfirmed
        if record.suspect and is_settled:
            self.flush()  # before its deaths are forgotten: it must not come again
            record.settled()
        record.suspect = 0
        slot = record.slot
        if slot.handled < slot.limit:
            return
        if slot.is_needed:
            slot.limit *= 1.1
            LOGGER.info('Daemon.max_messages is reached, and no other process can be started')
        else:
            LOGGER.info('Daemon.max_messages is reached: another process takes over')
            self._host.retire()

    def end_message(self) -> None:
        """Note that no message would be to blame if the process died now."""
        self._since[0] = 0.0
        if self._record is not None:
            self._record.end_message()

    # Settling

    def _acknowledge(self, message: Message) -> None:
        if self._acknowledger is None:
            with self._connection.guard():
                message.delivery.ack()
            return
        tag = message.delivery.delivery_tag
        add = self._acknowledger.add_kept if message.kept else self._acknowledger.add
        if add(tag):
            self.flush()

    def _settle_by_itself(self, message: Message, outcome: Outcome) -> None:
        with self._connection.guard():
            settle_at_once(message.delivery, outcome)
        if message.kept and self._acknowledger is not None:
            self._acknowledger.release(message.delivery.delivery_tag)

    def _keep(self, message: Message) -> None:
        """Keep the message unsettled while later ones are acknowledged."""
        if not message.kept and self._acknowledger is not None:
            message.kept = True
            self._acknowledger.keep(message.delivery.delivery_tag)

    def settle_as_told(self, message: Message, outcome: Outcome) -> None:
        """Settle the message once, as the handler itself requests, in any thread."""
        with self._lock:
            if message in self._settled_by_handler:
                return
            # handle() uses the opposite order: at least one of the two sees what the other did,
            # so that handling an ordinary message does not need a lock.
            self._settled_by_handler[message] = outcome
            if message.outcome is not None:
                del self._settled_by_handler[message]
                return
            message.outcome = outcome
            if outcome is Outcome.REQUEUE and self._returns_later(message):
                self._to_return.add(message)
                return
            # handle() waits for this: otherwise an acknowledgement could include this message.
            try:
                self._settle_by_itself(message, outcome)
            except Lost as lost:
                LOGGER.warning('a message from %s was not %s: %s; it will be delivered again',
                               message, outcome.value, lost)  # fmt: skip

    def _returns_later(self, message: Message) -> bool:
        """Whether a message that its handler requeues is returned only when the handler ends."""
        return self._is_near_limit(message)

    def _pop_settled(self, message: Message) -> Outcome | None:
        """The outcome if the handler itself has settled the message, otherwise None."""
        with self._lock:
            return self._settled_by_handler.pop(message, None)

    def flush(self) -> None:
        """Send the acknowledgements that are pending."""
        self._figures.write()
        self._statistics.sample()
        if self._acknowledger is not None:
            with self._connection.guard():
                self._acknowledger.flush()


def _log_renewed(messages: list[Message]) -> None:
    LOGGER.info(
        'published %s anew, which the queue might have dropped at the next return',
        'a message' if len(messages) == 1 else f'{len(messages)} messages',
    )
    for message in messages:
        LOGGER.debug('published anew: a message from %s', message)


def _log_not_renewed(message: Message, failure: PublishError) -> None:
    LOGGER.warning(
        'a message from %s was returned to its queue %s, and could not be published anew: %s',
        message, counted(message.returns, 'time'), failure,
    )  # fmt: skip


Reply = tuple[bytes, str, dict[str, 'Any']]
"""what a handler has returned, in the form to publish: body, queue, properties"""


class _Copy:
    """A copy, dead letter or reply to publish for a message, until the broker confirms it.

    :ivar properties: alternatives for its properties; the first is tried first.
    :ivar pause: seconds between the last attempt and the next.
    :ivar round: the number of the connection that delivered the message.
    """

    def __init__(
        self,
        message: Message,
        body: bytes,
        queue: str,
        properties: list[Any],
        on_refused: Callable[[PublishError], None],
        on_unroutable: Callable[[PublishError], None],
    ) -> None:
        self.message = message
        self.body = body
        self.queue = queue
        self.properties = properties
        self.on_refused = on_refused
        self.on_unroutable = on_unroutable
        self.pause = 0.0
        self.done = False
        self.round: int | None = None


def make_reply(message: Message, answer: Any) -> Reply | None:
    """What a handler has returned, in the form to publish: body, queue, properties; None where
    the message has no ``reply_to``.

    :raises TypeError: it cannot be encoded, or stands for a handler that has not been run.
    """
    check_answer(answer)
    if not message.reply_to:
        return None
    body, content_type = encode(answer)
    properties: dict[str, Any] = {'content_type': content_type, 'delivery_mode': PERSISTENT}
    if message.correlation_id:
        properties['correlation_id'] = message.correlation_id
    if trace := message.trace:
        properties['headers'] = trace
    return body, message.reply_to, properties


def check_answer(answer: Any, hook: str = 'on_message') -> None:
    """Refuse what stands for a handler that has not been run.

    :param hook: the name of the handler.
    :raises TypeError: it is awaitable, or a generator.
    """
    if hasattr(type(answer), '__await__'):
        kind = 'an awaitable'
    elif isinstance(answer, GeneratorType | AsyncGeneratorType):
        kind = 'a generator'
    else:
        return
    if isinstance(answer, CoroutineType):
        answer.close()  # or Python would warn that it was never awaited
    raise TypeError(f'{hook} returned {kind}, which would never be run')


def end_child(error: BaseException | None) -> NoReturn:
    """End this process, which a handler has forked, in the way the interpreter would."""
    import sys

    status = 1
    try:
        if error is None or exception_text.is_a(error, SystemExit):
            status = _exit_status(error)
        else:
            LOGGER.error(
                'a process that on_message has forked failed',
                exc_info=exception_text.loggable(error),
            )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


def _exit_status(error: Any) -> int:
    """The exit status with which the interpreter would end for this error."""
    code = None if error is None else error.code
    if isinstance(code, int):
        return int(code) & 0xFF
    if code is not None:
        import sys

        print(code, file=sys.stderr)
    return int(code is not None)
