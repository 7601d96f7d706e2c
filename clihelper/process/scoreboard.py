"""What each worker has in hand, and which messages ended one: in memory that outlives a worker.

A message may end the process that handles it (a segmentation fault, out of memory, ``os._exit``),
and is then delivered again. So that this ends, each worker notes what it is about to handle in a
slot of its own; who finds the worker dead counts it in a table. A message whose worker died is
known there by its fingerprint; its neighbours in the prefetch, which were never begun, are not.
The broker may be faster than the supervisor: so the slots of the dead are looked at, too.

The memory is shared between a supervisor and its workers. Where there is a state directory it is
a mapped file, so that the next start has it, too: then a process that died alone is found by its
successor. Noting costs a delivery a checksum of its body and one write to memory.

The file has a fixed size::

    header | slots: since, fingerprint, handled, progress, pid, why
           | table: fingerprint, deaths, why, when, pid

What is torn or foreign in it does no harm: an entry with a wrong checksum is none.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from functools import partial
from mmap import mmap
from struct import Struct
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGER = logging.getLogger('clihelper')

SLOTS = 2048
"""processes that may have something in hand: the workers, and as many that are being replaced"""

ENTRIES = 1024
"""messages that are remembered"""

PROBES = 8
"""places in which an entry may be; where all are taken, the oldest is forgotten"""

EXPIRY = 7 * 24 * 3600.0
"""seconds after which a message is forgotten"""

CRASHED, TIMEOUT = 'crashed', 'timeout'
"""Why a worker died under a message, as ``x-clihelper-reason`` has it."""

_REASONS = (CRASHED, TIMEOUT)
_MAGIC = b'clihelper scoreboard'
_VERSION = 1
_HEADER = Struct('<20sIII32x')
_SLOT = Struct('<dQQdQQ16x')
_ENTRY = Struct('<QIIdQI4x')
_CHECKED = 32  # bytes of an entry that its checksum is of
_MESSAGE = 8  # where the fingerprint is in a slot
_PF_EXITING = 4  # of the kernel's include/linux/sched.h
_TABLE = _HEADER.size + SLOTS * _SLOT.size
SIZE = _TABLE + ENTRIES * _ENTRY.size

_take = Struct('<dQ').pack_into
_rest = Struct('<dQQ').pack_into
_note = Struct('<Qd').pack_into
_number = Struct('<Q').pack_into
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Unusable(Exception):
    """The file cannot be the scoreboard; the text says why."""


class Slot:
    """A slot: what one process has in hand. The process itself writes it, others read it.

    :ivar note: called before a handler runs, with the message's fingerprint. It is what every
        delivery costs, hence no method.
    :ivar take: the same where handlers are timed, with the time of ``time.monotonic`` before it.
    :ivar int handled: how many messages it has handled.
    :ivar float limit: after how many it is to be replaced.
    """

    __slots__ = ('_map', '_offset', 'handled', 'index', 'scoreboard', 'limit', 'note', 'take')

    def __init__(self, scoreboard: Scoreboard, index: int) -> None:
        self.scoreboard = scoreboard
        self.index = index
        self.handled = 0
        self.limit = float('inf')
        self._map = scoreboard.memory
        self._offset = _HEADER.size + index * _SLOT.size
        self.note: Callable[[int], None] = partial(_number, self._map, self._offset + _MESSAGE)
        self.take: Callable[[float, int], None] = partial(_take, self._map, self._offset)

    def end_message(self) -> None:
        """Nothing is in hand any more, and all that was is settled."""
        _rest(self._map, self._offset, 0.0, 0, self.handled)

    def heartbeat(self) -> None:
        """The loop has come round."""
        _note(self._map, self._offset + 16, self.handled, time.monotonic())

    def claim(self) -> None:
        """This process is the one whose slot it is."""
        _number(self._map, self._offset + 32, os.getpid())

    # For who survives it.

    def read(self) -> tuple[float, int, int, float]:
        """Since when something is in hand (0.0: nothing is), its fingerprint, how many messages
        were handled, and when the loop last came round; times are of ``time.monotonic``."""
        since, message, handled, progress, _, _ = _SLOT.unpack_from(self._map, self._offset)
        return since, message, handled, progress

    def set_cause(self, reason: str) -> None:
        """It is about to be killed for what it has in hand."""
        _number(self._map, self._offset + 40, _REASONS.index(reason))

    def clear_in_flight(self) -> None:
        """It is about to be killed, and what it has in hand is not to blame."""
        _number(self._map, self._offset + _MESSAGE, 0)

    def clear(self) -> None:
        """For the next process."""
        self.handled = 0
        _SLOT.pack_into(self._map, self._offset, 0.0, 0, 0, 0.0, 0, 0)

    def record_death(self) -> None:
        """The process is dead: count what it had in hand, and clear the slot."""
        _, message, _, _, pid, reason = _SLOT.unpack_from(self._map, self._offset)
        if message:
            self.scoreboard.count(message, pid, reason if reason < len(_REASONS) else 0)
        self.clear()


class Scoreboard:
    """The memory: slots, and the table of messages that ended a worker.

    :param memory: of :data:`SIZE` bytes, shared.
    :param clock: the time, in seconds, that survives a restart; by default :func:`time.time`.
    """

    def __init__(self, memory: mmap, clock: Callable[[], float] = time.time) -> None:
        self.memory = memory
        self._clock = clock
        self._descriptor = -1

    @classmethod
    def anonymous(cls) -> Scoreboard:
        """One that the processes forked from this one share, and that ends with them."""
        return cls(mmap(-1, SIZE))

    @classmethod
    def open(cls, path: str) -> Scoreboard:
        """The one in that file, which is made if it is not there, and is this process's alone.

        What processes of an earlier run had in hand is counted: they are dead.

        :raises Unusable: it is no such file, or in use.
        """
        try:
            descriptor = _open(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Unusable('is a symbolic link') from error
            raise Unusable(error.strerror or str(error)) from error
        try:
            _lock(descriptor)
            _prepare(descriptor)
            scoreboard = cls(mmap(descriptor, SIZE))
        except OSError as error:
            os.close(descriptor)
            raise Unusable(error.strerror or str(error)) from error
        except Unusable:
            os.close(descriptor)
            raise
        scoreboard._descriptor = descriptor  # it holds the lock
        for index in range(SLOTS):
            scoreboard.slot(index).record_death()
        return scoreboard

    def slot(self, index: int) -> Slot:
        """The slot of that number, from 0."""
        return Slot(self, index)

    def deaths(self, message: int) -> tuple[int, str]:
        """How often a process died under it, and of what the last time.

        To be asked by who has something else in hand, or nothing.
        """
        if not message:  # as if nothing was in hand: one in four milliards is not known
            return 0, CRASHED
        # In this order: whoever is buried in between is known in the table by the pid.
        unburied = self._unburied(message)
        deaths, reason, last = self._counted(message)
        for pid, why in unburied:
            if pid != last:
                deaths, reason = deaths + 1, why
        return deaths, _REASONS[reason] if reason < len(_REASONS) else CRASHED

    def count(self, message: int, pid: int, reason: int) -> None:
        """The process *pid* died under it."""
        deaths = self._counted(message)[0]
        offset = min(self._places(message), key=lambda place: self._rank(place, message))
        fields = (message, deaths + 1, reason, self._clock(), pid)
        check = crc32(_ENTRY.pack(*fields, 0)[:_CHECKED])
        _ENTRY.pack_into(self.memory, offset, *fields, check)

    def forget(self, message: int) -> None:
        """It has been settled."""
        for offset in self._places(message):
            entry = self._entry(offset)
            if entry is not None and entry[0] == message:
                self.memory[offset : offset + _ENTRY.size] = bytes(_ENTRY.size)

    def _counted(self, message: int) -> tuple[int, int, int]:
        """Deaths, reason and pid of the last, as far as they are in the table."""
        for offset in self._places(message):
            entry = self._entry(offset)
            if entry is not None and entry[0] == message:
                return entry[1], entry[2], entry[4]
        return 0, 0, 0

    def _unburied(self, message: int) -> list[tuple[int, int]]:
        """The pids of dead processes that still have it in hand, and why they died."""
        found = []
        data = message.to_bytes(8, 'little')
        place = self.memory.find(data, _HEADER.size, _TABLE)
        while place >= 0:
            start = place - _MESSAGE
            if (start - _HEADER.size) % _SLOT.size == 0:
                *_, pid, reason = _SLOT.unpack_from(self.memory, start)
                if _is_dead(pid):
                    found.append((pid, reason))
            place = self.memory.find(data, place + 1, _TABLE)
        return found

    def _places(self, message: int) -> Iterator[int]:
        first = message * 0x9E3779B97F4A7C15 >> 32  # spreads the bits of the checksum
        for number in range(PROBES):
            yield _TABLE + (first + number) % ENTRIES * _ENTRY.size

    def _rank(self, offset: int, message: int) -> float:
        """The place of the same message comes first, then an empty one, then the oldest."""
        entry = self._entry(offset)
        if entry is None:
            return 0.0
        return -1.0 if entry[0] == message else entry[3]

    def _entry(self, offset: int) -> tuple[int, int, int, float, int] | None:
        """Fingerprint, deaths, reason, time and pid; None if there is none that is valid."""
        data = self.memory[offset : offset + _ENTRY.size]
        message, deaths, reason, when, pid, check = _ENTRY.unpack(data)
        if not message or crc32(data[:_CHECKED]) != check or reason >= len(_REASONS):
            return None
        if not -EXPIRY < self._clock() - when < EXPIRY:
            return None
        return message, deaths, reason, when, pid


def find(directory: str | None, appname: str) -> Scoreboard | None:
    """The scoreboard in the state directory; None if there is no directory, or it cannot be used.

    The latter is told in one line of the log: the program works without it, and only forgets
    at a restart which messages ended it.
    """
    if directory is None:
        return None
    path = os.path.join(directory, f'{appname}.scoreboard')
    try:
        return Scoreboard.open(path)
    except Unusable as error:
        LOGGER.warning(
            '%s: %s; after a restart it is not known which messages ended a process', path, error
        )
        return None


def _is_dead(pid: int) -> bool:
    """Whether the process is gone, a zombie, or so far gone that its sockets may be closed."""
    try:
        with open(f'/proc/{pid}/stat', 'rb') as file:
            fields = file.read().rpartition(b')')[2].split()
    except OSError:
        return True
    return fields[0] in (b'Z', b'X') or bool(int(fields[6]) & _PF_EXITING)


def _open(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)


def _lock(descriptor: int) -> None:
    import fcntl

    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise Unusable('is no regular file of one name')
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Unusable('belongs to another, or others may write it')
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unusable('is in use by another process') from None


def _prepare(descriptor: int) -> None:
    """Give the file its size and its header, where it has none yet or those of another version."""
    size = os.fstat(descriptor).st_size
    header = _HEADER.pack(_MAGIC, _VERSION, SLOTS, ENTRIES)
    found = os.pread(descriptor, _HEADER.size, 0)
    if size == SIZE and found == header:
        return
    if found.strip(b'\0') and not found.startswith(_MAGIC):
        raise Unusable('is something else, and is left alone')
    os.ftruncate(descriptor, 0)
    # Memory that has no block of the disk behind it would end the process when it is written.
    os.posix_fallocate(descriptor, 0, SIZE)
    os.pwrite(descriptor, header, 0)
