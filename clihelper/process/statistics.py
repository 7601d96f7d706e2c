"""What each process of a daemon does, in shared memory, for whoever asks.

Each process writes its own slot; ``clihelper status`` and its like read it, so that what they say
is true even if the process is stopped or hangs. The memory is a file without a name
(memfd_create(2)) that nobody can shrink; it ends with the daemon. Others find it among the
descriptors of the process in ``/proc``, which takes the daemon's user or root::

    header: magic, version, slots, change, slots used | the daemon's report | its configuration
            | which queues are not consumed
    slots:  the first one has the totals of the processes that have ended

    slot:   pid, state, since, in hand, counters | calls of _process | the process's report
            | queues | own metrics | dead letters
    queue, calls of _process:
            outcomes | sum of seconds | histogram | what was done in each of the last intervals
            | what the broker has said

Numbers are eight bytes each and aligned, so that each is written at once, by one process. A report
is text that changes rarely: it is written beside the valid one, which it then replaces. While the
figures of a process become part of the totals, ``change`` is odd.

There is address space for as many slots as a supervisor has at all; memory is taken by those that
have been written to, and no reader looks beyond those that have been used.

Durations are counted in a histogram with four buckets for each power of two microseconds: a
quantile of it is at most a quarter too large.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import json
import os
import time
import weakref
from mmap import MADV_REMOVE, MAP_SHARED, PROT_READ, mmap
from struct import Struct

from clihelper.process import flow, series
from clihelper.states import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from clihelper.process.flow import Flow

NAME = 'clihelper-statistics'
"""the name of the memory in ``/proc/PID/fd``"""

QUEUES = 64
"""the most queues that a process counts each for itself; the last one has the others, too"""

BUCKETS = 128
"""the buckets of a histogram"""

OUTCOMES = ('retry', 'dead_letter', 'requeue', 'failed', 'unrun')
"""What is counted of each queue besides its runs: the outcomes other than an acknowledgement, the
runs that raised an exception, and messages that were settled without another run."""

SAMPLES = 16
"""the number of intervals for which it is kept how much was done in each"""

SAMPLE_INTERVAL = 5.0
"""the seconds of such an interval"""

OTHERS = '(others)'
"""what stands for the queues beyond :data:`QUEUES`"""

DEAD_LETTERS = 'dead_letters_total'
"""the name of the series of dead letters"""

READINGS = 10
"""how often reading is repeated, each time a millisecond later, while figures are being moved"""

COUNTED = ('ticks', 'reconnects', 'published', 'publish_failures', 'worker_restarts')
"""what is counted for a whole process; restarts of workers, for the whole daemon"""

_MAGIC = b'clihelper statistics'
_VERSION = 5
_HEADER = Struct('<24sQQ')
_CHANGE = _HEADER.size
_USED = _CHANGE + 8
_REPORT = 32768  # bytes of a report, of which two are kept
_DAEMON_VALID, _CONFIGURATION_VALID, _ASKED = 56, 64, 72
_DAEMON = 4096
_CONFIGURATION = _DAEMON + 2 * _REPORT
_FLOW = _CONFIGURATION + 2 * _REPORT
_TOP = _FLOW + flow.SIZE

# Offsets in a slot
_PID, _STATE, _STARTED, _SINCE, _IN_HAND, _QUEUE_IN_HAND, _VALID, _COUNTED = range(0, 64, 8)
_TICKS, _REPORTS = 2048, 4096
_QUEUES = _REPORTS + 2 * _REPORT
_QUEUE = 2048
_SERIES = _QUEUES + QUEUES * _QUEUE
_DEAD_LETTERS = _SERIES + series.SIZE
_SLOT = _DEAD_LETTERS + series.SIZE

# Offsets in a queue
_SECONDS = 8 * len(OUTCOMES)
_SAMPLED, _HISTOGRAM = _SECONDS + 8, _SECONDS + 24
_SAMPLES = _HISTOGRAM + 8 * BUCKETS
_SAMPLE = Struct('<QQQ')
_DEPTH, _DEAD = _QUEUE - 32, _QUEUE - 16
_FIGURES = Struct(f'<{len(OUTCOMES)}Qd2Q{BUCKETS}Q{3 * SAMPLES}Q')

_STATES = list(State)
_NUMBERS = {state: number for number, state in enumerate(_STATES, 1)}
_ANSWER = Struct('<Qd')
_MOST = _UNKNOWN = 2**32 - 1
_WHOLE, _TWO, _REAL, _TWO_REALS = Struct('<Q'), Struct('<QQ'), Struct('<d'), Struct('<dd')


def bucket_of(microseconds: int) -> int:
    """Return the bucket of a duration: its first three binary digits, and how many follow."""
    if microseconds < 8:
        return microseconds
    shift = microseconds.bit_length() - 3
    return min(shift * 4 + (microseconds >> shift), BUCKETS - 1)


def upper_bound(bucket: int) -> float:
    """Return the upper bound of a bucket, in seconds; the last one has none, and gets one."""
    following = bucket + 1
    if following < 8:
        return following / 1e6
    shift = following // 4 - 1
    return float((following - 4 * shift) << shift) / 1e6


FAST = bytes(bucket_of(each) for each in range(4096))
"""the buckets of short durations"""


class Statistics:
    """The shared memory.

    :param memory: it.
    :param slots: the number of slots in it.
    :param descriptor: of its file, to lock; None: it is only read.
    :ivar flow: which queues are not consumed for now, and when messages may be handled.
    """

    def __init__(self, memory: mmap, slots: int, descriptor: int | None = None) -> None:
        self._memory = memory
        self.slots = slots
        self.flow = flow.Flow(memory, _FLOW, descriptor, self._processes)
        if descriptor is not None:
            weakref.finalize(self.flow, os.close, descriptor).atexit = False
        self._report = _Report(memory, _DAEMON, _DAEMON_VALID)
        self._configuration = _Report(memory, _CONFIGURATION, _CONFIGURATION_VALID)
        self._totals = ProcessStatistics(memory, _TOP)

    @classmethod
    def make(cls, slots: int = 1) -> Statistics:
        """Make one for this process and those forked from it.

        :param slots: the most processes at a time.
        """
        size = _size(slots)
        descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            memory = mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        _HEADER.pack_into(memory, 0, _MAGIC, _VERSION, slots)
        return cls(memory, slots, descriptor)

    @classmethod
    def of_process(cls, pid: int) -> Statistics:
        """Open that of another process, for reading.

        :raises PermissionError: the process belongs to another user.
        :raises LookupError: it has none, or has ended.
        """
        folder = f'/proc/{pid}/fd'
        try:
            for name in os.listdir(folder):
                with contextlib.suppress(FileNotFoundError):  # it has been closed since
                    path = f'{folder}/{name}'
                    if os.readlink(path).startswith(f'/memfd:{NAME}'):
                        return cls._open(path)
        except (FileNotFoundError, ProcessLookupError):
            pass
        raise LookupError(f'process {pid} has no statistics')

    @classmethod
    def _open(cls, path: str) -> Statistics:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            memory = mmap(descriptor, 0, MAP_SHARED, PROT_READ)
        finally:
            os.close(descriptor)
        magic, version, slots = _HEADER.unpack_from(memory)
        if magic.rstrip(b'\0') != _MAGIC or version != _VERSION or len(memory) != _size(slots):
            raise LookupError('its statistics are those of another version of clihelper')
        return cls(memory, slots)

    def tell(self, **facts: Any) -> None:
        """Change what the daemon as a whole says of itself; None takes a fact away."""
        self._report.tell(facts)

    def tell_configuration(self, sections: dict[str, Any]) -> None:
        """Write the configuration in force, as anybody may see it."""
        self._configuration.tell(sections, whole=True)

    def read_configuration(self) -> dict[str, Any]:
        """Return the configuration in force; empty if it is not known."""
        return self._configuration.read()

    def count(self, name: str) -> None:
        """Count one of :data:`COUNTED` for the daemon as a whole."""
        self._totals.count(name)

    def slot(self, index: int) -> ProcessStatistics:
        """Return the slot of a process, from 0; beyond the last one, one that nobody reads.

        The process that forks the others calls this, so that one process writes what is used.
        """
        if index >= self.slots:
            beyond = Statistics.make().slot(0)
            beyond.flow = self.flow
            return beyond
        if index >= self._used:
            _WHOLE.pack_into(self._memory, _USED, index + 1)
        return ProcessStatistics(self._memory, _TOP + (index + 1) * _SLOT, self.flow)

    def end(self, index: int) -> None:
        """Add the figures of a process that has ended to the totals, and clear its slot."""
        if index >= self.slots:
            return
        figures = Figures(self._memory, _TOP + (index + 1) * _SLOT)
        self._change()
        self._totals.add(figures)
        self.slot(index).clear()
        self._change()
        self.flow.forget(figures.pid)

    def _change(self) -> None:
        number = _WHOLE.unpack_from(self._memory, _CHANGE)[0]
        _WHOLE.pack_into(self._memory, _CHANGE, number + 1)

    def read(self) -> tuple[dict[str, Any], list[Figures], Figures]:
        """Return the daemon's report, the figures of each process, and of those that have ended.

        They belong together, unless whoever changes them is stopped in the middle of it.
        """
        for _ in range(READINGS):
            before = _WHOLE.unpack_from(self._memory, _CHANGE)[0]
            totals = Figures(self._memory, _TOP)
            processes = [Figures(self._memory, offset) for offset in self._taken()]
            if not before % 2 and before == _WHOLE.unpack_from(self._memory, _CHANGE)[0]:
                break
            time.sleep(0.001)
        facts, paused = self._report.read(), self.flow.facts()
        if paused:
            facts['paused'] = paused
        return facts, [each for each in processes if each.pid], totals

    def _processes(self) -> list[int]:
        """Return the IDs of the processes, as far as they have slots."""
        return [_WHOLE.unpack_from(self._memory, offset + _PID)[0] for offset in self._taken()]

    @property
    def _used(self) -> int:
        """How many slots have been used, from the first one on."""
        used: int = _WHOLE.unpack_from(self._memory, _USED)[0]
        return min(used, self.slots)

    def _taken(self) -> Iterator[int]:
        """Where the slots are in which there is a process."""
        for offset in range(_TOP + _SLOT, _TOP + (self._used + 1) * _SLOT, _SLOT):
            if _WHOLE.unpack_from(self._memory, offset + _PID)[0]:
                yield offset


class ProcessStatistics:
    """What a process writes of itself. Nobody else writes it while there is that process.

    :ivar queues: what counts the messages of each queue, by its name.
    :ivar since: its element is when the oldest run in hand began, by the monotonic clock; 0.0:
        nothing is in hand.
    :ivar metrics: what the program counts itself.
    :ivar flow: which queues are not consumed for now, in all processes.
    :ivar ticks: what counts how long calls of ``_process`` took.
    """

    flow: Flow

    def __init__(self, memory: mmap, offset: int, shared: Flow | None = None) -> None:
        self._memory = memory
        self._offset = offset
        if shared is not None:
            self.flow = shared
        self._lock = _thread.RLock()
        whole = memoryview(memory)
        if whole.readonly:
            return
        self.since = whole[offset + _SINCE : offset + _SINCE + 8].cast('d')
        self._in_hand = whole[offset + _IN_HAND : offset + _IN_HAND + 16].cast('Q')
        self._report = _Report(memory, offset + _REPORTS, offset + _VALID)
        self.queues = _Queues(self)
        self._configuration = _Report(memory, _CONFIGURATION, _CONFIGURATION_VALID)
        self._use_regions()
        self._interval = 0

    def _use_regions(self) -> None:
        self.ticks = QueueStatistics(self._memory, self._offset + _TICKS)
        self.metrics = series.Metrics(self._memory, self._offset + _SERIES)
        self._dead_letters = series.Metrics(self._memory, self._offset + _DEAD_LETTERS)

    def begin(self, worker: int) -> None:
        """Take the slot: this process is there.

        :param worker: its number among the workers.
        """
        self.clear()
        self.queues.clear()
        self._use_regions()
        self._report.tell({'worker': worker})
        _REAL.pack_into(self._memory, self._offset + _STARTED, time.time())
        _WHOLE.pack_into(self._memory, self._offset + _PID, os.getpid())

    def clear(self) -> None:
        """Clear the slot: there is no process."""
        try:
            self._memory.madvise(MADV_REMOVE, self._offset, _SLOT)  # its pages are zero, and free
        except OSError:  # not every kernel has that
            self._memory[self._offset : self._offset + _SLOT] = bytes(_SLOT)

    def tell(self, **facts: Any) -> None:
        """Change what the process says of itself; None takes a fact away."""
        self._report.tell(facts)

    def tell_configuration(self, sections: dict[str, Any]) -> None:
        """Write the configuration in force; for a process that is the whole daemon."""
        self._configuration.tell(sections, whole=True)

    def set_state(self, state: State) -> None:
        """Write the state of the controller."""
        _WHOLE.pack_into(self._memory, self._offset + _STATE, _NUMBERS[state])

    def set_in_hand(self, count: int) -> None:
        """Write how many messages are in hand, if that may be more than one."""
        self._in_hand[0] = count

    def set_queue(self, queue: QueueStatistics) -> None:
        """Write from which queue the oldest message in hand is."""
        self._in_hand[1] = queue.number

    def count(self, name: str, amount: int = 1) -> None:
        """Count one of :data:`COUNTED`. Any thread may call this."""
        offset = self._offset + _COUNTED + 8 * COUNTED.index(name)
        with self._lock:
            number = _WHOLE.unpack_from(self._memory, offset)[0]
            _WHOLE.pack_into(self._memory, offset, number + amount)

    def count_dead_letter(self, queue: str, reason: str, exception: str) -> None:
        """Count a dead letter.

        :param exception: the name of its class; empty if the reason is another.
        """
        name = queue if queue in self.queues else OTHERS
        self._dead_letters.count(DEAD_LETTERS, queue=name, reason=reason, exception=exception)

    def claims_question(self, interval: float) -> bool:
        """Return whether it is this process's turn to ask the broker what the queues hold.

        :param interval: seconds since one of the daemon's processes asked last.
        """
        now = time.monotonic()
        if now < _REAL.unpack_from(self._memory, _ASKED)[0] + interval:
            return False
        _REAL.pack_into(self._memory, _ASKED, now)
        return True

    def set_depth(self, queue: str, messages: int, consumers: int | None) -> None:
        """Write what the broker says that a queue holds, now.

        :param consumers: None: that is not known.
        """
        if (figures := self.queues[queue]) is not self.queues.get(OTHERS):
            figures.set_depth(messages, consumers)

    def set_dead(self, queue: str, messages: int, _: int | None = None) -> None:
        """Write how many dead letters of a queue there are, now."""
        if (figures := self.queues[queue]) is not self.queues.get(OTHERS):
            figures.set_dead(messages)

    def read(self) -> Figures:
        """Return what this process has written."""
        return Figures(self._memory, self._offset)

    def sample(self) -> None:
        """Note what was done since the last time, once in each :data:`SAMPLE_INTERVAL`."""
        interval = int(time.monotonic() / SAMPLE_INTERVAL)
        if interval != self._interval:
            self._interval = interval
            for queue in self.queues.values():
                queue.sample(interval)

    def make_queue(self, number: int, names: Sequence[str]) -> QueueStatistics:
        """Make what counts the messages of the queue with this number.

        :param names: the names of all queues that are counted.
        """
        self._report.tell({'queues': names})
        return QueueStatistics(self._memory, self._offset + _QUEUES + number * _QUEUE, number)

    def add(self, figures: Figures) -> None:
        """Add those of a process that has ended."""
        for name, amount in figures.counted.items():
            self.count(name, amount)
        self.ticks.add(figures.ticks)
        for name, queue in figures.queues.items():
            self.queues[name].add(queue)
        self.metrics.add(figures.series)
        self._dead_letters.add(figures.dead_letters)
        if 'last_error' in figures.report:
            self.tell(last_error=figures.report['last_error'])


class _Queues(dict[str, 'QueueStatistics']):
    """What counts the messages of each queue, made when it is first asked for."""

    def __init__(self, process: ProcessStatistics) -> None:
        super().__init__()
        self._process = process

    def __missing__(self, name: str) -> QueueStatistics:
        number = len(self)
        if number >= QUEUES - 1 and name != OTHERS:
            return self[OTHERS]
        self[name] = made = self._process.make_queue(number, [*self, name])
        return made


class QueueStatistics:
    """What a process writes of one queue's messages.

    :ivar histogram: how many runs took how long, in shared memory.
    :ivar int number: the queue's number among those of the process.
    :ivar float seconds: what all runs took together; :meth:`write` writes it.
    """

    __slots__ = ('_memory', '_offset', '_outcomes', '_seconds', 'histogram', 'number', 'seconds')

    def __init__(self, memory: mmap, offset: int, number: int = 0) -> None:
        self.number = number
        whole = memoryview(memory)
        self._memory = memory
        self._offset = offset
        self._outcomes = whole[offset : offset + _SECONDS].cast('Q')
        self._seconds = whole[offset + _SECONDS : offset + _SECONDS + 8].cast('d')
        self.histogram = whole[offset + _HISTOGRAM : offset + _SAMPLES].cast('Q')
        self.seconds = 0.0

    def run(self, seconds: float, messages: int = 1) -> None:
        """Count a run that took so long.

        :param messages: how many messages were handled by it; each is counted, with its share.
        """
        self.seconds += seconds
        microseconds = int(seconds / messages * 1e6)
        self.histogram[FAST[microseconds] if microseconds < len(FAST)
                       else bucket_of(microseconds)] += messages
        self.write()

    def write(self) -> None:
        """Write :attr:`seconds`, which is not done at once as that takes time."""
        self._seconds[0] = self.seconds

    def count(self, name: str) -> None:
        """Count one of :data:`OUTCOMES`."""
        self._outcomes[OUTCOMES.index(name)] += 1

    def set_depth(self, messages: int, consumers: int | None) -> None:
        """Write what the broker says that the queue holds, now."""
        known = _UNKNOWN if consumers is None else min(consumers, _UNKNOWN - 1)
        self._write_answer(_DEPTH, min(messages, _MOST) << 32 | known, time.monotonic())

    def set_dead(self, messages: int) -> None:
        """Write how many dead letters there are, now."""
        self._write_answer(_DEAD, messages, time.monotonic())

    def _write_answer(self, place: int, number: int, now: float) -> None:
        # In this order, so that nobody takes an old answer for a new one.
        _WHOLE.pack_into(self._memory, self._offset + place, number)
        _REAL.pack_into(self._memory, self._offset + place + 8, now)

    def sample(self, interval: int) -> None:
        """Note what was done since the last time as done in this interval.

        :param interval: its number, by the monotonic clock.
        """
        runs, failed = sum(self.histogram), self._outcomes[OUTCOMES.index('failed')]
        runs_before, failed_before = _TWO.unpack_from(self._memory, self._offset + _SAMPLED)
        _TWO.pack_into(self._memory, self._offset + _SAMPLED, runs, failed)
        self._note(interval, runs - runs_before, failed - failed_before)

    def _note(self, interval: int, runs: int, failed: int) -> None:
        offset = self._offset + _SAMPLES + interval % SAMPLES * _SAMPLE.size
        noted, runs_before, failed_before = _SAMPLE.unpack_from(self._memory, offset)
        if noted == interval:
            runs, failed = runs + runs_before, failed + failed_before
        _SAMPLE.pack_into(self._memory, offset, interval, runs, failed)

    def add(self, figures: QueueFigures) -> None:
        """Add those of a process that has ended."""
        for number, amount in enumerate(figures.outcomes.values()):
            self._outcomes[number] += amount
        for number, amount in enumerate(figures.histogram):
            if amount:
                self.histogram[number] += amount
        self.seconds += figures.seconds
        self.write()
        for place in (_DEPTH, _DEAD):
            number, when = figures.answers[place]
            if when > _ANSWER.unpack_from(self._memory, self._offset + place)[1]:
                self._write_answer(place, number, when)
        for sample in (*figures.samples, (int(time.monotonic() / SAMPLE_INTERVAL),
                                          *figures.unsampled)):
            if sample[0] > int(time.monotonic() / SAMPLE_INTERVAL) - SAMPLES:
                self._note(*sample)
        _TWO.pack_into(self._memory, self._offset + _SAMPLED, sum(self.histogram),
                       self._outcomes[OUTCOMES.index('failed')])


NOT_COUNTED = QueueStatistics(mmap(-1, _QUEUE), 0)
"""what is counted here is not read by anybody"""


class _Report:
    """A report, written beside the valid one: who reads it never sees half of it."""

    def __init__(self, memory: mmap, offset: int, valid: int) -> None:
        self._memory = memory
        self._offset = offset
        self._valid = valid
        self._facts: dict[str, Any] = {}

    def tell(self, facts: dict[str, Any], *, whole: bool = False) -> None:
        known = facts if whole else self._facts | facts
        changed = {name: fact for name, fact in known.items() if whole or fact is not None}
        if changed == self._facts:
            return
        data = json.dumps(changed, ensure_ascii=False).encode(errors='replace')
        if len(data) > _REPORT - 8:
            return  # it is what it was
        self._facts = changed
        number = _WHOLE.unpack_from(self._memory, self._valid)[0] + 1
        start = self._offset + number % 2 * _REPORT
        _WHOLE.pack_into(self._memory, start, len(data))
        self._memory[start + 8 : start + 8 + len(data)] = data
        _WHOLE.pack_into(self._memory, self._valid, number)

    def read(self) -> dict[str, Any]:
        """Return it; empty if there is none, or if it is what no process has written."""
        for _ in range(READINGS):
            number = _WHOLE.unpack_from(self._memory, self._valid)[0]
            start = self._offset + number % 2 * _REPORT
            length = min(_WHOLE.unpack_from(self._memory, start)[0], _REPORT - 8)
            data = self._memory[start + 8 : start + 8 + length]
            if _WHOLE.unpack_from(self._memory, self._valid)[0] <= number + 1:
                break
        try:
            report = json.loads(data or b'{}')
        except (ValueError, RecursionError):
            return {}
        return report if isinstance(report, dict) else {}


_NOTHING = _FIGURES.unpack(bytes(_FIGURES.size))


class QueueFigures:
    """What was counted of one queue's messages.

    :ivar outcomes: for each of :data:`OUTCOMES`, how many.
    :ivar histogram: how many runs there were for each bucket of durations.
    :ivar float seconds: what all runs took together.
    """

    def __init__(self, memory: mmap | None = None, offset: int = 0) -> None:
        numbers: Sequence[Any] = _NOTHING
        if memory is not None:
            numbers = _FIGURES.unpack_from(memory, offset)
        self.outcomes: dict[str, int] = dict(zip(OUTCOMES, numbers, strict=False))
        self.seconds, *self._sampled = numbers[len(OUTCOMES) : len(OUTCOMES) + 3]
        self.histogram: Sequence[int] = numbers[-3 * SAMPLES - BUCKETS : -3 * SAMPLES]
        self._samples: Sequence[int] = numbers[-3 * SAMPLES :]
        self.answers = dict.fromkeys((_DEPTH, _DEAD), (0, 0.0))
        if memory is not None:
            self.answers = {place: _ANSWER.unpack_from(memory, offset + place)
                            for place in self.answers}

    @property
    def depth(self) -> tuple[int, int | None, float] | None:
        """What the broker has said that the queue holds; None: it has not been asked.

        The messages that are ready, the consumers (None: not known), and when that was, by the
        monotonic clock.
        """
        number, when = self.answers[_DEPTH]
        consumers = number & _UNKNOWN
        known = None if consumers == _UNKNOWN else consumers
        return (number >> 32, known, when) if when else None

    @property
    def dead(self) -> tuple[int, float] | None:
        """How many dead letters there were, and when; None: the broker has not been asked."""
        number, when = self.answers[_DEAD]
        return (number, when) if when else None

    @property
    def samples(self) -> list[tuple[int, int, int]]:
        """What was done in the last intervals: the number of each, runs, and failures."""
        numbers = iter(self._samples)
        return [sample for sample in zip(numbers, numbers, numbers, strict=True) if sample[0]]

    @property
    def unsampled(self) -> tuple[int, int]:
        """Runs and failures since then."""
        runs, failed = self._sampled
        return max(self.runs - runs, 0), max(self.outcomes['failed'] - failed, 0)

    def __add__(self, other: QueueFigures) -> QueueFigures:
        both = QueueFigures()
        both.outcomes = {
            name: count + other.outcomes[name] for name, count in self.outcomes.items()}
        both.histogram = [a + b for a, b in zip(self.histogram, other.histogram, strict=True)]
        both.seconds = self.seconds + other.seconds
        both.answers = {place: max(answer, other.answers[place], key=lambda each: each[1])
                        for place, answer in self.answers.items()}
        return both

    @property
    def acknowledged(self) -> int:
        """How many messages were acknowledged as their handler returned."""
        outcomes = self.outcomes
        others = outcomes['retry'] + outcomes['dead_letter'] + outcomes['requeue']
        return max(self.runs + outcomes['unrun'] - others, 0)

    @property
    def runs(self) -> int:
        """How many runs have ended."""
        return sum(self.histogram)

    def quantile(self, share: float) -> float | None:
        """Return the seconds that so large a share of the runs took at most; None without any."""
        left = self.runs * share
        if not left:
            return None
        for bucket, count in enumerate(self.histogram):
            left -= count
            if left <= 0:
                return upper_bound(bucket)
        return upper_bound(BUCKETS - 1)

    def lately(self, now: float, seconds: float = 60.0) -> tuple[int, int]:
        """Return how many runs ended, and how many failed, in the last *seconds*.

        :param now: by the monotonic clock.
        """
        first = int((now - seconds) / SAMPLE_INTERVAL)
        recent = [self.unsampled]
        recent += [(runs, failed) for interval, runs, failed in self.samples if interval > first]
        return sum(runs for runs, _ in recent), sum(failed for _, failed in recent)


class Figures:
    """What one process has written.

    :ivar pid: its process ID; 0: there is no process.
    :ivar state: the name of its controller's state, in lower case; empty: none yet.
    :ivar started: when it began, in seconds since the epoch.
    :ivar since: when the oldest run in hand began, by the monotonic clock; 0.0: none is in hand.
    :ivar in_hand: how many messages are in hand.
    :ivar queue_in_hand: from which queue the oldest of them is; empty: none is in hand.
    :ivar counted: for each of :data:`COUNTED`, how many.
    :ivar ticks: how long calls of ``_process`` took.
    :ivar report: what it says of itself.
    :ivar queues: what it has counted, by the name of the queue.
    :ivar series: what the program has counted itself.
    :ivar dead_letters: the dead letters by queue, reason and exception: series like the program's.
    """

    def __init__(self, memory: mmap, offset: int) -> None:
        self.pid, state, = _TWO.unpack_from(memory, offset + _PID)
        self.state = _STATES[state - 1].name.lower() if 0 < state <= len(_STATES) else ''
        self.started, self.since = _TWO_REALS.unpack_from(memory, offset + _STARTED)
        in_hand, queue = _TWO.unpack_from(memory, offset + _IN_HAND)
        self.in_hand = in_hand or int(self.since > 0)
        self.counted = {
            name: _WHOLE.unpack_from(memory, offset + _COUNTED + 8 * number)[0]
            for number, name in enumerate(COUNTED)
        }
        self.ticks = QueueFigures(memory, offset + _TICKS)
        self.report = _Report(memory, offset + _REPORTS, offset + _VALID).read()
        names = self.report.get('queues', [])
        if not isinstance(names, list):
            names = []
        self.queue_in_hand = str(names[queue]) if self.in_hand and queue < len(names) else ''
        self.queues = {
            str(name): QueueFigures(memory, offset + _QUEUES + number * _QUEUE)
            for number, name in enumerate(names[:QUEUES])
        }
        self.series = series.read(memory, offset + _SERIES)
        self.dead_letters = series.read(memory, offset + _DEAD_LETTERS)


def _size(slots: int) -> int:
    return _TOP + (slots + 1) * _SLOT
