"""Resident memory of programs that wait for work."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from benchmarks.idle import Idlers
from benchmarks.programs import Workshop
from benchmarks.tables import Table

LIMITS = {
    'clihelper interval': ('helper', 0),
    'clihelper IOLoop': ('bare Tornado', 3),
    'clihelper consumer': ('bare kombu', 2),
}
"""The program to compare each with, and the MiB that it may have more."""

SETTLED = 1.0
"""seconds after the first work"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Start all of them, and look; several times."""
    idlers = Idlers(workshop, 'memory')
    resident: dict[str, list[float]] = {name: [] for name in idlers.names}
    proportional: dict[str, list[float]] = {name: [] for name in idlers.names}
    rounds = 1 if quick else 5
    for name in idlers.names:  # so that all is compiled beforehand: the compiler takes memory
        idlers.start(name).__exit__()
    for _ in range(rounds):
        with ExitStack() as running:
            programs = {name: running.enter_context(idlers.start(name)) for name in idlers.names}
            time.sleep(SETTLED)
            for name, program in programs.items():
                rss, pss = program.resident()
                resident[name].append(rss)
                proportional[name].append(pss)
    table = Table(f'Memory when idle, MiB; medians of {rounds} rounds',
                  ['RSS', 'min', 'max', 'PSS'])
    for name, values in resident.items():
        table.row(name, statistics.median(values), min(values), max(values),
                  statistics.median(proportional[name]))
    for name, (peer, more) in LIMITS.items():
        table.bar(f'{name}, RSS; {peer}' + (f' + {more}' if more else ''),
                  statistics.median(resident[name]), statistics.median(resident[peer]) + more)
    return table
