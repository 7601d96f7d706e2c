"""Batches of messages: collected, handled by one call, and settled together.

::

    delivered --> collected --> in hand --> returned --> acknowledged together
                      ^            |
                      |            '--> raised --> one message: its own failure
                      '----- two halves <-- '----- several
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from math import inf

from clihelper.amqp import exception_text, settlement
from clihelper.amqp.batches import Batch, BatchedMessage, Collector
from clihelper.amqp.concurrency import ConcurrentProcessor
from clihelper.amqp.processing import ACK, check_answer
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.settlement import Outcome
from clihelper.config import schema
from clihelper.errors import StopNow, counted
from clihelper.process.signals import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.message import Message

LOGGER = logging.getLogger('clihelper.amqp')


def section_of(amqp: Mapping[str, Any]) -> Mapping[str, Any]:
    """``AMQP.batch``, with its defaults if it is not in the configuration."""
    batch: Mapping[str, Any] | None = amqp['batch']
    return schema.BATCH.defaults() if batch is None else batch


def batches_at_once(amqp: Mapping[str, Any]) -> int:
    """How many batches coroutines handle: by default as many as the prefetch has room for."""
    most: int = amqp['concurrency'] or max(amqp['prefetch'] // section_of(amqp)['size'], 1)
    return most


class BatchProcessor(ConcurrentProcessor):
    """Handles batches, one or several at a time; see :class:`ConcurrentProcessor` for arguments.

    What it starts, runs and ends is a :class:`~clihelper.amqp.batches.Batch`.
    """

    hook = 'on_messages'
    message_class = BatchedMessage
    is_concurrent = False  # what has arrived is noted when it is collected

    def __init__(self, host: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(host, *arguments, **options)
        batch = section_of(host.config.amqp)
        self._batches = Collector(batch['size'], batch['wait'])
        self._suspects: deque[Message] = deque()
        rest = None if self._handlers is None else self._handlers.rest
        self._body_type = None if rest is None else rest.body
        self._knows_replies = False

    @property
    def least_prefetch(self) -> int:
        """So many that the next batches are collected while others are handled."""
        return min(2 * self.most * self._batches.size, schema.LARGEST_PREFETCH)

    def forget_in_hand(self) -> None:
        super().forget_in_hand()
        self._batches.clear()
        self._suspects.clear()

    # Collecting.

    def collect(self, deliveries: deque[Message]) -> None:
        """Add messages to batches; those that must be run alone are set aside."""
        if not deliveries and not self.waiting:
            return
        self._note(deliveries)
        arrived = [*self.waiting, *deliveries]
        self.waiting.clear()
        deliveries.clear()
        if self.gates.must_ask:
            arrived = [each for each in arrived if self.gates.admit(each)]
        record = self._record
        if record is not None:
            suspects = [m for m in arrived if m.redelivered and record.is_suspect(m)]
            if suspects:
                self._suspects += suspects
                alone = {*suspects}
                arrived = [each for each in arrived if each not in alone]
        self._batches.add(arrived, time.monotonic())

    def collected(self, queues: Collection[str]) -> list[Message]:
        suspects = [each for each in self._suspects if each.queue in queues]
        self._suspects = deque(each for each in self._suspects if each.queue not in queues)
        return [*suspects, *self._batches.take_back(queues)]

    def _note(self, deliveries: Iterable[Message]) -> None:
        """Note messages that have arrived, all at once, before one of them may be settled."""
        if self._acknowledger is None:
            return
        new = [each for each in deliveries if not each.kept]
        for message in new:
            message.kept = True
        self._acknowledger.deliver_all([m.delivery.delivery_tag for m in new])  # type: ignore[union-attr]

    def renew(self, deliveries: deque[Message], near: list[Message]) -> None:
        self._note(deliveries)
        super().renew(deliveries, near)

    @property
    def start_due(self) -> float:
        if self._alone or len(self.in_hand) >= self._limit:
            return inf
        if self._suspects:
            return inf if self.in_hand else -inf
        return self._batches.due

    @property
    def is_complete(self) -> bool:
        """Whether more messages would not change which batch is handled next."""
        return bool(self._suspects) or self._batches.is_complete

    def next_message(self, deliveries: deque[Message]) -> Any:
        """Take the next batch to be run; None if none can be run now.

        :raises Lost: the connection is lost.
        """
        self.collect(deliveries)
        while self.start_due <= time.monotonic():
            if not self._suspects:
                return self._batches.take(time.monotonic())
            message = self._suspects.popleft()
            assert self._record is not None
            if not self._is_fatal(message, self._record):
                self._alone = True
                return Batch(message.queue, -inf, [message])
        return None

    def units(self, messages: Iterable[Message]) -> Iterator[Any]:
        messages = [*messages]
        self._note(messages)
        self._batches.add(messages, 0.0)
        while (batch := self._batches.take(inf)) is not None:
            yield batch

    def description(self, prefetched: int) -> str:
        batches = list(self.in_hand)
        count = sum(len(batch.messages) for batch in batches)
        collected = len(self._batches) + len(self._suspects)
        pending = 0 if self._acknowledger is None else self._acknowledger.pending
        return (f'handling {counted(count, "message")} in {len(batches)} of at most {self.most}'
                f' batches; collected {collected}, prefetched {prefetched}, unacknowledged'
                f' {prefetched + collected + count + pending}')  # fmt: skip

    # Running.

    def handle(self, batch: Any) -> None:
        """Run a batch in this thread, then settle its messages.

        :raises Lost: the connection is lost.
        """
        self.start(batch)
        self.note_in_hand()
        record = self._record
        if record is not None:
            record.slot.set_since(time.monotonic())
        error, _ = self.execute(batch)
        if record is not None:
            record.slot.set_since(0.0)
        if error is not None and exception_text.is_a(error, (StopNow, Interrupted)):
            self._end_if_forked(error)
            self._leave_hand(batch)
            raise error
        self.end(batch, error, None)
        self.note_in_hand()

    def _message_of(self, batch: Any) -> Message | None:
        return batch.messages[0] if len(batch.messages) == 1 else None

    def _count_run(self, batch: Any) -> None:
        """Count it when it is known what becomes of the messages: halves are run again."""

    def _messages_of(self, batch: Any) -> Sequence[Message]:
        return batch.messages  # type: ignore[no-any-return]

    def _call(self, batch: Any) -> Any:
        """Call the handler with the messages whose bodies it can read."""
        messages = batch.decode(self._accept, self._max_body, self._body_type)
        return self._host.on_messages(messages) if messages else None

    def _reply(self, batch: Any, answer: Any) -> None:
        """Ignore what the handler has returned: no message of the batch is the one it answers.

        :raises TypeError: it stands for a handler that has not been run.
        """
        check_answer(answer, self.hook)
        if self._knows_replies:
            return
        for message in batch.messages:
            with suppress(InvalidProperties):
                if message.reply_to:
                    self._knows_replies = True
                    LOGGER.warning('what on_messages returns is sent to nobody: publish a reply to'
                                   ' the reply_to of each message, such as that from %s', message)
                    return

    # Settling.

    def _finish_run(self, batch: Any, error: BaseException | None, reply: Any) -> None:
        """Settle the messages of a batch that has been run, or have its halves run."""
        messages = batch.messages
        if batch.faults:
            messages = [each for each in messages if each not in batch.faults]
            self._count_runs(batch, len(batch.faults))
            for message, fault in batch.faults.items():
                self._finish(message, fault, None)
        if error is None:
            self._count_runs(batch, len(messages))
            self._acknowledge_all(messages)
        else:
            self._fail_all(batch, messages, error)

    def _count_runs(self, batch: Batch, count: int) -> None:
        """Count so many messages, each with its share of the time that the batch took."""
        if count:
            seconds = batch.seconds / len(batch.messages) * count
            self._statistics.queues[batch.queue].run(seconds, count)

    def _count_in_hand(self) -> int:
        return sum(len(batch.messages) for batch in self.in_hand)

    def _acknowledge_all(self, messages: list[Message]) -> None:
        """Acknowledge the messages that their handler has not settled itself."""
        unsettled = [each for each in messages if each.outcome is None]
        for message in unsettled:
            message.outcome = ACK
        if self._settled_by_handler:  # in the same order as in _finish(): see settle_as_told()
            settled = self._conclude_settled(messages)
            unsettled = [each for each in unsettled if each not in settled]
        if self._acknowledger is None:
            for message in unsettled:
                self._acknowledge(message)
        else:
            self._acknowledger.add_all([m.delivery.delivery_tag for m in unsettled])  # type: ignore[union-attr]
        self.flush()
        record = self._record
        if record is not None and messages:
            record.slot.handled += len(messages)
            if record.suspect or record.slot.handled >= record.slot.limit:
                self._after_settling(messages[-1], record)

    def _conclude_settled(self, messages: list[Message]) -> set[Message]:
        """The messages that their handler has settled itself."""
        settled = set()
        for message in messages:
            outcome = self._pop_settled(message)
            if outcome is not None:
                settled.add(message)
                self._conclude(message, outcome, None, None)
        return settled

    def _fail_all(self, batch: Batch, messages: list[Message], error: BaseException) -> None:
        """Find out which message is to blame, if there are several that are not settled."""
        unsettled = []
        for message in messages:
            if message.outcome is None:
                unsettled.append(message)
            else:
                self._count_runs(batch, 1)
                self._finish(message, None, None)
        if not unsettled:
            LOGGER.error('on_messages failed after all messages from %s were settled', batch,
                         exc_info=exception_text.loggable(error))  # fmt: skip
        elif len(unsettled) == 1 or self._returns_all(error):
            self._count_runs(batch, len(unsettled))
            for message in unsettled:
                self._finish(message, error, None)
        else:
            LOGGER.log(
                logging.DEBUG if batch.is_half else logging.WARNING,
                'on_messages failed for %s from queue %s, which are run again in halves: %s: %s',
                counted(len(unsettled), 'message'), batch.queue, exception_text.name(error),
                exception_text.text(error)[: exception_text.SHOWN],
            )  # fmt: skip
            self._batches.split(batch.queue, unsettled)

    @staticmethod
    def _returns_all(error: BaseException) -> bool:
        """Whether what was raised concerns all messages: they go back to their queue."""
        return settlement.judge(error, 0, 1) is Outcome.REQUEUE
