"""Each worker's message in flight, and the messages that killed workers, in shared memory.

A message may kill the process that handles it (a segmentation fault, out of memory, ``os._exit``)
and is then delivered again. To stop this, each worker records the message that it is about to
handle in its own slot; the process that finds the worker dead counts the message in a table. The
table identifies it by its fingerprint; other prefetched messages, which were never started, are
not counted. The broker may redeliver before the supervisor has counted, so the slots of dead
workers are checked as well.

The memory is shared between a supervisor and its workers. For each delivery, recording costs a
checksum of the body and one write to memory. With a state directory, a file remains for the next
start:

- The file of a single process is its memory, so that its successor finds what it was handling
  when it died. Whoever truncates a mapped file kills the process that has it mapped, by SIGBUS;
  the next start says so.
- With a supervisor the memory is its own, and the file a copy of what has to outlive it: the
  table, and each message that was delivered before, since that may kill all processes at once.
  A file that is truncated is written anew.

The file has a fixed size::

    header | slots: since, fingerprint, handled, progress, pid, why, needed, outdated, stopping
           | table: fingerprint, deaths, why, when, pid

Torn or foreign data in it does no harm: an entry with a wrong checksum is ignored.
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

from clihelper.process import proc
from clihelper.process.in_hand import InHand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGER = logging.getLogger('clihelper')

SLOTS = 2048
"""processes that may handle messages: the workers, and as many that are being replaced"""

ENTRIES = 1024
"""the number of messages that the table can hold"""

PROBES = 8
"""places where an entry may be stored; if all are taken, the oldest is forgotten"""

EXPIRY = 7 * 24 * 3600.0
"""seconds after which a message is forgotten"""

CRASHED, TIMEOUT = 'crashed', 'timeout'
"""Why a worker died while handling a message, as in ``x-clihelper-reason``."""

_REASONS = (CRASHED, TIMEOUT)
_MAGIC = b'clihelper scoreboard'
_VERSION = 1
_HEADER = Struct('<20sIII32x')
_SLOT = Struct('<dQQdQQQ8x')
_PID = Struct('<Q')
_ENTRY = Struct('<QIIdQI4x')
_CHECKED = 32  # bytes of an entry that its checksum covers
_OUTDATED, _STOPPING = 56, 57  # offsets in a slot of what the supervisor tells its process
_MESSAGE = 8  # offset of the fingerprint in a slot
_PF_EXITING = 4  # from the kernel's include/linux/sched.h
_TABLE = _HEADER.size + SLOTS * _SLOT.size
SIZE = _TABLE + ENTRIES * _ENTRY.size

_since = Struct('<d').pack_into
_take = Struct('<dQ').pack_into
_rest = Struct('<dQQ').pack_into
_note = Struct('<Qd').pack_into
_NEEDED = Struct('<Q')
_number = _NEEDED.pack_into
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Unusable(Exception):
    """The file cannot be used as the scoreboard; the text says why."""


class Slot:
    """A slot for the message in flight in one process. That process writes it; others read it.

    :ivar note: called before a handler runs, with the message's fingerprint. It is not a method,
        because every delivery calls it.
    :ivar take: the same where handlers are timed; the time of ``time.monotonic`` comes first.
    :ivar int handled: how many messages the process has handled.
    :ivar float limit: the number of messages after which the process is replaced.
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

    def set_since(self, since: float) -> None:
        """Record since when handlers have been running; 0.0: none is."""
        _since(self._map, self._offset, since)

    def end_message(self) -> None:
        """Record that no message is in flight and that all are settled."""
        _rest(self._map, self._offset, 0.0, 0, self.handled)

    def heartbeat(self) -> None:
        """Record that the loop makes progress."""
        _note(self._map, self._offset + 16, self.handled, time.monotonic())

    def claim(self) -> None:
        """Make this process the owner of the slot."""
        _number(self._map, self._offset + 32, os.getpid())

    def keep(self, message: int) -> None:
        """Record a message in the file as well, where the file is a copy."""
        self.scoreboard.save(
            self._offset, _SLOT.pack(0.0, message, 0, 0.0, os.getpid(), 0, 0))

    def release(self) -> None:
        """Record in the file that no message is in flight."""
        self.scoreboard.save(self._offset, bytes(_SLOT.size))

    @property
    def is_needed(self) -> bool:
        """Whether no other process could take this one's place."""
        return bool(_NEEDED.unpack_from(self._map, self._offset + 48)[0])

    # For the processes that survive it.

    def set_needed(self, needed: bool) -> None:
        """Record whether another process could take this one's place."""
        _number(self._map, self._offset + 48, needed)

    def read(self) -> tuple[float, int, int, float]:
        """Return what the process has recorded. Times are those of ``time.monotonic``.

        :returns: when the message in flight was started (0.0: there is none), its fingerprint,
            how many messages were handled, and when the loop last made progress.
        """
        since, message, handled, progress, *_ = _SLOT.unpack_from(self._map, self._offset)
        return since, message, handled, progress

    def set_outdated(self, outdated: bool) -> None:
        """Tell the process whether others with a newer configuration take its place."""
        self._map[self._offset + _OUTDATED] = outdated

    @property
    def is_outdated(self) -> bool:
        """Whether others with a newer configuration take the place of this process."""
        return self._map[self._offset + _OUTDATED] != 0

    def set_stopping(self) -> None:
        """Tell the process that the service stops: no other will take its place."""
        self._map[self._offset + _STOPPING] = True

    @property
    def is_stopping(self) -> bool:
        """Whether the service stops."""
        return self._map[self._offset + _STOPPING] != 0

    def set_cause(self, reason: str) -> None:
        """Record that the process is about to be killed because of its message in flight."""
        _number(self._map, self._offset + 40, _REASONS.index(reason))

    def clear_in_flight(self) -> None:
        """Record that the message in flight is not why the process is about to be killed."""
        _number(self._map, self._offset + _MESSAGE, 0)
        self.release()
        if self.scoreboard.in_hand is not None:
            self.scoreboard.in_hand.clear(self.index)

    def clear(self) -> None:
        """Clear the slot for the next process."""
        self.handled = 0
        if self.scoreboard.in_hand is not None:
            self.scoreboard.in_hand.reserve(self.index)
        if self._map[self._offset : self._offset + _SLOT.size].strip(b'\0'):
            _SLOT.pack_into(self._map, self._offset, 0.0, 0, 0, 0.0, 0, 0, 0)
            self.release()

    def record_death(self) -> None:
        """Count the message that was in flight in the dead process, and clear the slot."""
        _, message, _, _, pid, reason, _ = _SLOT.unpack_from(self._map, self._offset)
        if message:
            self.scoreboard.count(message, pid, reason if reason < len(_REASONS) else 0)
        if self.scoreboard.in_hand is not None:
            self.scoreboard.in_hand.record_death(self.index)
        self.clear()


