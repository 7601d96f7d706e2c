"""Acknowledgements, sent in batches."""

from __future__ import annotations

import sys
import threading
import time
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Send(Protocol):
        """Sends acknowledgements, in one write."""

        def __call__(self, up_to: int, alone: Sequence[int]) -> None:
            """
            :param up_to: a delivery tag; all unsettled messages up to it are acknowledged with it
                (``multiple``). 0: there is none.
            :param alone: further delivery tags, each acknowledged individually.
            """


LONGEST_WAIT = 0.05
"""seconds since the last batch, after which the end of a handler sends the next one"""


class Acknowledger:
    """Acknowledges many messages with one frame.

    Messages are handled in the order of their delivery tags, so one acknowledgement covers all
    earlier messages that are not settled yet. It is sent when half the prefetch is pending, or
    when a handler ends 50 ms or more after the last batch. So a fast handler pays almost nothing,
    and a slow one acknowledges each message as it ends. A caller that is going to wait, or has
    nothing more to do, calls :meth:`flush`.

    A message may be kept unsettled while later ones are acknowledged. Then no acknowledgement
    covers it: each message above it is acknowledged by a frame of its own. RabbitMQ closes a
    channel on which a settled tag is acknowledged again ("unknown delivery tag"), so the tag of a
    frame is always an unsettled one.

    :meth:`flush` may be called in any thread, the other methods in one only.

    :param send: sends acknowledgements.
    :param prefetch: the number of messages that the broker sends ahead.
    """

    # As long as nothing is kept, the lock is used only for sending: noting a tag is a single
    # assignment, which is atomic.

    def __init__(self, send: Send, prefetch: int) -> None:
        self._send = send
        self._most = max(prefetch // 2, 1)
        self._lock = threading.Lock()
        self._tag = 0  # may be acknowledged together with all tags below it
        self._last = 0  # all tags up to this one have been acknowledged
        self._sent = time.monotonic()
        self._kept: set[int] = set()
        self._alone: list[int] = []  # must not be acknowledged together with others
        self._highest = 0  # the highest tag that was kept, or added while another was kept
        self._bound = 0  # tags up to this one are not added in the simple way

    def add(self, delivery_tag: int) -> bool:
        """Acknowledge this message soon.

        :returns: whether it is time to :meth:`flush`.
        """
        if delivery_tag <= self._bound:
            return self._add_beside_kept(delivery_tag)
        self._tag = delivery_tag
        return (
            delivery_tag - self._last >= self._most
            or time.monotonic() - self._sent >= LONGEST_WAIT
        )

    def keep(self, delivery_tag: int) -> None:
        """Leave this message unsettled while later ones are acknowledged.

        :param delivery_tag: must be above all tags that have been added.
        """
        with self._lock:
            self._kept.add(delivery_tag)
            self._highest = max(self._highest, delivery_tag)
            self._bound = sys.maxsize

    @property
    def held(self) -> int:
        """How many messages are kept unsettled."""
        return len(self._kept)

    @property
    def pending(self) -> int:
        """How many acknowledgements have not been sent yet."""
        return self._tag - self._last + len(self._alone)

    @property
    def lowest_unsettled(self) -> int:
        """The delivery tag below which all messages are acknowledged, or will be soon."""
        return min(self._kept, default=self._tag + 1)

    def release(self, delivery_tag: int) -> None:
        """Stop keeping the message: it has been settled individually."""
        with self._lock:
            self._release(delivery_tag)

    def add_kept(self, delivery_tag: int) -> bool:
        """Acknowledge a message that was kept, soon and individually.

        Earlier messages may not have been handled yet, and must not be acknowledged with it.

        :returns: whether it is time to :meth:`flush`.
        """
        with self._lock:
            self._release(delivery_tag)
            self._alone.append(delivery_tag)
            return self._is_time()

    def forget(self) -> None:
        """Forget what is kept or pending: all unsettled messages have been returned."""
        with self._lock:
            self._last = self._tag
            self._alone = []
            self._kept.clear()
            self._bound = self._highest

    def disown(self) -> None:
        """Start afresh in a child process: nothing is pending, and the lock is free."""
        self._lock = threading.Lock()
        self.forget()

    def _release(self, delivery_tag: int) -> None:
        self._kept.discard(delivery_tag)
        if not self._kept:
            self._bound = self._highest

    def _add_beside_kept(self, delivery_tag: int) -> bool:
        """Add a tag while others are kept, or one that is below a tag that was kept."""
        with self._lock:
            self._highest = max(self._highest, delivery_tag)
            if self._tag < delivery_tag < min(self._kept, default=0):
                self._tag = delivery_tag
            else:
                self._alone.append(delivery_tag)
            return self._is_time()

    def _is_time(self) -> bool:
        return self.pending >= self._most or time.monotonic() - self._sent >= LONGEST_WAIT

    def flush(self) -> None:
        """Send what is pending. May be called in any thread."""
        if self._tag == self._last and not self._alone:
            return
        with self._lock:
            tag = self._tag
            alone = [each for each in self._alone if each > tag]
            self._alone = []
            if tag != self._last or alone:
                up_to = 0 if tag == self._last else tag
                self._last = tag
                self._sent = time.monotonic()
                self._send(up_to, alone)


class ConcurrentAcknowledger:
    """Acknowledges messages that are settled in any order; one thread uses it.

    It knows each message that was delivered and is not settled. All below the lowest of these are
    acknowledged with one frame, the others by a frame each: so a slow handler holds up nobody.

    :param send: sends acknowledgements.
    :param prefetch: the number of messages that the broker sends ahead.
    :ivar float due: when what is pending should be sent at the latest, by the monotonic clock;
        infinite if nothing is.
    """

    def __init__(self, send: Send, prefetch: int) -> None:
        self._send = send
        self._most = max(prefetch // 2, 1)
        self._unsettled: dict[int, None] = {}  # in ascending order, as messages are delivered
        self._settled: list[int] = []
        self._next = 1
        self.due = inf

    def deliver(self, delivery_tag: int) -> None:
        """Note a message that was delivered."""
        self._unsettled[delivery_tag] = None
        self._next = delivery_tag + 1

    def deliver_all(self, delivery_tags: Sequence[int]) -> None:
        """Note several messages, in the order of their delivery."""
        if delivery_tags:
            self._unsettled.update(dict.fromkeys(delivery_tags))
            self._next = delivery_tags[-1] + 1

    def add(self, delivery_tag: int) -> bool:
        """Acknowledge this message soon.

        :returns: whether it is time to :meth:`flush`.
        """
        if self._unsettled.pop(delivery_tag, self) is None:
            if not self._settled:
                self.due = time.monotonic() + LONGEST_WAIT
            self._settled.append(delivery_tag)
        return len(self._settled) >= self._most

    add_kept = add

    def add_all(self, delivery_tags: Sequence[int]) -> None:
        """Acknowledge several messages soon."""
        settled, take = self._settled, self._unsettled.pop
        if delivery_tags and not settled:
            self.due = time.monotonic() + LONGEST_WAIT
        settled += [tag for tag in delivery_tags if take(tag, self) is None]

    def keep(self, delivery_tag: int) -> None:
        """Leave this message unsettled while others are acknowledged, as all are anyway."""

    def release(self, delivery_tag: int) -> None:
        """Note that the message has been settled individually."""
        self._unsettled.pop(delivery_tag, None)

    held = 0
    """no message is unsettled that is neither prefetched nor being handled"""

    @property
    def pending(self) -> int:
        """How many acknowledgements have not been sent yet."""
        return len(self._settled)

    @property
    def lowest_unsettled(self) -> int:
        """The delivery tag below which all messages are acknowledged, or will be soon."""
        return next(iter(self._unsettled), self._next)

    def forget(self) -> None:
        """Forget all messages: those that are unsettled have been returned."""
        self._unsettled.clear()
        self._settled.clear()
        self.due = inf

    def disown(self) -> None:
        """Start afresh in a child process: nothing is pending."""
        self.forget()

    def flush(self) -> None:
        """Send what is pending."""
        settled, self._settled = self._settled, []
        self.due = inf
        if not settled:
            return
        lowest = next(iter(self._unsettled), self._next)
        if (highest := max(settled)) < lowest:
            self._send(highest, [])
            return
        together = [tag for tag in settled if tag < lowest]
        alone = [tag for tag in settled if tag > lowest]
        self._send(max(together, default=0), alone)
