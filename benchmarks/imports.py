"""What ``import clihelper`` costs: CPU time of a whole process that does nothing else."""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.tables import Table, distribution, interleave, paired_ratio

LIMIT = 1.35

SOURCES = {
    'python': 'pass',
    'yaml': 'import yaml',
    'clihelper': 'import clihelper',
    'clihelper, used': 'from clihelper import Controller, run, setup',
    'helper': 'import helper, helper.controller',
}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Import, many times."""
    def cpu(name: str) -> float:
        with workshop.code(SOURCES[name]) as program:
            return program.wait()[1] * 1000

    samples = interleave(list(SOURCES), 3 if quick else 40, cpu)
    table = distribution('Import, CPU time, ms', samples, 'yaml')
    for name in ('clihelper', 'clihelper, used'):
        table.bar(f'{name}, over python with yaml imported',
                  paired_ratio(samples, name, 'yaml'), LIMIT)
    return table
