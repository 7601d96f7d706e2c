"""The metrics that a program counts itself, in shared memory: ``self.metrics`` of a controller.

They are a region in the slot of the process; see :mod:`clihelper.process.statistics`. Series are
appended to it and stay where they are until the process has ended::

    bytes used | series, one after the other

    series: kind, length of its key | key: JSON of the name and the labels | numbers

What the region holds is complete up to the bytes used, which are written last. Numbers are
doubles, aligned, each written by one process.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import re
import weakref
from bisect import bisect_left
from math import inf
from mmap import mmap
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger('clihelper')

SIZE = 65536
"""the bytes of a region: about 600 counters with a label or two, or 150 histograms"""

COUNTER, GAUGE, HISTOGRAM = 1, 2, 3
"""the kinds of series"""

BOUNDS = tuple(float(f'{digit}e{exponent}') for exponent in range(-4, 8) for digit in (1, 2, 5))
"""the upper bounds of the buckets of what is observed: from 0.0001 to 50,000,000"""

RESERVED = ('clihelper_', 'process_', 'python_')
"""how the names of a program's own metrics do not begin"""

RESERVED_LABELS = ('le', 'worker')
"""labels that mean something else"""

LONGEST_KEY = 2048
"""the most bytes of a key"""

SUFFIXES = ('_bucket', '_count', '_sum', '_total')
"""how the names of gauges and of what is observed do not end: they would be taken for others"""

_NAME = re.compile('[a-zA-Z_][a-zA-Z0-9_]*')
_USED = Struct('<Q')
_HEADER = Struct('<II')
_REAL = Struct('<d')
_NUMBERS = {COUNTER: 1, GAUGE: 1, HISTOGRAM: len(BOUNDS) + 2}  # and +Inf, and the sum

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]


