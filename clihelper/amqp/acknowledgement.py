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

    def __init__(self, send: Callable[[int], None], prefetch: int) -> None:
        self._send = send
        self._most = max(prefetch // 2, 1)
        self._lock = threading.Lock()
        self._pending = 0
        self._tag = 0
        self._sent = time.monotonic()

    def add(self, delivery_tag: int) -> None:
        """Acknowledge this message, soon."""
        with self._lock:
            self._tag = delivery_tag
            self._pending += 1
            if self._pending < self._most and time.monotonic() - self._sent < LONGEST_WAIT:
                return
            self._flush()

    def flush(self) -> None:
        """Send what is pending. May be called in any thread."""
        if self._pending:
            with self._lock:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._pending = 0
            self._sent = time.monotonic()
            self._send(self._tag)