class Scoreboard:
    """The shared memory: the slots, and the table of messages that killed a worker.

    :param memory: shared memory of :data:`SIZE` bytes.
    :param clock: returns the time in seconds, also valid after a restart; by default
        :func:`time.time`.
    :ivar bool is_copied: whether what has to outlive the memory is copied to a file.
    :ivar in_hand: what each process has in hand, where it handles several messages at a time.
    """

    def __init__(self, memory: mmap, clock: Callable[[], float] = time.time) -> None:
        self.memory = memory
        self.is_copied = False
        self._clock = clock
        self._path = ''
        self._descriptor = -1
        self.in_hand: InHand | None = None

    @classmethod
    def anonymous(cls) -> Scoreboard:
        """Make one that is shared with processes forked from this one, and that ends with them."""
        return cls(mmap(-1, SIZE))

    @classmethod
    def open(cls, path: str, *, mapped: bool = True) -> Scoreboard:
        """Open the one in the file *path*, for this process only; create the file if necessary.

        The messages that were in flight in an earlier run are counted: its processes are dead.

        :param mapped: whether the file is the memory, rather than a copy.
        :raises Unusable: it is not a scoreboard file, or is in use.
        """
        try:
            descriptor, is_new = _open(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Unusable('is a symbolic link') from error
            raise Unusable(error.strerror or str(error)) from error
        try:
            _lock(descriptor)
            if _prepare(descriptor) and not is_new:
                LOGGER.warning('%s had been truncated, which ends a process that uses it; which'
                               ' messages ended one is no longer known', path)
            scoreboard = cls(mmap(descriptor, SIZE) if mapped else _read(descriptor))
        except OSError as error:
            os.close(descriptor)
            raise Unusable(error.strerror or str(error)) from error
        except Unusable:
            os.close(descriptor)
            raise
        scoreboard._descriptor = descriptor  # it holds the lock
        scoreboard._path = path
        scoreboard.is_copied = not mapped
        for index in range(SLOTS):
            scoreboard.slot(index).record_death()
        return scoreboard

    def slot(self, index: int) -> Slot:
        """Return the slot with that number, from 0."""
        return Slot(self, index)

    def is_suspect(self, message: int) -> bool:
        """Return whether a process died that had it in hand, among others."""
        in_hand = self.in_hand
        if in_hand is None:
            return False
        # In this order: what is recorded in between is a suspect by then.
        held = any(_is_dead(self._pid(slot)) for slot in in_hand.holders(message))
        return held or in_hand.is_suspect(message)

    def _pid(self, index: int) -> int:
        pid: int = _PID.unpack_from(self.memory, _HEADER.size + index * _SLOT.size + 32)[0]
        return pid

    def deaths(self, message: int) -> tuple[int, str]:
        """Return how often a process died while handling it, and the last reason.

        The calling process must not have this message in its slot.
        """
        if not message:  # looks like an empty slot: one message in four billion is not recognised
            return 0, CRASHED
        # In this order: a process that is counted in between appears in the table with its pid.
        uncounted = self._uncounted(message)
        deaths, reason, last = self._counted(message)
        for pid, why in uncounted:
            if pid != last:
                deaths, reason = deaths + 1, why
        return deaths, _REASONS[reason] if reason < len(_REASONS) else CRASHED

    def count(self, message: int, pid: int, reason: int) -> None:
        """Count that the process *pid* died while handling it."""
        deaths = self._counted(message)[0]
        offset = min(self._places(message), key=lambda place: self._rank(place, message))
        fields = (message, deaths + 1, reason, self._clock(), pid)
        check = crc32(_ENTRY.pack(*fields, 0)[:_CHECKED])
        self._write(offset, _ENTRY.pack(*fields, check))

    def forget(self, message: int) -> None:
        """Forget the message, which has been settled."""
        for offset in self._places(message):
            entry = self._entry(offset)
            if entry is not None and entry[0] == message:
                self._write(offset, bytes(_ENTRY.size))
        if self.in_hand is not None:
            self.in_hand.forget(message)

    def _write(self, offset: int, entry: bytes) -> None:
        self.memory[offset : offset + len(entry)] = entry
        self.save(offset, entry)

    def save(self, offset: int, data: bytes) -> None:
        """Write *data* to the file as well, if that is a copy."""
        if not self.is_copied:
            return
        try:
            if os.fstat(self._descriptor).st_size < SIZE:
                self._save_anew()
            os.pwrite(self._descriptor, data, offset)
        except OSError as error:
            self.is_copied = False
            LOGGER.warning('%s: %s; from now on this process does not write to it',
                           self._path, error.strerror)

    def _save_anew(self) -> None:
        """Write the header and the table to a file that was truncated."""
        os.posix_fallocate(self._descriptor, 0, SIZE)
        os.pwrite(self._descriptor, self.memory[: _HEADER.size], 0)
        os.pwrite(self._descriptor, self.memory[_TABLE:], _TABLE)
        LOGGER.warning('%s has been truncated and is written anew', self._path)

    def _counted(self, message: int) -> tuple[int, int, int]:
        """Return the deaths in the table, and the reason and pid of the last one."""
        for offset in self._places(message):
            entry = self._entry(offset)
            if entry is not None and entry[0] == message:
                return entry[1], entry[2], entry[4]
        return 0, 0, 0

    def _uncounted(self, message: int) -> list[tuple[int, int]]:
        """Return the pids of dead processes whose slots still hold it, and why they died."""
        found = []
        data = message.to_bytes(8, 'little')
        place = self.memory.find(data, _HEADER.size, _TABLE)
        while place >= 0:
            start = place - _MESSAGE
            if (start - _HEADER.size) % _SLOT.size == 0:
                *_, pid, reason, _ = _SLOT.unpack_from(self.memory, start)
                if _is_dead(pid):
                    found.append((pid, reason))
            place = self.memory.find(data, place + 1, _TABLE)
        return found

    def _places(self, message: int) -> Iterator[int]:
        first = message * 0x9E3779B97F4A7C15 >> 32  # spreads the bits of the checksum
        for number in range(PROBES):
            yield _TABLE + (first + number) % ENTRIES * _ENTRY.size

    def _rank(self, offset: int, message: int) -> float:
        """Rank the places: the one of the same message first, then empty ones, then the oldest."""
        entry = self._entry(offset)
        if entry is None:
            return 0.0
        return -1.0 if entry[0] == message else entry[3]

    def _entry(self, offset: int) -> tuple[int, int, int, float, int] | None:
        """Return fingerprint, deaths, reason, time and pid; None if there is no valid entry."""
        data = self.memory[offset : offset + _ENTRY.size]
        message, deaths, reason, when, pid, check = _ENTRY.unpack(data)
        if not message or crc32(data[:_CHECKED]) != check or reason >= len(_REASONS):
            return None
        if not -EXPIRY < self._clock() - when < EXPIRY:
            return None
        return message, deaths, reason, when, pid


def find(directory: str | None, appname: str, *, mapped: bool = True) -> Scoreboard | None:
    """Return the scoreboard in the state directory; None if there is none or it is unusable.

    An unusable one is logged in one line. The program works without it, and only forgets at a
    restart which messages killed it.

    :param mapped: as for :meth:`Scoreboard.open`.
    """
    if directory is None:
        return None
    path = os.path.join(directory, f'{appname}.scoreboard')
    try:
        scoreboard = Scoreboard.open(path, mapped=mapped)
        if mapped:
            path = os.path.join(directory, f'{appname}.in-hand')
            scoreboard.in_hand = InHand(_map(path, InHand.size(1)), 1)
            scoreboard.in_hand.record_death(0)
        return scoreboard
    except Unusable as error:
        LOGGER.warning(
            '%s: %s; after a restart it is not known which messages ended a process', path, error
        )
        return None


def _map(path: str, size: int) -> mmap:
    """Map the file that belongs to a locked scoreboard, and is created if necessary."""
    try:
        descriptor, _ = _open(path)
        try:
            _check(descriptor)
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, size)
            return mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from error


