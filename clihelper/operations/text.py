"""A daemon's report as lines for a terminal."""

from __future__ import annotations

import time

from clihelper.errors import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

UNITS = ((86400, 'd'), (3600, 'h'), (60, 'min'))


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines below the one that says that it runs."""
    version = report.get('version')
    yield (f'  {report.get("program", "")}{f" {version}" if version else ""}, up'
           f' {duration(report["uptime"])}; {report.get("config", "")} of'
           f' {duration(report["config_age"])} ago')
    yield from _workers(report)
    for number, why in report.get('missing', {}).items():
        yield f'  worker {number} cannot be started: {why}'
    if 'reload_failed' in report:
        yield f'  the last reload failed: {report["reload_failed"]}'
    yield from _broker(report)
    yield from _paused(report['paused'])
    yield from _queues(report['queues'])
    if ticks := report['counted']['ticks']:
        took = report['ticks']
        yield (f'  _process was called {counted(ticks, "time")}; p50 {short(took["p50"])},'
               f' p99 {short(took["p99"])}')
    if report['last_error']:
        yield _last_error(report['last_error'])


def _workers(report: dict[str, Any]) -> Iterator[str]:
    rows = [('worker', 'pid', 'state', 'in hand', 'messages', 'failures', 'memory')]
    for process in report['processes']:
        rows.append((
            str(process['worker']), str(process['pid']), process['state'], _in_hand(process),
            str(process['messages']), str(process['failures']), size(process['rss']),
        ))
    yield from table(rows)


def _in_hand(process: dict[str, Any]) -> str:
    if not process['in_hand']:
        return '-'
    since = duration(process['in_hand_since'] or 0.0)
    return f'{process["in_hand"]}, {process["in_hand_queue"]} for {since}'


def _broker(report: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each broker that is used, or is missing."""
    brokers: dict[tuple[str, ...], list[float]] = {}
    for process in report['processes']:
        if broker := process['broker']:
            words = 'consuming' if broker['consuming'] else broker.get('why', 'not consuming')
            brokers.setdefault((broker['url'], words), []).append(broker['since'])
    for (url, words), since in brokers.items():
        yield f'  broker {url}: {words}, for {duration(time.time() - min(since))}'


def _paused(paused: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each queue that is not consumed for now."""
    now = time.time()
    for name, fact in paused.items():
        since = duration(now - fact['since'])
        if fact['by'] == 'operator':
            yield f'  queue {name}: paused for {since}'
            continue
        why = 'its breaker is open' if fact['by'] == 'breaker' else 'paused by its handler'
        then = 'one message is tried'
        if fact['until'] is not None:
            then = f'{then} in {duration(fact["until"] - now)}'
        yield f'  queue {name}: {why}, for {since}; {then}'


def _queues(queues: dict[str, dict[str, Any]]) -> Iterator[str]:
    if not queues:
        return
    rows = [('queue', 'ready', 'as of', 'a minute', 'failed', 'retried', 'dead', 'p50', 'p99')]
    for name, queue in queues.items():
        rows.append((
            name, *_depth(queue), str(queue['runs_last_minute']), str(queue['failed_last_minute']),
            str(queue['retried']), str(queue['dead_lettered']),
            short(queue['p50']), short(queue['p99']),
        ))
    yield from table(rows)


def _depth(queue: dict[str, Any]) -> tuple[str, str]:
    """Return what the queue holds, and how old that figure is."""
    if queue['ready'] is None:
        return '-', '-'
    return str(queue['ready']), f'{duration(queue["asked_ago"])} ago'


def _last_error(error: dict[str, Any]) -> str:
    ago = duration(time.time() - error['time'])
    return f'  last error {ago} ago: {error["error"]} ({error["message"]}: {error["outcome"]})'


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows with their columns aligned: the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f'  {"  ".join(cells).rstrip()}'


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``2 h 5 min``."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f'{whole} s'
    parts = []
    for length, unit in UNITS:
        count, whole = divmod(whole, length)
        if count:
            parts.append(f'{count} {unit}')
    return ' '.join(parts[:2])


def short(seconds: float | None) -> str:
    """Return a short duration with its unit; ``-`` if there is none."""
    if seconds is None:
        return '-'
    for factor, unit in ((1.0, 's'), (1e3, 'ms')):
        if seconds * factor >= 1:
            return f'{seconds * factor:.3g} {unit}'
    return f'{seconds * 1e6:.3g} us'


def size(count: int) -> str:
    """Return a number of bytes in MiB."""
    return f'{count / 2**20:.0f} MiB'
