"""Several messages at a time: handled by coroutines or threads, settled by one thread.

::

    delivered --> start --> in hand --> end --> settled, as one message at a time is
                              |
                              '-- the connection is lost: it is delivered again
"""

from __future__ import annotations

import logging
import time
from collections import deque
from math import inf

from clihelper.amqp import context, exception_text
from clihelper.amqp.message import decode, settle_at_once
from clihelper.amqp.poison import ConcurrentPoisonGuard
from clihelper.amqp.processing import Processor, make_reply
from clihelper.amqp.retries import RetryQueues
from clihelper.amqp.settlement import HandlerTimeout
from clihelper.errors import StopNow
from clihelper.process.signals import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.connection import Connection
    from clihelper.amqp.forwarder import Forwarder
    from clihelper.amqp.message import Message
    from clihelper.amqp.processing import Reply
    from clihelper.amqp.settlement import Outcome
    from clihelper.amqp.topology import Topology

LOGGER = logging.getLogger('clihelper.amqp')


class ConcurrentProcessor(Processor):
    """Handles several messages at a time.

    One thread calls :meth:`next_message`, :meth:`start`, :meth:`end` and whatever settles
    messages. The handler itself is run by the loop, in a task or in another thread.

    :param most: the number of messages that are handled at a time.
    :param ahead: whether as many more are started, which wait for their turn.
    :ivar in_hand: the messages that are being handled, and for each what runs its handler.
    :ivar waiting: messages that were kept, and whose next run is due.
    :ivar timed_out: those whose tasks were cancelled because of ``AMQP.handler_timeout``.
    """

    is_concurrent = True
    guard_class = ConcurrentPoisonGuard

    def __init__(
        self,
        host: Any,
        connection: Connection,
        topology: Topology,
        forwarder: Forwarder,
        *,
        most: int,
        ahead: bool = False,
        retry_queues: Callable[[Topology, Mapping[str, Any]], RetryQueues] = RetryQueues,
    ) -> None:
        super().__init__(host, connection, topology, forwarder, retry_queues)
        self.most = most
        self._limit = 2 * most if ahead else most
        self.in_hand: dict[Any, Any] = {}
        self.waiting: deque[Message] = deque()
        self.timed_out: set[Any] = set()
        self._lost: set[Any] = set()  # in hand, from a connection that is lost
        self._released: deque[int] = deque()
        self._alone = False
        self._oldest: Message | None = None
        self._record: ConcurrentPoisonGuard | None

    def begin(self, channel: Any, prefetch: int) -> None:
        transport = self._connection.transport
        self._acknowledger = transport.acknowledger(channel, prefetch, concurrent=True)

    def reset(self) -> None:
        self.forget_in_hand()
        super().reset()

    def forget(self) -> None:
        self.forget_in_hand()
        super().forget()

    def forget_in_hand(self) -> None:
        """Settle none of the messages that are in hand: they will be delivered again."""
        self._lost.update(self.in_hand)
        self.waiting.clear()
        self._released.clear()

    def delivered(self, message: Message) -> None:
        """Note a message that has arrived."""
        if self._acknowledger is not None:
            message.kept = True
            self._acknowledger.deliver(message.delivery.delivery_tag)  # type: ignore[union-attr]

    def next_message(self, deliveries: deque[Message]) -> Message | None:
        """Take the next message to be run; None if none can be run now.

        Those that must not be run are settled.

        :param deliveries: the messages that have arrived.
        :raises Lost: the connection is lost.
        """
        while (self.waiting or deliveries) and len(self.in_hand) < self._limit and not self._alone:
            queue = self.waiting or deliveries
            message = queue[0]
            if self.gates.must_ask and not self._is_admitted(queue):
                continue
            record = self._record
            if message.redelivered and record is not None and record.is_suspect(message):
                if self.in_hand:
                    return None  # it is run alone, when these have ended
                queue.popleft()
                if self._is_fatal(message, record):
                    continue
                self._alone = True
                return message
            return queue.popleft()
        return None

    def _is_admitted(self, queue: deque[Message]) -> bool:
        """Whether the first message may begin; it is taken out otherwise."""
        message = queue.popleft()
        if not self.gates.admit(message):
            return False
        queue.appendleft(message)
        return True

    @property
    def start_due(self) -> float:
        """When :meth:`next_message` should be called although nothing has arrived or ended."""
        return inf

    def start(self, message: Any, runner: Any = None) -> None:
        """Note that the handler of *message* is about to run."""
        self.in_hand[message] = runner
        message.began = time.monotonic()
        record = self._record
        if record is None:
            return
        if self._alone:
            self.flush()  # if this message kills the process, earlier ones must not come again
            record.begin_alone(*self._messages_of(message))
        else:
            for each in self._messages_of(message):
                record.begin(each)

    def _messages_of(self, message: Any) -> Sequence[Message]:
        """The messages that one call of the handler gets."""
        return (message,)

    def _call(self, message: Any) -> Any:
        """Call the handler, in any thread."""
        if self._handlers is not None:
            return self._call_handler(self._handlers, message)
        return self._host.on_message(decode(message, self._accept, self._max_body), message)

    def _reply(self, message: Any, answer: Any) -> Reply | None:
        return make_reply(message, answer)

    def execute(self, message: Any) -> tuple[BaseException | None, Reply | None]:
        """Run the handler, in any thread.

        :returns: what it raised, and its reply.
        """
        began = time.monotonic()
        context.in_hand.set(self._message_of(message))
        try:
            answer = self._call(message)
            return None, None if answer is None else self._reply(message, answer)
        except BaseException as failure:
            return failure, None
        finally:
            message.seconds = time.monotonic() - began
            context.in_hand.set(None)

    async def run(
        self,
        message: Any,
        on_end: Callable[[Any, BaseException | None, Reply | None], None],
    ) -> None:
        """Run the handler, await what it returns, and call *on_end*; see :meth:`execute`.

        A coroutine around this one would take memory for each message in hand.

        :raises StopNow: the program stops at once.
        """
        error: BaseException | None = None
        reply = None
        message.began = time.monotonic()
        context.in_hand.set(self._message_of(message))  # in the context of this task
        try:
            answer = self._call(message)
            if hasattr(type(answer), '__await__'):
                answer = await answer
            reply = None if answer is None else self._reply(message, answer)
        except (StopNow, Interrupted):
            raise
        except BaseException as failure:
            error = self._late(failure) if message in self.timed_out else failure
        message.seconds = time.monotonic() - message.began
        on_end(message, error, reply)
        error = None  # its traceback has this frame

    def _late(self, failure: BaseException) -> HandlerTimeout:
        seconds = self._host.config.amqp['handler_timeout']
        late = HandlerTimeout(f'{self.hook} has not returned for {seconds:g} s')
        late.__cause__ = failure
        return late

    def end(self, message: Any, error: BaseException | None, reply: Reply | None) -> None:
        """Settle a message whose handler has ended.

        :raises Lost: the connection is lost.
        """
        self._end_if_forked(error)
        self._leave_hand(message)
        self._count_run(message)
        if message not in self._lost:
            self._finish_run(message, error, reply)
            if self.gates.trying:
                for each in self._messages_of(message):
                    self.gates.ended(each)
            return
        self._lost.discard(message)
        if error is not None:
            LOGGER.warning(
                '%s failed for a message from %s, which will be delivered again, as its'
                ' connection is lost', self.hook, message, exc_info=exception_text.loggable(error),
            )  # fmt: skip

    def _finish_run(
        self, message: Any, error: BaseException | None, reply: Reply | None
    ) -> None:
        self._finish(message, error, reply)

    def _message_of(self, message: Any) -> Message | None:
        """The message that is being handled, if there is only one."""
        return message  # type: ignore[no-any-return]

    def _count_run(self, message: Any) -> None:
        """Count for whoever asks that a handler has ended."""
        self._statistics.queues[message.queue].run(message.seconds)

    def is_lost(self, message: Any) -> bool:
        """Whether the connection that delivered it is lost. Any thread may call this."""
        return message in self._lost

    def give_up(self, message: Any) -> None:
        """Leave a message unsettled that was started and not run: it returns to its queue."""
        self._leave_hand(message)
        self._lost.discard(message)

    def take_back(self, message: Any) -> None:
        """Have a message wait that was started and not run, as its queue is not consumed now."""
        self._leave_hand(message)
        self.waiting.extendleft(reversed(self._messages_of(message)))

    def note_in_hand(self) -> None:
        """Note for whoever asks how many messages are in hand, and since when.

        Called when some have been started or have ended, before anything waits.
        """
        self._statistics.set_in_hand(self._count_in_hand())
        oldest = next(iter(self.in_hand), None)
        if oldest is self._oldest:
            return
        self._oldest = oldest
        if oldest is None:
            self._since[0] = 0.0
        else:
            self._since[0] = oldest.began
            self._statistics.set_queue(self._statistics.queues[oldest.queue])

    def _count_in_hand(self) -> int:
        return len(self.in_hand)

    def _leave_hand(self, message: Any) -> None:
        del self.in_hand[message]
        self.timed_out.discard(message)
        self._alone = False
        if self._record is not None:
            for each in self._messages_of(message):
                self._record.end(each)

    def end_message(self) -> None:
        since = self._since[0]
        super().end_message()
        self._since[0] = since  # the others are still in hand

    def description(self, prefetched: int) -> str:
        """The messages in hand, and the numbers of unsettled ones. Any thread may call this."""
        count, pending = len(self.in_hand), 0
        if self._acknowledger is not None:
            pending = self._acknowledger.pending
        return (f'handling {count} of at most {self.most} messages; prefetched {prefetched},'
                f' unacknowledged {prefetched + count + pending}')

    # Settling

    @property
    def flush_due(self) -> float:
        """When pending acknowledgements should be sent, by the monotonic clock."""
        if self._acknowledger is None:
            return inf
        return self._acknowledger.due  # type: ignore[union-attr]

    def flush(self) -> None:
        while self._released and self._acknowledger is not None:
            self._acknowledger.release(self._released.popleft())
        super().flush()

    def _settle_by_itself(self, message: Message, outcome: Outcome) -> None:
        # The handler's thread calls this as well; only one thread uses the acknowledger.
        with self._connection.guard():
            settle_at_once(message.delivery, outcome)
        if message.kept:
            self._released.append(message.delivery.delivery_tag)

    def _run_again(self, message: Message) -> None:
        self.waiting.append(message)
