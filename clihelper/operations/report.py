"""What a running daemon does, read from its shared memory; the daemon need not answer.

The report has the names and units of ``clihelper status --json``: times in seconds since the
epoch, ages and durations in seconds.
"""

from __future__ import annotations

import functools
import operator
import time

from clihelper.process import proc, series
from clihelper.process.statistics import QueueFigures, Statistics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from clihelper.process.statistics import Figures

RECENT = 60.0
"""the seconds in which what was handled and failed lately is counted"""

LATE = 5.0
"""the seconds after ``AMQP.handler_timeout`` by which whoever looks after the process ends it"""

GROUPED_BY = ('queue', 'reason', 'exception')
"""by what dead letters are counted"""

WORKING = ('idle', 'sleeping', 'active')
"""the states of a controller that is ready"""


def read(pid: int) -> dict[str, Any]:
    """Return the report of the daemon with that process ID.

    :raises PermissionError: it belongs to another user.
    :raises LookupError: it has ended, is of another version of clihelper, or has written what no
        version of it writes.
    """
    try:
        return make(*Statistics.of_process(pid).read())
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise LookupError(f'process {pid} has written what nobody understands') from error


def make(daemon: dict[str, Any], processes: list[Figures], ended: Figures) -> dict[str, Any]:
    """Return the report of what was read from the shared memory."""
    now, clock = time.time(), time.monotonic()
    processes = sorted(processes, key=lambda process: process.report.get('worker', 0))
    queues = _queues(processes, ended)
    errors = [each.report['last_error'] for each in (*processes, ended)
              if 'last_error' in each.report]
    shared = {label: name for each in processes
              for label, name in each.report.get('shared_dead_letters', {}).items()}
    report = {
        **daemon,
        'uptime': now - daemon.get('started', now),
        'config_age': now - config_read(daemon, processes),
        'processes': [_process(process, now, clock) for process in processes],
        'queues': {name: {**_queue(figures, lately, clock), 'dead_letter_queue': shared.get(name)}
                   for name, (figures, lately) in queues.items()},
        'dead_letter_groups': _groups((*processes, ended)),
        'counted': {name: sum(each.counted[name] for each in (*processes, ended))
                    for name in ended.counted},
        'ticks': _ticks((*processes, ended)),
        'last_error': max(errors, key=lambda error: error['time'], default=None),
    }
    report['paused'] = daemon.get('paused', {})
    report['ready'] = can_work(processes)
    return report


def config_read(daemon: dict[str, Any], processes: list[Figures]) -> float:
    """Return when the configuration in force was read; a process alone writes that itself."""
    own = [process.report.get('config_read', 0.0) for process in processes]
    return float(max(daemon.get('config_read', 0.0), *own, 0.0))


def can_work(processes: list[Figures]) -> bool:
    """Return whether the daemon can do its work now: a process is ready, and has its broker."""
    return any(
        each.state in WORKING and (each.report.get('broker') or {'consuming': True})['consuming']
        for each in processes
    )


def _process(process: Figures, now: float, clock: float) -> dict[str, Any]:
    queues = process.queues.values()
    return {
        'worker': process.report.get('worker', 1),
        'pid': process.pid,
        'state': process.state,
        'uptime': now - process.started,
        'in_hand': process.in_hand,
        'in_hand_queue': process.queue_in_hand or None,
        'in_hand_since': clock - process.since if process.since else None,
        'messages': sum(queue.runs for queue in queues),
        'failures': sum(queue.outcomes['failed'] for queue in queues),
        'rss': proc.resident(process.pid),
        'handler_timeout': process.report.get('handler_timeout'),
        'broker': process.report.get('broker'),
    }


def totals(everyone: Sequence[Figures]) -> dict[str, QueueFigures]:
    """Return the sum of all processes for each queue."""
    names = dict.fromkeys(name for each in everyone for name in each.queues)
    return {
        name: functools.reduce(
            operator.add, [each.queues[name] for each in everyone if name in each.queues])
        for name in names
    }


def _queues(
    processes: list[Figures], ended: Figures
) -> dict[str, tuple[QueueFigures, tuple[int, int]]]:
    """Return the sum of all processes for each queue, and what was done lately."""
    clock = time.monotonic()
    names = dict.fromkeys(name for each in (*processes, ended) for name in each.queues)
    found = {}
    for name in names:
        parts = [each.queues[name] for each in processes if name in each.queues]
        if name in ended.queues:
            parts.append(ended.queues[name])
        lately = [part.lately(clock, RECENT) for part in parts]
        total = functools.reduce(operator.add, parts)
        found[name] = total, (sum(runs for runs, _ in lately), sum(each for _, each in lately))
    return found


def dead_letter_groups(everyone: Iterable[Figures]) -> dict[series.Labels, int]:
    """Return how many messages were dead-lettered by queue, reason and exception."""
    counts: dict[series.Labels, int] = {}
    for process in everyone:
        for (_, _, labels), numbers in process.dead_letters.items():
            values = dict(labels)
            group = tuple((name, values.get(name, '')) for name in GROUPED_BY)
            counts[group] = counts.get(group, 0) + int(numbers[0])
    return counts


def _groups(everyone: Iterable[Figures]) -> list[dict[str, Any]]:
    """Return these groups, the largest first."""
    ordered = sorted(dead_letter_groups(everyone).items(), key=lambda item: -item[1])
    return [{**dict(labels), 'count': count} for labels, count in ordered]


def _queue(figures: QueueFigures, lately: tuple[int, int], clock: float) -> dict[str, Any]:
    depth, dead = figures.depth, figures.dead
    return {
        'ready': depth[0] if depth else None,
        'consumers': depth[1] if depth else None,
        'asked_ago': max(clock - depth[2], 0.0) if depth else None,
        'dead_letters': dead[0] if dead else None,
        'dead_letters_asked_ago': max(clock - dead[1], 0.0) if dead else None,
        'runs': figures.runs,
        'acknowledged': figures.acknowledged,
        'failed': figures.outcomes['failed'],
        'retried': figures.outcomes['retry'],
        'dead_lettered': figures.outcomes['dead_letter'],
        'requeued': figures.outcomes['requeue'],
        'runs_last_minute': lately[0],
        'failed_last_minute': lately[1],
        'p50': figures.quantile(0.5),
        'p99': figures.quantile(0.99),
    }


def _ticks(everyone: Iterable[Figures]) -> dict[str, Any]:
    """Return how many calls of ``_process`` have ended, and how long they took."""
    figures = functools.reduce(operator.add, [each.ticks for each in everyone])
    return {
        'runs': figures.runs,
        'seconds': figures.seconds,
        'p50': figures.quantile(0.5),
        'p99': figures.quantile(0.99),
    }


def is_live(report: dict[str, Any]) -> bool:
    """Return whether nothing hangs: each process has made progress when it should have."""
    return not any(_hangs(process) for process in report['processes'])


def _hangs(process: dict[str, Any]) -> bool:
    """Whether a process is stopped, or its handler has taken longer than it may."""
    timeout = process['handler_timeout']
    late = timeout is not None and (process['in_hand_since'] or 0.0) > timeout + LATE
    return late or _is_stopped(process['pid'])


def _is_stopped(pid: int) -> bool:
    try:
        return proc.fields(pid)[0] in (b'T', b't')
    except OSError:  # it has ended, and is replaced
        return False