def _is_dead(pid: int) -> bool:
    """Return whether the process is gone, a zombie, or exiting with its sockets maybe closed."""
    try:
        fields = proc.fields(pid)
    except OSError:
        return True
    return fields[0] in (b'Z', b'X') or bool(int(fields[6]) & _PF_EXITING)


def _open(path: str) -> tuple[int, bool]:
    """Return a descriptor, and whether the file is new."""
    try:
        return os.open(path, _FLAGS), False
    except FileNotFoundError:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True


def _read(descriptor: int) -> mmap:
    """Return memory with the contents of the file."""
    memory = mmap(-1, SIZE)
    data = os.pread(descriptor, SIZE, 0)
    memory[: len(data)] = data
    return memory


def _check(descriptor: int) -> None:
    fault = fault_of(os.fstat(descriptor), os.geteuid())
    if fault:
        raise Unusable(fault)


def fault_of(status: os.stat_result, uid: int) -> str:
    """Return why a file cannot be the scoreboard of a user; empty if it can.

    :param uid: the id of the user.
    """
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return 'is not a regular file with a single name'
    if status.st_uid != uid or status.st_mode & 0o022:
        return 'belongs to another user, or is writable by others'
    return ''


def _lock(descriptor: int) -> None:
    import fcntl

    _check(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unusable('is in use by another process') from None


def _prepare(descriptor: int) -> bool:
    """Initialise the file if it is new or of another version: set its size and header.

    :returns: whether it was too short for its version.
    """
    size = os.fstat(descriptor).st_size
    header = _HEADER.pack(_MAGIC, _VERSION, SLOTS, ENTRIES)
    found = os.pread(descriptor, _HEADER.size, 0)
    if size == SIZE and found == header:
        return False
    if found.strip(b'\0') and not found.startswith(_MAGIC):
        raise Unusable('is not a scoreboard file, and is left alone')
    os.ftruncate(descriptor, 0)
    # Writing to memory without a disk block behind it would kill the process.
    os.posix_fallocate(descriptor, 0, SIZE)
    os.pwrite(descriptor, header, 0)
    return size < SIZE and header.startswith(found)
