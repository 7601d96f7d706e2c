"""How long the same small program takes for its ``--help``."""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.tables import Table, distribution, interleave, paired_ratio


def measure(workshop: Workshop, quick: bool) -> Table:
    """Ask for help, many times."""
    def wall(name: str) -> float:
        with workshop.run(f'{name}_interval --help') as program:
            return program.wait()[0] * 1000

    samples = interleave(['clihelper', 'helper'], 3 if quick else 40, wall)
    table = distribution('program --help, wall time, ms', samples, 'helper')
    table.bar("clihelper, over helper's", paired_ratio(samples, 'clihelper', 'helper'), 1)
    return table
