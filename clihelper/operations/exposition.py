"""What a running daemon has counted, in Prometheus's text format.

https://prometheus.io/docs/instrumenting/exposition_formats/

Counters and histograms are sums over all processes of the daemon, those that have ended included,
so that they never decrease while it runs. What goes up and down is told of each worker.
"""

from __future__ import annotations

import functools
import operator
import os
import time
from itertools import accumulate

from clihelper.operations import report
from clihelper.process import flow, proc, series
from clihelper.process.statistics import bucket_of
from clihelper.states import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from clihelper.process.statistics import Figures, QueueFigures

    Sample = tuple[str, Sequence[tuple[str, object]], float]

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

FAMILIES = {
    'clihelper_info': ('gauge', 'The program and its version; always 1.'),
    'clihelper_start_timestamp_seconds': ('gauge', 'When the daemon was started.'),
    'clihelper_config_read_timestamp_seconds': (
        'gauge', 'When the configuration in force was read.'),
    'clihelper_reload_failed': ('gauge', '1 if the last reload failed.'),
    'clihelper_ready': ('gauge', '1 if the daemon can do its work now.'),
    'clihelper_workers': ('gauge', 'Processes that work, by the state of their controllers.'),
    'clihelper_workers_wanted': ('gauge', 'Processes that should work.'),
    'clihelper_worker_restarts_total': (
        'counter', 'Workers that were started again as one had ended without being told.'),
    'clihelper_broker_up': ('gauge', '1 if a process consumes; only of consumers.'),
    'clihelper_queue_paused': (
        'gauge', '1 if a queue is not consumed for now: paused by an operator, by its breaker, or'
        ' by its handler.'),
    'clihelper_reconnects_total': ('counter', 'Connections to the broker after the first.'),
    'clihelper_messages_total': (
        'counter', 'Messages and what became of them; a message that is retried is counted for'
        ' each run.'),
    'clihelper_message_failures_total': ('counter', 'Runs of handlers that raised an exception.'),
    'clihelper_handler_seconds': ('histogram', 'How long runs of handlers took.'),
    'clihelper_dead_letters_total': (
        'counter', 'Dead letters by queue, reason and exception.'),
    'clihelper_queue_messages': (
        'gauge', 'Messages that are ready in a queue, by the broker.'),
    'clihelper_queue_consumers': ('gauge', 'Consumers of a queue, by the broker.'),
    'clihelper_queue_dead_letters': (
        'gauge', 'Messages in the queue for dead letters of a queue, by the broker.'),
    'clihelper_queue_age_seconds': ('gauge', 'How long ago the broker has said so.'),
    'clihelper_in_hand': ('gauge', 'Messages that a worker is handling.'),
    'clihelper_in_hand_seconds': (
        'gauge', 'How long the oldest of them has been handled; 0 if there is none.'),
    'clihelper_published_total': ('counter', 'Messages of the program that the broker confirmed.'),
    'clihelper_publish_failures_total': (
        'counter', 'Messages of the program that the broker refused or did not confirm.'),
    'clihelper_ticks_total': ('counter', 'Calls of _process.'),
    'clihelper_tick_seconds': (
        'histogram', 'How long calls of _process took; only of programs that have it.'),
    'process_resident_memory_bytes': ('gauge', 'Resident memory of a process.'),
    'process_cpu_seconds_total': ('counter', 'Time on the CPU of a process.'),
    'process_open_fds': ('gauge', 'Open descriptors of a process.'),
    'process_start_time_seconds': ('gauge', 'When a process was started.'),
}
"""The type of each metric, and what it means."""

OUTCOMES = {'retry': 'retried', 'dead_letter': 'dead_lettered', 'requeue': 'requeued'}

PAUSED_BY = ('operator', *flow.REASONS)

EXPONENTS = range(6, 31)
"""The bounds of the histograms of durations are 2 to the power of these, in microseconds: 64 us to
18 minutes. They are bounds of the buckets that are counted, so the figures are exact."""

LIMITS = [(repr(2**exponent / 1e6), bucket_of(2**exponent) - 1) for exponent in EXPONENTS]

STALE = 60.0
"""seconds after which it is no longer told what a queue holds: the broker is away"""

SUPERVISOR = 'supervisor'
"""what stands in place of a worker's number for the process that starts them"""

TYPES = {series.COUNTER: 'counter', series.GAUGE: 'gauge', series.HISTOGRAM: 'histogram'}

VERBS = {'counter': 'Counted', 'gauge': 'Set', 'histogram': 'Observed'}


