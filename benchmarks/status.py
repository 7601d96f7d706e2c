"""What ``clihelper status`` costs: CPU time of the whole command, beside the bare interpreter."""

from __future__ import annotations

import fcntl
import os

from benchmarks.programs import Workshop
from benchmarks.tables import Table, distribution, interleave, paired_ratio

LIMIT = 1.35


def measure(workshop: Workshop, quick: bool) -> Table:
    """Ask for a daemon that runs, many times."""
    pidfile = os.path.join(workshop.directory, 'orders.pid')
    configuration = workshop.configuration('orders', f'Daemon: {{pidfile: {pidfile}}}\n')
    with open(pidfile, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print(os.getpid(), file=file, flush=True)
        programs = {
            'python': lambda: workshop.code('pass'),
            'yaml': lambda: workshop.code('import yaml'),
            'status --pidfile': lambda: workshop.script(
                'bin/clihelper', 'status', '--pidfile', pidfile),
            'status -c': lambda: workshop.script('bin/clihelper', 'status', '-c', configuration),
        }

        def cpu(name: str) -> float:
            with programs[name]() as program:
                return program.wait()[1] * 1000

        samples = interleave(list(programs), 3 if quick else 40, cpu)
    table = distribution('clihelper status, CPU time, ms', samples, 'python')
    table.bar('status --pidfile, over python', paired_ratio(samples, 'status --pidfile', 'python'),
              LIMIT)
    table.bar('status -c, over python with yaml imported',
              paired_ratio(samples, 'status -c', 'yaml'), LIMIT)
    return table
