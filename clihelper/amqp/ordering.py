"""Messages in order: those with the same key are handled one after the other.

::

    delivered --> key? -- None -----------> handled, as ever
                   |
                   '--> first in line? --> handled --> settled --> the next in line
                           | no                ^  '-- fails: waits, first in line
                           '-- kept -----------'
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from zlib import crc32

from clihelper.amqp.concurrency import ConcurrentProcessor
from clihelper.amqp.processing import Processor
from clihelper.errors import StopNow, counted
from clihelper.process.signals import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Hashable
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.amqp.poison import PoisonGuard
    from clihelper.amqp.processing import Reply
    from clihelper.amqp.publisher import PublishError
    from clihelper.amqp.settlement import Outcome

LOGGER = logging.getLogger('clihelper.amqp')

NOTHING: deque[Message] = deque()


class Lines:
    """A line of messages for each key. The first in line is handled, or waits for its next run.

    :ivar int waiting: how many messages are behind the first of their line.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Message]] = {}
        self._keys: dict[Message, Hashable] = {}

    def __contains__(self, message: Message) -> bool:
        return message in self._keys

    @property
    def waiting(self) -> int:
        return len(self._keys) - len(self._lines)

    def join(self, message: Message, key: Hashable) -> bool:
        """Put a message at the end of the line of its key.

        :returns: whether it is the first in line.
        :raises TypeError: the key is not hashable.
        """
        line = self._lines.setdefault(key, deque())
        line.append(message)
        self._keys[message] = key
        return len(line) == 1

    def leave(self, message: Message) -> Message | None:
        """Take the first message of a line out of it; nothing happens if it is in none.

        :returns: the one that is first now, if there is one.
        """
        if message not in self._keys:
            return None
        key = self._keys.pop(message)
        line = self._lines[key]
        line.remove(message)
        if line:
            return line[0]
        del self._lines[key]
        return None

    def keep_only(self, messages: Collection[Message]) -> None:
        """Take all messages out of their lines, except *messages*."""
        kept = {message: key for message, key in self._keys.items() if message in messages}
        self._keys.clear()
        self._lines.clear()
        for message, key in kept.items():
            self.join(message, key)


class OrderedProcessor(Processor):
    """Handles messages with the same ``order_key`` in the order in which they were delivered.

    A message that fails is kept in this process, not moved to a retry queue: so it keeps its place
    before those behind it, which are kept as well. All of them stay unsettled. If the connection
    or the process ends, the broker puts them back where they were in their queue.
    """

    def __init__(self, host: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(host, *arguments, **options)
        self._order_key = host.order_key
        self._lines = Lines()
        self._counted: set[Message] = set()  # their deaths are among their runs already

    @property
    def _running(self) -> Collection[Message]:
        """The messages whose handlers run, while the connection that delivered them ends."""
        return ()

    def reset(self) -> None:
        super().reset()
        self._forget_lines()

    def forget(self) -> None:
        super().forget()
        self._forget_lines()

    def _forget_lines(self) -> None:
        self._lines.keep_only(self._running)
        self._counted.clear()

    def handle(self, message: Message) -> None:
        if self._may_run(message):
            super().handle(message)

    def _may_run(self, message: Message) -> bool:
        """Put a message in line; return whether its turn has come.

        If its key cannot be had, the message has failed.
        """
        if message in self._lines:
            return True
        try:
            key = self._order_key(message)
            is_first = key is None or self._lines.join(message, key)
        except (StopNow, Interrupted):
            raise
        except BaseException as failure:
            self._finish(message, failure, None)
            return False
        if not is_first:
            self._keep(message)
        return is_first

    def give_back(self, message: Message) -> None:
        super().give_back(message)
        self._let_next(message)

    def _let_next(self, message: Message) -> None:
        """Have the next in line run: the message is settled for good, or nothing can settle it."""
        self._counted.discard(message)
        following = self._lines.leave(message)
        if following is not None:
            self._postponed.put(partial(self._run_again, following), 0.0)

    def description(self, prefetched: int) -> str:
        text = super().description(prefetched)
        waiting = self._lines.waiting
        return f'{text}; behind others with the same key: {waiting}' if waiting else text

    # What settles a message.

    def _acknowledge(self, message: Message) -> None:
        super()._acknowledge(message)
        self._let_next(message)

    def _conclude(
        self,
        message: Message,
        outcome: Outcome | None,
        error: BaseException | None,
        reply: Reply | None,
    ) -> None:
        super()._conclude(message, outcome, error, reply)
        if outcome is not None and message.outcome is not None:
            self._let_next(message)

    def _dead_letter(self, message: Message, error: BaseException) -> None:
        super()._dead_letter(message, error)
        if self._topology.dead_letters_of(message.queue) is None:
            self._let_next(message)

    def _reject_refused(self, message: Message, failure: PublishError) -> None:
        super()._reject_refused(message, failure)
        self._let_next(message)

    def _leave(self, message: Message, failure: BaseException) -> None:
        super()._leave(message, failure)
        self._let_next(message)

    # What has it run again.

    def _retry_queue(self, message: Message, seconds: float) -> tuple[str, float] | None:
        return None if message in self._lines else super()._retry_queue(message, seconds)

    def _returns_later(self, message: Message) -> bool:
        return message in self._lines or super()._returns_later(message)

    def _requeue(self, message: Message, *, at_end: bool = False) -> None:
        if message in self._lines:
            self._return_anew(message)
        else:
            super()._requeue(message, at_end=at_end)

    def _return_anew(self, message: Message) -> None:
        """Run it again here instead of returning it, which would let others pass it."""
        if message not in self._lines:
            super()._return_anew(message)
            return
        self._keep(message)
        message.outcome = None
        self._postponed.put(partial(self._run_again, message), 0.0)

    def renew(self, deliveries: deque[Message], near: list[Message]) -> None:
        LOGGER.warning(
            'publishing %s anew, which the queue might drop at the next return: others with the'
            ' same key that came later may be handled first', counted(len(near), 'message'),
        )
        super().renew(deliveries, near)

    # Deaths of processes. Those of a message that is kept are not forgotten before it is settled:
    # otherwise one that fails and kills by turns would be run for ever.

    def _is_fatal(self, message: Message, record: PoisonGuard) -> bool:
        if message not in self._counted:
            is_fatal = super()._is_fatal(message, record)
            if message in self._lines:
                self._counted.add(message)
            return is_fatal
        mark = crc32(message.raw, record.seeds[message.queue])
        record.suspect = mark if record.slot.scoreboard.deaths(mark)[0] else 0
        self.flush()
        return False

    def _after_settling(self, message: Message, record: PoisonGuard) -> None:
        if message.outcome is None:
            record.suspect = 0
        super()._after_settling(message, record)


class OrderedConcurrentProcessor(OrderedProcessor, ConcurrentProcessor):
    """The same where several messages are handled at a time.

    A handler that still runs when its connection is lost holds up those with the same key.
    """

    @property
    def _running(self) -> Collection[Message]:
        return self.in_hand

    def next_message(self, deliveries: deque[Message]) -> Message | None:
        while True:
            message = super().next_message(NOTHING)
            has_room = len(self.in_hand) < self._limit and not self._alone
            if message is not None or self.waiting or not deliveries or not has_room:
                return message
            message = deliveries.popleft()
            if self._may_run(message):
                self.waiting.append(message)

    def end(self, message: Message, error: BaseException | None, reply: Reply | None) -> None:
        was_lost = self.is_lost(message)
        super().end(message, error, reply)
        if was_lost:
            self._let_next(message)

    def give_up(self, message: Message) -> None:
        super().give_up(message)
        self._let_next(message)