class Exposition:
    """Renders readings of the shared memory, one after the other."""

    def __init__(self) -> None:
        # A run is counted a moment before what became of its message: see _acknowledged.
        self._highest: dict[str, int] = {}

    def render(self, daemon: dict[str, Any], processes: list[Figures], ended: Figures) -> str:
        """Return the text for what :meth:`~.process.statistics.Statistics.read` has returned."""
        newest = _newest(processes)
        everyone = [*processes, ended]
        samples = [
            *_of_daemon(daemon, processes, newest),
            *_of_all(everyone),
            *_dead_letters(everyone),
            *self._of_queues(everyone),
            *_of_paused(daemon, everyone),
            *_of_workers(newest),
            *_of_processes(daemon, newest),
        ]
        return ''.join((*_families(samples), *_own(newest, everyone)))

    def _of_queues(self, everyone: list[Figures]) -> Iterator[Sample]:
        for name in dict.fromkeys(name for each in everyone for name in each.queues):
            parts = [each.queues[name] for each in everyone if name in each.queues]
            queue = ('queue', name)
            outcomes = {outcome: sum(part.outcomes[outcome] for part in parts)
                        for outcome in parts[0].outcomes}
            runs = sum(part.runs for part in parts)
            acknowledged = self._acknowledged(name, runs, outcomes)
            yield 'clihelper_messages_total', (queue, ('outcome', 'acknowledged')), acknowledged
            for outcome, word in OUTCOMES.items():
                yield 'clihelper_messages_total', (queue, ('outcome', word)), outcomes[outcome]
            yield 'clihelper_message_failures_total', (queue,), outcomes['failed']
            yield from _durations('clihelper_handler_seconds', (queue,), parts)
            yield from _held(queue, parts)

    def _acknowledged(self, name: str, runs: int, outcomes: dict[str, int]) -> int:
        """Return how many were acknowledged: never fewer than before, which would be a reset."""
        others = sum(outcomes[outcome] for outcome in OUTCOMES)
        highest = max(runs + outcomes['unrun'] - others, self._highest.get(name, 0))
        self._highest[name] = highest
        return highest


def _durations(
    name: str, labels: tuple[tuple[str, str], ...], parts: Sequence[QueueFigures]
) -> Iterator[Sample]:
    """Yield the histogram of how long runs took."""
    histogram = [*map(sum, zip(*(part.histogram for part in parts), strict=True))]
    counts = [*accumulate(histogram)]
    for bound, bucket in LIMITS:
        yield f'{name}_bucket', (*labels, ('le', bound)), counts[bucket]
    yield f'{name}_bucket', (*labels, ('le', '+Inf')), counts[-1]
    yield f'{name}_sum', labels, sum(part.seconds for part in parts)
    yield f'{name}_count', labels, counts[-1]


def _held(queue: tuple[str, str], parts: Sequence[QueueFigures]) -> Iterator[Sample]:
    """Yield what the broker has said that the queue holds, unless that was long ago."""
    clock = time.monotonic()
    total = functools.reduce(operator.add, parts)
    if total.depth and clock - total.depth[2] < STALE:
        messages, consumers, when = total.depth
        yield 'clihelper_queue_messages', (queue,), messages
        if consumers is not None:
            yield 'clihelper_queue_consumers', (queue,), consumers
        yield 'clihelper_queue_age_seconds', (queue,), round(max(clock - when, 0.0), 3)
    if total.dead and clock - total.dead[1] < STALE:
        yield 'clihelper_queue_dead_letters', (queue,), total.dead[0]


def _dead_letters(everyone: Iterable[Figures]) -> Iterator[Sample]:
    for labels, count in report.dead_letter_groups(everyone).items():
        yield 'clihelper_dead_letters_total', labels, count


def _newest(processes: Iterable[Figures]) -> dict[str, Figures]:
    """Return the processes by the number of the worker: of two, the one that replaces another."""
    ordered = sorted(processes, key=lambda each: each.started)
    found = {str(each.report.get('worker', 1)): each for each in ordered}
    return dict(sorted(found.items(), key=lambda item: item[0].zfill(8)))


def _of_daemon(
    daemon: dict[str, Any], processes: list[Figures], newest: dict[str, Figures]
) -> Iterator[Sample]:
    info = [(name, daemon.get(name) or '') for name in ('program', 'version')]
    yield 'clihelper_info', info, 1
    yield 'clihelper_start_timestamp_seconds', (), daemon.get('started', 0)
    yield 'clihelper_config_read_timestamp_seconds', (), report.config_read(daemon, processes)
    yield 'clihelper_reload_failed', (), 'reload_failed' in daemon
    yield 'clihelper_ready', (), report.can_work(processes)
    states = [each.state for each in newest.values()]
    for state in State:
        name = state.name.lower()
        yield 'clihelper_workers', (('state', name),), states.count(name)
    yield 'clihelper_workers_wanted', (), daemon.get('workers', 1)
    if any('broker' in each.report for each in processes):
        up = any((each.report.get('broker') or {}).get('consuming') for each in processes)
        yield 'clihelper_broker_up', (), up


def _of_paused(daemon: dict[str, Any], everyone: list[Figures]) -> Iterator[Sample]:
    paused = daemon.get('paused', {})
    names = dict.fromkeys(name for each in everyone for name in each.queues)
    for name in dict.fromkeys((*names, *paused)):
        by = paused.get(name, {}).get('by')
        for reason in PAUSED_BY:
            yield 'clihelper_queue_paused', (('queue', name), ('by', reason)), by == reason


