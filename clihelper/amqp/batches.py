"""Batches: messages of one queue that are handled by one call, how they come about, and halves.

::

    arrived --> open, one for each queue --> full, or the wait is over --> taken
                                                        ^                    |
                                                        '------ halves ------' it has failed
"""

from __future__ import annotations

from collections import deque
from math import inf

from clihelper.amqp.message import Message, body_kind, decode
from clihelper.errors import StopNow
from clihelper.process.signals import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from clihelper.amqp.bodies import BodyType


class BatchedMessage(Message):
    """A message that is handled with others: its body is decoded before its handler gets it.

    :ivar decoded: the decoded body.
    """

    __slots__ = ('decoded',)

    decoded: Any

    @property
    def body(self) -> Any:
        """The decoded body, the same object each time."""
        try:
            return self.decoded
        except AttributeError:
            return super().body


class Batch:
    """Messages of one queue that are handled by one call.

    :ivar str queue: the queue.
    :ivar messages: the messages, in the order of their arrival.
    :ivar float due: until when it waits for more, by the monotonic clock.
    :ivar faults: the messages whose bodies were refused in the last run, and why.
    :ivar bool is_half: whether it is a part of one that has failed.
    :ivar float began: when it was started, by the monotonic clock.
    :ivar float seconds: how long its handler took.
    """

    __slots__ = ('began', 'due', 'faults', 'is_half', 'messages', 'queue', 'seconds')

    began: float
    seconds: float

    def __init__(
        self, queue: str, due: float, messages: list[Any], *, is_half: bool = False
    ) -> None:
        self.queue = queue
        self.due = due
        self.messages: list[Any] = messages
        self.faults: dict[Message, BaseException] = {}
        self.is_half = is_half

    def __str__(self) -> str:
        return f'queue {self.queue}, in a batch of {len(self.messages)}'

    def decode(
        self, accept: Collection[str], max_body: int, body_type: BodyType | None = None
    ) -> list[Message]:
        """Decode the bodies, anew for each run: one that failed may have changed what it got.

        :param body_type: what they are converted to.
        :returns: the messages to be handled: those that can be, and are not settled yet.
        """
        self.faults = {}
        readable = []
        packed, kind = None, None
        for message in self.messages:
            if message.outcome is None:
                try:
                    if packed is None or message.delivery.packed != packed:
                        kind = body_kind(message)
                        packed = getattr(message.delivery, 'packed', None)
                    message.decoded = decode(message, accept, max_body, kind, body_type)
                except (StopNow, Interrupted):
                    raise
                except BaseException as fault:
                    self.faults[message] = fault
                else:
                    readable.append(message)
        return readable


class Collector:
    """Collects messages into batches.

    :param size: the most messages of a batch.
    :param wait: seconds from its first message until it is taken although it is not full.
    """

    def __init__(self, size: int, wait: float) -> None:
        self.size = size
        self._wait = wait
        self._complete: deque[Batch] = deque()  # nothing is added to them any more
        self._open: dict[str, Batch] = {}  # by queue; as all wait equally long, the first is due

    def __len__(self) -> int:
        """The number of messages that are collected."""
        return sum(len(batch.messages) for batch in (*self._complete, *self._open.values()))

    def add(self, messages: Iterable[Message], now: float) -> None:
        """Add messages, each to the batch of its queue."""
        due, size = now + self._wait, self.size
        queue = None
        found: list[Any] = []
        for message in messages:
            if message.queue != queue or not found:
                queue = message.queue
                if queue not in self._open:
                    self._open[queue] = Batch(queue, due, [])
                found = self._open[queue].messages
            found.append(message)
            if len(found) >= size:
                self._complete.append(self._open.pop(queue))
                found = []

    @property
    def is_complete(self) -> bool:
        """Whether there is a batch to which nothing will be added."""
        return bool(self._complete)

    @property
    def due(self) -> float:
        """When a batch should be taken, by the monotonic clock; infinite if there is none."""
        if self._complete:
            return -inf
        return next(iter(self._open.values())).due if self._open else inf

    def take(self, now: float) -> Batch | None:
        """Take the batch whose wait was over first, or a full one; None if none is ready."""
        first = next(iter(self._open.values()), None)
        if first is not None and first.due <= now and not (
            self._complete and self._complete[0].due <= first.due
        ):
            return self._open.pop(first.queue)
        return self._complete.popleft() if self._complete else None

    def split(self, queue: str, messages: list[Any]) -> None:
        """Have the two halves of a batch that has failed taken next."""
        middle = len(messages) // 2
        for half in (messages[middle:], messages[:middle]):
            self._complete.appendleft(Batch(queue, -inf, half, is_half=True))

    def take_back(self, queues: Collection[str]) -> list[Message]:
        """Take out the messages of these queues."""
        batches = [batch for batch in (*self._complete, *self._open.values())
                   if batch.queue in queues]
        self._complete = deque(each for each in self._complete if each.queue not in queues)
        self._open = {
            queue: batch for queue, batch in self._open.items() if queue not in queues}
        return [message for batch in batches for message in batch.messages]

    def clear(self) -> None:
        """Forget all of them: they are delivered again."""
        self._complete.clear()
        self._open.clear()
