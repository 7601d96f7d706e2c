"""The messages that each process handles at the same time, in shared memory.

If a process dies while it handles several messages, any of them may be the reason. They become
suspects: each is run alone when it is delivered again, and what dies then is known to be guilty;
see :mod:`clihelper.process.scoreboard`. Messages that were only prefetched are not suspects.

The memory is shared between a supervisor and its workers. A single process with a state directory
has a file instead, so that its successor knows what it was handling::

    one array for each slot | suspects | how many slots have been used

Each place holds the fingerprint of a message, or 0. Foreign data in it does little harm: messages
that look like it are run alone.
"""

from __future__ import annotations

from mmap import mmap
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = 1024
"""the most messages of one process that are recorded"""

SUSPECTS = 8192
"""the most suspects; the oldest ones are forgotten"""

_MARK = Struct('<Q')
_SIZE = _MARK.size
_pack = _MARK.pack_into


class InHand:
    """The shared memory.

    :param memory: shared memory of :meth:`size` bytes.
    :param slots: the number of processes.
    """

    def __init__(self, memory: mmap, slots: int) -> None:
        self._memory = memory
        self._slots = slots
        self._suspects = slots * PLACES * _SIZE
        self._end = self._suspects + SUSPECTS * _SIZE
        self._next = 0

    @staticmethod
    def size(slots: int) -> int:
        """Return the number of bytes for this number of processes."""
        return (slots * PLACES + SUSPECTS + 1) * _SIZE

    @classmethod
    def anonymous(cls, slots: int) -> InHand:
        """Make one that is shared with processes forked from this one, and that ends with them."""
        return cls(mmap(-1, cls.size(slots)), slots)

    def reserve(self, slot: int) -> None:
        """Have others look into this slot from now on; for the process that forks the others."""
        if self._used <= slot < self._slots:
            _pack(self._memory, self._end, slot + 1)

    @property
    def _used(self) -> int:
        """How many slots have been used: looking into others would only take memory."""
        used: int = _MARK.unpack_from(self._memory, self._end)[0]
        return min(used, self._slots)

    def places(self, slot: int) -> Places:
        """Return the places of one process, which are cleared."""
        count = PLACES if slot < self._slots else 0
        self.reserve(slot)
        self.clear(slot)
        return Places(self._memory, slot * PLACES * _SIZE, count)

    def record_death(self, slot: int) -> None:
        """Make suspects of the messages that were in hand in a dead process."""
        for mark in self._marks(slot):
            _pack(self._memory, self._suspects + self._next * _SIZE, mark)
            self._next = (self._next + 1) % SUSPECTS
        self.clear(slot)

    def clear(self, slot: int) -> None:
        """Record that nothing is in hand, or is not why the process is about to be killed."""
        if slot < self._used:
            start = slot * PLACES * _SIZE
            self._memory[start : start + PLACES * _SIZE] = bytes(PLACES * _SIZE)

    def holders(self, mark: int) -> set[int]:
        """Return the slots in which a message is in hand."""
        used = self._used * PLACES * _SIZE
        return {place // (PLACES * _SIZE) for place in self._find(mark, 0, used)}

    def is_suspect(self, mark: int) -> bool:
        """Whether it was in hand, among others, when a process died."""
        return any(True for _ in self._find(mark, self._suspects, self._end))

    def forget(self, mark: int) -> None:
        """Forget a suspect, which has been settled."""
        for place in self._find(mark, self._suspects, self._end):
            _pack(self._memory, place, 0)

    def _marks(self, slot: int) -> list[int]:
        if slot >= self._used:
            return []
        start = slot * PLACES * _SIZE
        array = self._memory[start : start + PLACES * _SIZE]
        return [mark for (mark,) in _MARK.iter_unpack(array) if mark]

    def _find(self, mark: int, start: int, end: int) -> Iterator[int]:
        if not mark:  # looks like an empty place
            return
        data = _MARK.pack(mark)
        place = self._memory.find(data, start, end)
        while place >= 0:
            if place % _SIZE == 0:
                yield place
            place = self._memory.find(data, place + 1, end)


class Places:
    """The places of one process, which writes them."""

    def __init__(self, memory: mmap, offset: int, count: int) -> None:
        self._memory = memory
        self._free = [offset + number * _SIZE for number in reversed(range(count))]

    def take(self, mark: int) -> int:
        """Record a message; return its place, or -1 if there is none left."""
        if not self._free:
            return -1
        place = self._free.pop()
        _pack(self._memory, place, mark)
        return place

    def give_back(self, place: int) -> None:
        """Record that the message in this place is no longer in hand."""
        if place >= 0:
            _pack(self._memory, place, 0)
            self._free.append(place)