def _of_all(everyone: list[Figures]) -> Iterator[Sample]:
    for name in everyone[-1].counted:
        yield f'clihelper_{name}_total', (), sum(each.counted[name] for each in everyone)
    if any(each.ticks.runs for each in everyone):
        yield from _durations('clihelper_tick_seconds', (), [each.ticks for each in everyone])


def _of_workers(newest: dict[str, Figures]) -> Iterator[Sample]:
    clock = time.monotonic()
    for worker, process in newest.items():
        labels = (('worker', worker),)
        yield 'clihelper_in_hand', labels, process.in_hand
        since = process.since
        yield 'clihelper_in_hand_seconds', labels, max(clock - since, 0.0) if since else 0


def _of_processes(daemon: dict[str, Any], newest: dict[str, Figures]) -> Iterator[Sample]:
    pids = {worker: process.pid for worker, process in newest.items()}
    if isinstance(pid := daemon.get('pid'), int) and pid not in pids.values():
        pids = {SUPERVISOR: pid, **pids}
    for worker, pid in pids.items():
        for name, value in _process(pid):
            yield name, (('worker', worker),), value


def _process(pid: int) -> Iterator[tuple[str, float]]:
    """Yield the figures of a process, as proc_pid_stat(5) has them."""
    try:
        fields = proc.fields(pid)
        tick = os.sysconf('SC_CLK_TCK')
        yield 'process_resident_memory_bytes', int(fields[21]) * os.sysconf('SC_PAGE_SIZE')
        yield 'process_cpu_seconds_total', (int(fields[11]) + int(fields[12])) / tick
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        yield 'process_start_time_seconds', round(booted + int(fields[19]) / tick, 2)
        yield 'process_open_fds', len(os.listdir(f'/proc/{pid}/fd'))
    except (OSError, IndexError, ValueError):  # it has ended, or this user may not look
        return


def _families(samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the samples in the order of :data:`FAMILIES`, each family with what it means."""
    found: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for name, labels, value in samples:
        family = name if name in found else name.rpartition('_')[0]
        found[family].append(_line(name, labels, value))
    for name, lines in found.items():
        if lines:
            kind, meaning = FAMILIES[name]
            yield _heading(name, kind, meaning)
            yield from lines


def _own(newest: dict[str, Figures], everyone: list[Figures]) -> Iterator[str]:
    """Yield what the program has counted itself, by name."""
    totals = _totals(newest, everyone)
    kinds: dict[str, int] = {}
    for (kind, name, labels), numbers in sorted(totals.items(), key=lambda item: item[0][1]):
        if name not in kinds:
            kinds[name] = kind
            yield _heading(name, TYPES[kind], f'{VERBS[TYPES[kind]]} by the program.')
        if kinds[name] == kind:  # a name has one kind
            yield from (_line(*sample) for sample in samples_of(kind, name, labels, numbers))


def _totals(newest: dict[str, Figures], everyone: list[Figures]) -> series.Series:
    totals: series.Series = {}
    for process in everyone:
        for key, numbers in process.series.items():
            if key[0] != series.GAUGE:
                before = totals.get(key)
                totals[key] = numbers if before is None else tuple(
                    a + b for a, b in zip(before, numbers, strict=True))
    for worker, process in newest.items():
        for (kind, name, labels), numbers in process.series.items():
            if kind == series.GAUGE:
                totals[kind, name, (*labels, ('worker', worker))] = numbers
    return totals


def samples_of(
    kind: int, name: str, labels: series.Labels, numbers: Sequence[float]
) -> Iterator[Sample]:
    """Yield what is told of a series that the program has counted itself."""
    if kind != series.HISTOGRAM:
        yield name, labels, numbers[0]
        return
    *counts, total = numbers
    summed = [*accumulate(counts)]
    bounds = [*map(_number, series.BOUNDS), '+Inf']
    for bound, count in zip(bounds, summed, strict=True):
        yield f'{name}_bucket', (*labels, ('le', bound)), count
    yield f'{name}_sum', labels, total
    yield f'{name}_count', labels, summed[-1]


def _heading(name: str, kind: str, meaning: str) -> str:
    return f'# HELP {name} {meaning}\n# TYPE {name} {kind}\n'


def _line(name: str, labels: Sequence[tuple[str, object]], value: float) -> str:
    return f'{sample_name(name, labels)} {_number(value)}\n'


def sample_name(name: str, labels: Sequence[tuple[str, object]]) -> str:
    """Return the name of a sample with its labels: ``name{label="value"}``."""
    if not labels:
        return name
    pairs = ','.join(f'{label}="{_escaped(str(value))}"' for label, value in labels)
    return f'{name}{{{pairs}}}'


def _escaped(value: str) -> str:
    if value.isalnum():
        return value
    value = value.replace('\\', r'\\').replace('"', r'\"').replace('\n', r'\n')
    return value.encode(errors='replace').decode()


def _number(value: float) -> str:
    if type(value) is int:
        return str(value)
    if value != value:
        return 'NaN'
    if value in (float('inf'), float('-inf')):
        return '+Inf' if value > 0 else '-Inf'
    return str(int(value)) if value == int(value) else repr(float(value))
