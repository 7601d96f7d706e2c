"""Acknowledgements put together."""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Send(Protocol):
        """Sends acknowledgements, in one write."""

        def __call__(self, up_to: int, alone: Sequence[int]) -> None:
            """
            :param up_to: a delivery tag; all that are not settled up to it are acknowledged with
                it (``multiple``). 0: there is none.
            :param alone: further delivery tags, each acknowledged by itself.
            """


LONGEST_WAIT = 0.05
"""seconds since the last sending, after which the end of a handler sends"""


class Acknowledger:
    """Acknowledges many messages with one frame.

    Messages are handled in the order of their delivery tags, so one acknowledgement stands for
    all before it that are not settled yet. It is sent when half the prefetch is pending, or when
    a handler ends 50 ms or more after the last one: so a fast handler pays almost nothing, and a
    slow one acknowledges each message as it ends. Who waits, or has nothing more to do, calls
    :meth:`flush`.

    A message may be kept unsettled while later ones are acknowledged. No acknowledgement passes
    over it then: those above it go in a frame each. RabbitMQ closes a channel on which a tag is
    acknowledged that is settled already ("unknown delivery tag"), so the tag of a frame is always
    one that is not.

    One thread calls the other methods; any calls :meth:`flush`.

    :param send: sends acknowledgements.
    :param prefetch: messages that the broker sends ahead.
    """

    # As long as nothing is kept the lock is for sending only: noting a tag is one assignment,
    # which no other thread can divide.

    def __init__(self, send: Send, prefetch: int) -> None:
        self._send = send
        self._most = max(prefetch // 2, 1)
        self._lock = threading.Lock()
        self._tag = 0  # what may go with all below it
        self._last = 0  # the tag up to which all has been acknowledged
        self._sent = time.monotonic()
        self._kept: set[int] = set()
        self._alone: list[int] = []  # what must not take others with it
        self._highest = 0  # of all that have been kept, or added meanwhile
        self._bound = 0  # tags up to this one are not added in the plain way

    def add(self, delivery_tag: int) -> bool:
        """Acknowledge this message, soon.

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

        :param delivery_tag: it is above all that have been added.
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
        """The delivery tag below which all are acknowledged, or will be soon."""
        return min(self._kept, default=self._tag + 1)

    def release(self, delivery_tag: int) -> None:
        """The message is kept no longer: it has been settled by itself."""
        with self._lock:
            self._release(delivery_tag)

    def add_kept(self, delivery_tag: int) -> bool:
        """Acknowledge a message that was kept, soon, and by itself.

        Messages before it may not have been handled yet, and are not to be acknowledged with it.

        :returns: whether it is time to :meth:`flush`.
        """
        with self._lock:
            self._release(delivery_tag)
            self._alone.append(delivery_tag)
            return self._is_time()

    def forget(self) -> None:
        """Nothing is kept, and nothing pending: all that was not settled has been given back."""
        with self._lock:
            self._last = self._tag
            self._alone = []
            self._kept.clear()
            self._bound = self._highest

    def disown(self) -> None:
        """In a child of the process: nothing is pending, and nobody holds the lock."""
        self._lock = threading.Lock()
        self.forget()

    def _release(self, delivery_tag: int) -> None:
        self._kept.discard(delivery_tag)
        if not self._kept:
            self._bound = self._highest

    def _add_beside_kept(self, delivery_tag: int) -> bool:
        """Add one while others are kept, or one that is below some that were."""
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
