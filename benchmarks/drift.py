"""An interval of 0.1 s, kept for 20 s, while each work takes 20 ms.

All programs run at the same time, so that each suffers what the machine does to the others. A
tick's error is its distance from the grid of intervals that the median of the ticks is on.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from benchmarks.programs import Workshop
from benchmarks.tables import Table, percentile

INTERVAL = 0.1
WORK = 0.02
SECONDS = 20

DRIFT, OFF = 0.3, 0.5
"""The bars, in milliseconds, on a quiet machine"""

QUIET_DRIFT, QUIET_OFF = 0.02, 0.2
"""What the bare loop shows on a quiet machine: what it has more here, all may have"""

STAGGER = 0.017
"""seconds between two starts, so that the programs do not work at the same moments"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Run all of them."""
    configuration = workshop.interval(INTERVAL)
    commands = {
        'clihelper': f'clihelper_interval -f -c {configuration}',
        'bare': 'bare_interval',
        'APScheduler': 'apscheduler_interval',
        'PeriodicCallback': 'tornado_interval',
        'helper': f'helper_interval -f -c {configuration}',
    }
    rounds, seconds = (1, 3) if quick else (3, SECONDS)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, ticks in _run(workshop, commands, seconds).items():
            runs[name].append(_errors(ticks))
    table = Table(f'Interval of 0.1 s with 20 ms of work, {seconds} s, ms; best of {rounds} runs',
                  ['drift', 'off p99'])
    for name, errors in runs.items():
        table.row(name, *_best(errors))
    bare_drift, bare_off = _best(runs['bare'])
    drift, off = _best(runs['clihelper'])
    table.bar('clihelper, drift', drift, DRIFT + max(bare_drift - QUIET_DRIFT, 0))
    table.bar('clihelper, off the grid, p99', off, OFF + max(bare_off - QUIET_OFF, 0))
    return table


def _best(errors: list[tuple[float, float]]) -> tuple[float, float]:
    """The least of each: other programs can only add to it."""
    return min(drift for drift, _ in errors), min(off for _, off in errors)


def _run(workshop: Workshop, commands: dict[str, str], seconds: float) -> dict[str, list[float]]:
    with ExitStack() as running:
        programs = {}
        for name, command in commands.items():
            program = workshop.run(command, interval=INTERVAL, work=WORK)
            programs[name] = running.enter_context(program)
            time.sleep(STAGGER)
        time.sleep(seconds + 1)
        return {name: program.events()[:round(seconds / INTERVAL)]
                for name, program in programs.items()}


def _errors(ticks: list[float]) -> tuple[float, float]:
    """How far the last ticks are from where the first were, and the p99 of all, in ms."""
    offsets = [tick - number * INTERVAL for number, tick in enumerate(ticks)]
    drift = abs(statistics.median(offsets[-20:]) - statistics.median(offsets[:20]))
    middle = statistics.median(offsets)
    return drift * 1000, percentile([abs(offset - middle) for offset in offsets], 99) * 1000
