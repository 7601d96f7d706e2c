"""What each worker has in hand, and which messages ended one: in memory that outlives a worker.

A message may end the process that handles it (a segmentation fault, out of memory, ``os._exit``),
and is then delivered again. So that this ends, each worker notes what it is about to handle in a
slot of its own; who finds the worker dead counts it in a table. A message whose worker died is
known there by its fingerprint; its neighbours in the prefetch, which were never begun, are not.

The memory is shared between a supervisor and its workers. Where there is a state directory it is
a mapped file, so that the next start has it, too: then a process that died alone is found by its
successor. Noting costs a delivery a checksum of its body and one write to memory.

The file has a fixed size::

    header | slots: since, fingerprint, handled, progress | table: fingerprint, runs, why, when

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
_MAGIC = b'clihelper ledger'
_VERSION = 1
_HEADER = Struct('<16sIII36x')
_SLOT = Struct('<dQQd32x')
_ENTRY = Struct('<QIIdI4x')
_CHECKED = 24  # bytes of an entry that its checksum is of
_TABLE = _HEADER.size + SLOTS * _SLOT.size
SIZE = _TABLE + ENTRIES * _ENTRY.size

_take = Struct('<dQ').pack_into
_rest = Struct('<dQQ').pack_into
_note = Struct('<Qd').pack_into
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Unusable(Exception):
    """The file cannot be the ledger; the text says why."""


def fingerprint(body: bytes, seed: int) -> int:
    """What a message is known by; never 0.

    :param seed: a checksum of what else tells messages apart: the queue.
    """
    return crc32(body, seed) or 1


class Hand:
    """A slot: what one process has in hand. The process itself writes it, others read it.

    :ivar take: called before a handler runs, with the time of ``time.monotonic`` and the
        message's fingerprint. It is what every delivery costs, hence no method.
    :ivar int handled: how many messages it has handled.
    :ivar float limit: after how many it is to be replaced.
    """

    __slots__ = ('_map', '_offset', 'handled', 'index', 'ledger', 'limit', 'take')

    def __init__(self, ledger: Ledger, index: int) -> None:
        self.ledger = ledger
        self.index = index
        self.handled = 0
        self.limit = float('inf')
        self._map = ledger.memory
        self._offset = _HEADER.size + index * _SLOT.size
        self.take: Callable[[float, int], None] = partial(_take, self._map, self._offset)

    def rest(self) -> None:
        """Nothing is in hand any more, and all that was is settled."""
        _rest(self._map, self._offset, 0.0, 0, self.handled)

    def progress(self) -> None:
        """The loop has come round."""
        _note(self._map, self._offset + 16, self.handled, time.monotonic())

    def read(self) -> tuple[float, int, int, float]:
        """Since when something is in hand (0.0: nothing is), its fingerprint, how many messages
        were handled, and when the loop last came round; times are of ``time.monotonic``."""
        return _SLOT.unpack_from(self._map, self._offset)

    def clear(self) -> None:
        """For the next process."""
        self.handled = 0
        _SLOT.pack_into(self._map, self._offset, 0.0, 0, 0, 0.0)

    def bury(self, reason: str | None) -> None:
        """The process is dead: count what it had in hand, and clear the slot.

        :param reason: :data:`CRASHED` or :data:`TIMEOUT`; None: it was stopped, do not count.
        """
        _, message, _, _ = self.read()
        if message and reason is not None:
            self.ledger.count(message, reason)
        self.clear()


class Ledger:
    """The memory: slots, and the table of messages that ended a worker.

    :param memory: of :data:`SIZE` bytes, shared.
    :param clock: the time, in seconds, that survives a restart; by default :func:`time.time`.
    """

    def __init__(self, memory: mmap, clock: Callable[[], float] = time.time) -> None:
        self.memory = memory
        self._clock = clock
        self._descriptor = -1

    @classmethod
    def anonymous(cls) -> Ledger:
        """One that the processes forked from this one share, and that ends with them."""
        return cls(mmap(-1, SIZE))

    @classmethod
    def open(cls, path: str) -> Ledger:
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
            ledger = cls(mmap(descriptor, SIZE))
        except OSError as error:
            os.close(descriptor)
            raise Unusable(error.strerror or str(error)) from error
        except Unusable:
            os.close(descriptor)
            raise
        ledger._descriptor = descriptor  # it holds the lock
        for index in range(SLOTS):
            ledger.hand(index).bury(CRASHED)
        return ledger

    def hand(self, index: int) -> Hand:
        """The slot of that number, from 0."""
        return Hand(self, index)

    def crashes(self, message: int) -> tuple[int, str]:
        """How often a worker died under it, and of what the last time."""
        for offset in self._places(message):
            entry = self._entry(offset)
            if entry is not None and entry[0] == message:
                return entry[1], _REASONS[entry[2]]
        return 0, CRASHED

    def count(self, message: int, reason: str) -> None:
        """A worker died under it."""
        runs, _ = self.crashes(message)
        self.forget(message)
        places = {offset: self._entry(offset) for offset in self._places(message)}
        offset = min(places, key=lambda place: (places[place] or (0, 0, 0, 0.0))[3])
        now = self._clock()
        fields = (message, runs + 1, _REASONS.index(reason), now)
        check = crc32(_ENTRY.pack(*fields, 0)[:_CHECKED])
        _ENTRY.pack_into(self.memory, offset, *fields, check)

    def forget(self, message: int) -> None:
        """It has been settled."""
        for offset in self._places(message):
            entry = self._entry(offset)
            if entry is not None and entry[0] == message:
                self.memory[offset : offset + _ENTRY.size] = bytes(_ENTRY.size)

    def _places(self, message: int) -> Iterator[int]:
        first = message * 0x9E3779B97F4A7C15 >> 32  # spreads the bits of the checksum
        for number in range(PROBES):
            yield _TABLE + (first + number) % ENTRIES * _ENTRY.size

    def _entry(self, offset: int) -> tuple[int, int, int, float] | None:
        """Fingerprint, runs, reason and time; None if there is none that is valid now."""
        data = self.memory[offset : offset + _ENTRY.size]
        message, runs, reason, when, check = _ENTRY.unpack(data)
        if not message or crc32(data[:_CHECKED]) != check or reason >= len(_REASONS):
            return None
        if not -EXPIRY < self._clock() - when < EXPIRY:
            return None
        return message, runs, reason, when


def find(directory: str | None, appname: str) -> Ledger | None:
    """The ledger in the state directory; None if there is no directory, or it cannot be used.

    The latter is told in one line of the log: the program works without it, and only forgets
    at a restart which messages ended it.
    """
    if directory is None:
        return None
    path = os.path.join(directory, f'{appname}.ledger')
    try:
        return Ledger.open(path)
    except Unusable as error:
        LOGGER.warning(
            '%s: %s; after a restart it is not known which messages ended a process', path, error
        )
        return None


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
