"""How often programs wake up that have nothing to do."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.idle import Idlers
from benchmarks.programs import Workshop
from benchmarks.tables import Table

SECONDS = 10
SETTLED = 2.0
HEARTBEAT = 10

# In every half of a heartbeat's interval one is sent, one is received, and the broker's are looked
# for; two more, because the measurement begins and ends anywhere.
HEARTBEATS = 3 * SECONDS // (HEARTBEAT // 2) + 2
QUIET = 'clihelper consumer, heartbeat 0'
LIMITS = {
    'clihelper interval': 0, 'clihelper IOLoop': 0, 'clihelper consumer': HEARTBEATS, QUIET: 0,
}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Start all of them, and count."""
    idlers = Idlers(workshop, 'wakeups')
    seconds = 3 if quick else SECONDS
    with ExitStack() as running:
        programs = {name: running.enter_context(idlers.start(name)) for name in idlers.names}
        silent = Idlers(workshop, 'silent', heartbeat=0).start('clihelper consumer')
        programs[QUIET] = running.enter_context(silent)
        time.sleep(SETTLED)
        before = {name: program.switches() for name, program in programs.items()}
        time.sleep(seconds)
        counts = {name: program.switches() - before[name] for name, program in programs.items()}
    table = Table(f'Wakeups when idle, in {seconds} s; heartbeat {HEARTBEAT} s',
                  ['wakeups', 'a second'])
    for name, count in counts.items():
        table.row(name, count, count / seconds)
    for name, limit in LIMITS.items():
        table.bar(name + (', its heartbeats' if limit else ''), counts[name], limit)
    return table
