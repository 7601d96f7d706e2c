"""Signals that end a command between two steps of its work."""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Notes the first INT, TERM or HUP; from then on each has its former action again.

    A context manager. A signal that was ignored before stays ignored.

    :ivar int signum: which signal has arrived; 0 if none has.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    @property
    def status(self) -> int:
        """The exit status of a command that a signal has ended; 0 if none has arrived."""
        return 128 + self.signum if self.signum else 0

    def wait_until(self, due: float) -> bool:
        """Wait until the monotonic time *due*; return False at once if a signal arrives."""
        while not self.signum and (left := due - time.monotonic()) > 0:
            select.select([self._reader], (), (), left)
        return not self.signum

    def _note(self, signum: int, frame: object) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, action in self._before.items():
            signal.signal(signum, action)
        self._before.clear()
