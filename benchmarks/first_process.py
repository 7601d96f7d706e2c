"""From exec to the first ``_process``, in the foreground, with the same configuration."""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.tables import Table, distribution, interleave, paired_ratio

SOONER = 1.3


def measure(workshop: Workshop, quick: bool) -> Table:
    """Start, many times; with a configuration that has ``Logging``, and with one that has not."""
    full = workshop.interval(60)
    short = workshop.configuration('short', 'Application: {wake_interval: 60}\n')
    commands = {
        'bare': 'bare_interval',
        'bare, same libraries': 'bare_interval argparse logging.config yaml',
        'clihelper': f'clihelper_interval -f -c {full}',
        'helper': f'helper_interval -f -c {full}',
        'clihelper, no Logging': f'clihelper_interval -f -c {short}',
        'helper, no Logging': f'helper_interval -f -c {short}',
    }

    def wall(name: str) -> float:
        with workshop.run(commands[name]) as program:
            return (program.event() - program.started) * 1000

    samples = interleave(list(commands), 3 if quick else 30, wall)
    table = distribution('Exec to first _process, ms', samples, 'helper')
    for what in ('', ', no Logging'):
        ratio = paired_ratio(samples, f'clihelper{what}', f'helper{what}')
        table.bar(f'clihelper{what}, over helper: 1/{SOONER}', ratio, 1 / SOONER)
    return table
