"""Which queues are not consumed for now, and when their next messages may be handled.

All processes of a daemon share it, in the memory of :mod:`clihelper.process.statistics`::

    header: changes, all are paused, entries | entry: all queues together | entry for each queue

    entry:  paused since, until, since, reason, who tries, next message, failures | name

A change is made under a lock of fcntl(2), which ends with the process that holds it. Whoever makes
one counts it and sends a signal to the other processes: they look at it before they begin with
another message, and when they wait.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from mmap import mmap
    from typing import Any

CALL = signal.SIGURG
"""the signal by which another thread or process has the main thread look at something; its default
is to be ignored"""

MOST = 1024
"""the most queues that a daemon can pause"""

MOST_FAILURES = 100
"""the most failures that a breaker counts"""

SLACK = 0.25
"""seconds of a rate that are made up for: a message that was late does not delay those after it"""

LONGEST_WAIT = 0.05
"""seconds to wait for the lock, which nobody holds for so long unless it was stopped"""

REASONS = ('breaker', 'handler')
"""why a queue is not consumed for a while"""

_HEADER, _ENTRY = 4096, 2048
_CHANGES, _ALL, _COUNT = range(0, 24, 8)
_PAUSED, _UNTIL, _SINCE, _REASON, _TRIAL, _NEXT, _FAILED, _FAILURES = range(0, 64, 8)
_LENGTH = 1024
_NAME = _LENGTH + 8
LONGEST_NAME = _ENTRY - _NAME
SIZE = _HEADER + (MOST + 1) * _ENTRY

_WHOLE, _REAL = Struct('<Q'), Struct('<d')


class Flow:
    """The shared memory, as far as it is about this.

    :param memory: it.
    :param offset: where this begins in it.
    :param descriptor: of a file to lock; None: it is only read.
    :param processes: returns the IDs of the daemon's processes.
    :ivar changes: its element counts the changes.
    """

    def __init__(
        self, memory: mmap, offset: int, descriptor: int | None,
        processes: Callable[[], Iterable[int]],
    ) -> None:
        self._memory = memory
        self._offset = offset
        self._descriptor = descriptor
        self._processes = processes
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self.changes = memoryview(memory)[offset : offset + 8].cast('Q')
        self.total = Entry(self, memory, offset + _HEADER)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other thread or process changes it, unless this one hangs."""
        assert self._descriptor is not None
        with self._lock:
            due = time.monotonic() + LONGEST_WAIT
            while True:
                with suppress(OSError):
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > due:
                    break  # whoever holds it was stopped in the middle
                os.sched_yield()
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def entry(self, name: str) -> Entry:
        """Return what is about the queue with this label, from now on one of the daemon's."""
        found = self._entries.get(name) or self._known().get(name)
        if found is None:
            with self.locked():
                found = self._known().get(name) or self._add(name)
        self._entries[name] = found
        return found

    def _add(self, name: str) -> Entry:
        count = self._word(_COUNT)
        if count >= MOST:
            raise LookupError(f'there are more than {MOST} queues')
        entry = Entry(self, self._memory, self._offset + _HEADER + (count + 1) * _ENTRY)
        entry.name = name
        if self._word(_ALL):
            entry.paused = time.time()
        _WHOLE.pack_into(self._memory, self._offset + _COUNT, count + 1)
        return entry

    def _known(self) -> dict[str, Entry]:
        start = self._offset + _HEADER
        entries = [Entry(self, self._memory, start + number * _ENTRY)
                   for number in range(1, min(self._word(_COUNT), MOST) + 1)]
        return {entry.name: entry for entry in entries}

    def _word(self, offset: int) -> int:
        word: int = _WHOLE.unpack_from(self._memory, self._offset + offset)[0]
        return word

    @property
    def names(self) -> list[str]:
        """The labels of the daemon's queues."""
        return list(self._known())

    def paused(self) -> tuple[bool, list[str]]:
        """Return whether all queues are paused, those that are still to come too; and which."""
        return bool(self._word(_ALL)), [
            name for name, entry in self._known().items() if entry.paused]

    def pause(self, names: Iterable[str] = (), *, everything: bool = False) -> None:
        """Pause queues, or all of them, those that are still to come too."""
        with self.locked():
            if everything:
                _WHOLE.pack_into(self._memory, self._offset + _ALL, 1)
            for name in {*names, *(self.names if everything else ())}:
                entry = self.entry(name)
                entry.paused = entry.paused or time.time()
        self.changed()

    def resume(self, names: Iterable[str] = (), *, everything: bool = False) -> None:
        """Have queues, or all of them, consumed again, whyever they are not."""
        with self.locked():
            _WHOLE.pack_into(self._memory, self._offset + _ALL, 0)
            for name in {*names, *(self.names if everything else ())}:
                entry = self.entry(name)
                entry.paused = 0.0
                entry.open()
        self.changed()

    def changed(self) -> None:
        """Count a change, and have all processes of the daemon look at it."""
        with self.locked():
            self.changes[0] += 1
        for pid in {*self._processes()}:
            with suppress(OSError):
                os.kill(pid, CALL)

    def forget(self, pid: int) -> None:
        """Have another process try what one that has ended would have tried."""
        left = [entry for entry in self._known().values() if pid and entry.trial == pid]
        for entry in left:
            entry.trial = 0
        if left:
            self.changed()

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return for each queue that is not consumed by whom that was wanted, and since when."""
        return {name: fact for name, entry in self._known().items() if (fact := entry.fact())}


class Entry:
    """What is about one queue, or about all of them together."""

    __slots__ = ('_flow', '_memory', '_offset')

    def __init__(self, flow: Flow, memory: mmap, offset: int) -> None:
        self._flow = flow
        self._memory = memory
        self._offset = offset

    def _real(self, offset: int) -> float:
        value: float = _REAL.unpack_from(self._memory, self._offset + offset)[0]
        return value

    def _set(self, offset: int, value: float) -> None:
        _REAL.pack_into(self._memory, self._offset + offset, value)

    def _word(self, offset: int) -> int:
        word: int = _WHOLE.unpack_from(self._memory, self._offset + offset)[0]
        return word

    def _set_word(self, offset: int, value: int) -> None:
        _WHOLE.pack_into(self._memory, self._offset + offset, value)

    @property
    def name(self) -> str:
        start = self._offset + _NAME
        return self._memory[start : start + self._word(_LENGTH)].decode(errors='replace')

    @name.setter
    def name(self, name: str) -> None:
        data = name.encode(errors='replace')[:LONGEST_NAME]
        start = self._offset + _NAME
        self._memory[start : start + len(data)] = data
        self._set_word(_LENGTH, len(data))

    @property
    def paused(self) -> float:
        """Since when somebody has it paused, in seconds since the epoch; 0.0: nobody has."""
        return self._real(_PAUSED)

    @paused.setter
    def paused(self, since: float) -> None:
        self._set(_PAUSED, since)

    @property
    def until(self) -> float:
        """When one message is to be tried, by the monotonic clock; 0.0: none is to be."""
        return self._real(_UNTIL)

    @property
    def trial(self) -> int:
        """The ID of the process that tries one message; 0: none does yet."""
        return self._word(_TRIAL)

    @trial.setter
    def trial(self, pid: int) -> None:
        self._set_word(_TRIAL, pid)

    def close(self, seconds: float, reason: str) -> None:
        """Have it not consumed for so long; then one message is tried.

        :param reason: one of :data:`REASONS`.
        """
        with self._flow.locked():
            if not self.until:
                self._set(_SINCE, time.time())
            self._set_word(_REASON, REASONS.index(reason))
            self.trial = 0
            self._forget_failures()
            self._set(_UNTIL, time.monotonic() + seconds)
        self._flow.changed()

    def open(self) -> None:
        """Have it consumed, unless it is paused."""
        self._set(_UNTIL, 0.0)
        self.trial = 0
        self._forget_failures()

    def claim(self) -> bool:
        """Return whether it is for this process to try one message, from now on."""
        with self._flow.locked():
            if self.trial not in (0, os.getpid()) and _exists(self.trial):
                return False
            self.trial = os.getpid()
            return True

    def succeed(self) -> None:
        """Have it consumed by all processes: the message that was tried has not failed."""
        with self._flow.locked():
            self.open()
        self._flow.changed()

    def leave(self) -> None:
        """Have another process try one message, if it was for this one."""
        if self.trial == os.getpid():
            self.trial = 0
            self._flow.changed()

    # Failures.

    def fail(self, failures: int, within: float) -> bool:
        """Count a failure; return whether there were so many within so many seconds."""
        with self._flow.locked():
            count, now = self._word(_FAILED), time.monotonic()
            self._set(_FAILURES + 8 * (count % failures), now)
            self._set_word(_FAILED, count + 1)
            if count + 1 < failures:
                return False
            return now - self._real(_FAILURES + 8 * ((count + 1) % failures)) <= within

    def _forget_failures(self) -> None:
        self._set_word(_FAILED, 0)

    # The rate.

    @property
    def next(self) -> float:
        """When the next message may be handled, by the monotonic clock."""
        return self._real(_NEXT)

    def take(self, interval: float, now: float) -> None:
        """Note that a message is handled, in the lock."""
        self._set(_NEXT, max(self.next, now - SLACK) + interval)

    # For whoever asks.

    def fact(self) -> dict[str, Any] | None:
        """Return why it is not consumed, since when, and until when; None if it is."""
        if self.paused:
            return {'by': 'operator', 'since': self.paused, 'until': None, 'tries': False}
        until = self.until
        if not until:
            return None
        left = until - time.monotonic()
        return {
            'by': REASONS[min(self._word(_REASON), len(REASONS) - 1)],
            'since': self._real(_SINCE),
            'until': time.time() + left if left > 0 else None,
            'tries': left <= 0,
        }


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
