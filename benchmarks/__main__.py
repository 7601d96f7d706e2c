"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile

from benchmarks.programs import Workshop

TABLES = ('imports', 'usage', 'first_process', 'first_message', 'memory', 'stop', 'drift',
          'wakeups', 'throughput', 'throughput_json', 'throughput_large', 'latency',
          'slow_handler')


def main() -> int:
    """Run the tables named on the command line; 1 if a bar is missed."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, _terminated)
    print(f'Python {sys.version.split()[0]}, {os.cpu_count()} cores, '
          f'load {os.getloadavg()[0]:.2f}{", quick" if arguments.quick else ""}')
    missed = []
    with tempfile.TemporaryDirectory(prefix='benchmarks-') as directory, \
            Workshop(directory) as workshop:
        for name in arguments.tables or TABLES:
            table = importlib.import_module(f'benchmarks.{name}').measure(
                workshop, arguments.quick)
            print(f'\n{table}', flush=True)
            missed += [f'{name}: {bar}' for bar in table.bars if not bar.reached]
    print('\n' + ('\n'.join(missed) if missed else 'Every bar is reached.'))
    return 1 if missed else 0


def _terminated(signum: int, frame: object) -> None:
    """End as an exception does: the programs that run, and the broker, are ended, too."""
    sys.exit(128 + signum)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('tables', nargs='*', metavar='TABLE', help=', '.join(TABLES))
    parser.add_argument('--quick', action='store_true',
                        help='few runs, to see that it works; the figures mean little')
    arguments = parser.parse_args()
    unknown = [name for name in arguments.tables if name not in TABLES]
    if unknown:
        parser.error(f'no table {unknown[0]!r}; there are {", ".join(TABLES)}')
    return arguments


if __name__ == '__main__':
    sys.exit(main())
