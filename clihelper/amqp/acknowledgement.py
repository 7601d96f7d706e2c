"""Acknowledgements put together."""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT = 0.05
"""seconds since the last sending, after which the end of a handler sends"""


class Acknowledger:
    """Acknowledges many messages with one frame.

    Messages are handled in the order of their delivery tags, so one acknowledgement stands for
    all before it that are not settled yet. It is sent when half the prefetch is pending, or when
    a handler ends 50 ms or more after the last one: so a fast handler pays almost nothing, and a
    slow one acknowledges each message as it ends. Who waits, or has nothing more to do, calls
    :meth:`flush`.

    :param send: sends an acknowledgement of all up to a delivery tag.
    :param prefetch: messages that the broker sends ahead.
    """

    # The lock is for sending: noting a tag is one assignment, which no other thread can divide.

    def __init__(self, send: Callable[[int], None], prefetch: int) -> None:
        self._send = send
        self._most = max(prefetch // 2, 1)
        self._lock = threading.Lock()
        self._tag = 0
        self._last = 0  # the tag that was sent last
        self._sent = time.monotonic()

    def add(self, delivery_tag: int) -> bool:
        """Acknowledge this message, soon.

        :returns: whether it is time to :meth:`flush`.
        """
        self._tag = delivery_tag
        return (
            delivery_tag - self._last >= self._most
            or time.monotonic() - self._sent >= LONGEST_WAIT
        )

    def flush(self) -> None:
        """Send what is pending. May be called in any thread."""
        if self._tag == self._last:
            return
        with self._lock:
            tag = self._tag
            if tag != self._last:
                self._last = tag
                self._sent = time.monotonic()
                self._send(tag)