class Metrics:
    """What a program counts, in a region of shared memory. Any thread may call the methods.

    :param memory: shared memory.
    :param offset: where the region begins in it.
    """

    def __init__(self, memory: mmap, offset: int = 0) -> None:
        self._lock = _thread.RLock()  # a hook called by a signal handler may count, too
        self._use(memory, offset)
        _made.add(self)

    @classmethod
    def unshared(cls) -> Metrics:
        """Make one that nobody reads."""
        return cls(mmap(-1, SIZE))

    def _use(self, memory: mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self._values = memoryview(memory)[offset : offset + SIZE].cast('d')
        self._places: dict[object, int] = {}
        self._known: dict[Key, int] = {}
        self._kinds: dict[str, int] = {}
        self._is_full = False
        self._used = _USED.size

    def leave(self) -> None:
        """Count from here on what nobody reads: this is a child of the process that counts."""
        self._lock = _thread.RLock()
        self._use(mmap(-1, SIZE), 0)

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        """Count events.

        :param name: the name of the metric; ``_total`` is appended unless it ends so.
        :param amount: how many; 0 or more.
        :param labels: what else is known of them: few values each, as each is a series.
        :raises ValueError: a name is none for Prometheus, is reserved, or is that of a metric of
            another kind; or the amount is negative or no number.
        """
        if not 0 <= amount < inf:
            raise ValueError(f'{name}: a counter grows by a number of at least 0: {amount}')
        with self._lock:
            try:
                place = self._places[(name, *labels.items()) if labels else name]
            except (KeyError, TypeError):
                place = self._find(COUNTER, name, labels)
            self._values[place] += amount

    def gauge(self, name: str, value: float, /, **labels: object) -> None:
        """Set a value that goes up and down. Each worker has its own, with its label ``worker``.

        :param value: the value from now on.
        :raises ValueError: as :meth:`count`; or the value is no number.
        """
        value = float(value)
        with self._lock:
            try:
                place = self._places[GAUGE, name, *labels.items()]
            except (KeyError, TypeError):
                place = self._find(GAUGE, name, labels)
            self._values[place] = value

    def observe(self, name: str, value: float, /, **labels: object) -> None:
        """Count a value in a histogram, with :data:`BOUNDS`.

        :param value: a duration in seconds, a size in bytes, or whatever the name says.
        :raises ValueError: as :meth:`count`; or the value is not finite.
        """
        if not -inf < value < inf:
            raise ValueError(f'{name}: what is observed is a finite number: {value}')
        with self._lock:
            try:
                place = self._places[HISTOGRAM, name, *labels.items()]
            except (KeyError, TypeError):
                place = self._find(HISTOGRAM, name, labels)
            self._values[place + bisect_left(BOUNDS, value)] += 1
            self._values[place + len(BOUNDS) + 1] += value

    def add(self, series: Series) -> None:
        """Add what a process has counted that has ended; its gauges end with it."""
        with self._lock:
            for (kind, name, labels), numbers in series.items():
                if kind != GAUGE:
                    place = self._place(kind, (name, labels))
                    for number, amount in enumerate(numbers, place):
                        self._values[number] += amount

    def _find(self, kind: int, name: str, labels: dict[str, object]) -> int:
        """Return where the numbers of a series are; it is made if there is none yet."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f'{name!r} is no name for a metric: letters, digits and _ are')
        full = f'{name}_total' if kind == COUNTER and not name.endswith('_total') else name
        self._check(kind, full, labels)
        ordered = tuple(sorted((label, str(value)) for label, value in labels.items()))
        place = self._place(kind, (full, ordered))
        if place != _NOWHERE:
            first: object = (kind, name, *labels.items())
            if kind == COUNTER:
                first = (name, *labels.items()) if labels else name
            try:
                self._places[first] = place
            except TypeError:  # a value of a label cannot be hashed: it is found the longer way
                pass
        return place

    def _check(self, kind: int, name: str, labels: dict[str, object]) -> None:
        if name.startswith(RESERVED):
            raise ValueError(f'{name}: such names are those of metrics of clihelper and others')
        if kind != COUNTER and name.endswith(SUFFIXES):
            raise ValueError(f'{name}: _{name.rpartition("_")[2]} is the end of another kind of'
                             ' metric')
        if self._kinds.get(name, kind) != kind:
            raise ValueError(f'{name} is a metric of another kind already')
        for label in labels:
            if not _NAME.fullmatch(label) or label.startswith('__') or label in RESERVED_LABELS:
                raise ValueError(f'{name}: {label!r} is no name for a label')

    def _place(self, kind: int, key: Key) -> int:
        place = self._known.get(key)
        if place is None:
            place = self._append(kind, key)
        return place

    def _append(self, kind: int, key: Key) -> int:
        """Append a series; return where its numbers are: beyond the region if it is full."""
        data = json.dumps(key).encode()
        start = self._used
        numbers = start + _HEADER.size + -(-len(data) // 8) * 8
        end = numbers + 8 * _NUMBERS[kind]
        if len(data) > LONGEST_KEY or end > SIZE - 8 * _NUMBERS[HISTOGRAM]:
            self._warn(key[0])
            return _NOWHERE
        self._used = end
        _HEADER.pack_into(self._memory, self._offset + start, kind, len(data))
        first = self._offset + start + _HEADER.size
        self._memory[first : first + len(data)] = data
        _USED.pack_into(self._memory, self._offset, self._used)
        self._known[key] = numbers // 8
        self._kinds[key[0]] = kind
        return numbers // 8

    def _warn(self, name: str) -> None:
        if not self._is_full:
            self._is_full = True
            LOGGER.warning('%s is not counted with these labels: there are too many series, or'
                           ' a value is too long; others are not counted either', name)


_NOWHERE = SIZE // 8 - _NUMBERS[HISTOGRAM]
"""where the numbers of series go that have no place, and nobody reads them"""

_made: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _leave_in_child() -> None:
    for metrics in list(_made):
        metrics.leave()


os.register_at_fork(after_in_child=_leave_in_child)

Series = dict[tuple[int, str, Labels], tuple[float, ...]]
"""What was counted: the numbers of each series, by its kind, name and labels."""


def read(memory: mmap, offset: int) -> Series:
    """Return what is counted in a region; what no process has written is left out."""
    used = min(_USED.unpack_from(memory, offset)[0], SIZE)
    return {} if used <= _USED.size else dict(_read(memory[offset : offset + used]))


def _read(region: bytes) -> Iterator[tuple[tuple[int, str, Labels], tuple[float, ...]]]:
    start = _USED.size
    while start + _HEADER.size <= len(region):
        kind, length = _HEADER.unpack_from(region, start)
        numbers = start + _HEADER.size + -(-length // 8) * 8
        end = numbers + 8 * _NUMBERS.get(kind, SIZE)
        if end > len(region):
            return
        try:
            name, labels = json.loads(region[start + _HEADER.size :][:length])
            key = kind, str(name), tuple((str(label), str(value)) for label, value in labels)
        except (ValueError, TypeError, RecursionError):
            return
        yield key, Struct(f'<{_NUMBERS[kind]}d').unpack_from(region, numbers)
        start = end
