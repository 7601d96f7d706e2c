"""The supervisor's view of a worker: a process, two pipes, and what it has reported."""

from __future__ import annotations

import os
import time

from clihelper.backoff import jittered
from clihelper.process import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.config import Config
    from clihelper.process.scoreboard import Slot

TRACE = 16384
"""bytes of a crash's traceback that are kept"""

CHUNK = 65536


class Worker:
    """One worker process.

    :param number: the worker's number, from 1.
    :param config: the configuration that it was started with.
    :param slot: its slot in the shared memory.
    :param replaces: the worker that must stop once this one is ready.
    :ivar int pid: the pid of the process.
    :ivar bool is_ready: whether it is ready for work.
    :ivar deadline: when it will be killed after being told to stop, in seconds of
        ``time.monotonic``; None: it has not been told to stop.
    :ivar bool timed_out: whether it is being killed because a handler hangs.
    :ivar bool is_retiring: whether it stops by itself in order to be replaced.
    :ivar str retire: why it must be replaced once another is ready; empty: it need not.
    :ivar memory: bytes above which it is replaced; None: no limit.
    :ivar expires: when it is replaced, in seconds of ``time.monotonic``; None: never.
    :ivar bool left: whether it ended of its own accord and must not be replaced.
    :ivar list why: the lines in which it reported why it ends.
    :ivar float extended: until when it has asked for time to start, because it waits for its
        broker, in seconds of ``time.monotonic``; 0: it has not.
    :ivar bool is_needed: whether it has been told that no other could take its place.
    :ivar bool finished: whether it has ended as a program does, with its exit handlers called.
    """

    def __init__(
        self, number: int, config: Config, slot: Slot, replaces: Worker | None = None
    ) -> None:
        self.number = number
        self.config = config
        self.slot = slot
        self.replaces = replaces
        self.pid = 0
        self.pidfd = self.reader = self._lifeline = -1
        self.started = time.monotonic()
        self.is_ready = self.is_retiring = self.timed_out = self.left = self.finished = False
        self.is_needed = False
        self.extended = 0.0
        self.deadline: float | None = None
        self.retire = ''
        self.status = ''
        self.why: list[str] = []
        self.trace = b''
        self.memory = jittered(config.daemon['max_memory'])
        age = jittered(config.daemon['max_age'])
        self.expires = None if age is None else self.started + age
        self._unread = b''

    def __str__(self) -> str:
        return f'worker {self.number} (pid {self.pid})'

    @property
    def is_staying(self) -> bool:
        """Whether it is not stopping."""
        return self.deadline is None and not self.is_retiring

    @property
    def state(self) -> str:
        """Its state in one word."""
        if not self.is_staying:
            return 'stopping'
        return 'ready' if self.is_ready else 'starting'

    def open(self) -> tuple[int, int]:
        """Make the pipes, and return the ends for the process to be forked.

        :raises OSError: there are too many descriptors.
        """
        self.reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        try:
            lifeline, self._lifeline = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(writer)
            raise
        return writer, lifeline

    def meet(self, pid: int) -> None:
        """Record the *pid* of the process that was forked.

        :raises OSError: there is no free descriptor to wait for it with.
        """
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        """Close the supervisor's ends of the pipes, and the pidfd."""
        for descriptor in (self.pidfd, self.reader, self._lifeline):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self.reader = self._lifeline = -1

    def signal(self, signum: int) -> None:
        """Send it a signal; do nothing if it has ended."""
        try:
            os.kill(self.pid, signum)  # it stays a zombie until it is waited for
        except ProcessLookupError:
            pass

    def stop(self, signum: int, patience: float) -> None:
        """Tell it to stop, within *patience* seconds."""
        deadline = time.monotonic() + patience
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)
        self.signal(signum)

    def hear(self) -> list[tuple[str, str]]:
        """Return its new reports as names and values; keep a traceback in :attr:`trace`."""
        try:
            while chunk := os.read(self.reader, CHUNK):
                self._unread += chunk
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b'\n')
        reports = []
        for line in lines:
            name, separator, value = line.partition(b'=')
            if separator and name.isupper() and name.replace(b'_', b'').isalpha():
                reports.append((name.decode(), value.decode(errors='replace')))
            elif len(self.trace) < TRACE:
                self.trace += line + b'\n'
        return reports

    def resident(self) -> int:
        """Return the bytes in its resident set, including shared memory."""
        return proc.resident(self.pid)
