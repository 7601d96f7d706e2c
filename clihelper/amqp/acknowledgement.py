"""Acknowledgements put together, and the signs of life while a handler runs."""

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


class Pulse:
    """A thread that acts now and then while the main thread is in a handler.

    :param interval: seconds.
    :param act: what it does.
    :param errors: what it raises when the connection is lost. That ends the thread; the main
        thread will see it, too.
    """

    def __init__(
        self, interval: float, act: Callable[[], None], errors: tuple[type[BaseException], ...]
    ) -> None:
        self._interval = interval
        self._act = act
        # py-amqp takes itself apart while this is under way: its socket may be None.
        self._errors: tuple[type[BaseException], ...] = (*errors, AttributeError)
        self._ended = threading.Event()
        threading.Thread(target=self._run, name='heartbeat', daemon=True).start()

    def end(self) -> None:
        """End the thread. It is not waited for."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self._act()
            except self._errors:
                return
