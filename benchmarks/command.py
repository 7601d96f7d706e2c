"""A command that makes tables, each of which is a module of a package."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.programs import Workshop


def run(package: str, tables: Sequence[str]) -> int:
    """Make the tables named on the command line, or all; 1 if a bar is missed."""
    arguments = _parse(package, tables)
    signal.signal(signal.SIGTERM, _terminated)
    print(f'Python {sys.version.split()[0]}, {os.cpu_count()} cores, '
          f'load {os.getloadavg()[0]:.2f}{", quick" if arguments.quick else ""}', flush=True)
    missed = []
    with tempfile.TemporaryDirectory(prefix=f'{package}-') as directory, \
            Workshop(directory) as workshop:
        for name in arguments.tables or tables:
            table = importlib.import_module(f'{package}.{name}').measure(
                workshop, arguments.quick)
            print(f'\n{table}', flush=True)
            missed += [f'{name}: {bar}' for bar in table.bars if not bar.reached]
    print('\n' + ('\n'.join(missed) if missed else 'Every bar is reached.'))
    return 1 if missed else 0


def _terminated(signum: int, frame: object) -> None:
    """End as an exception does: the programs that run, and the broker, are ended, too."""
    sys.exit(128 + signum)


def _parse(package: str, tables: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f'python -m {package}', description=sys.modules[package].__doc__)
    parser.add_argument('tables', nargs='*', metavar='TABLE', help=', '.join(tables))
    parser.add_argument('--quick', action='store_true',
                        help='few runs, to see that it works; the figures mean little')
    arguments = parser.parse_args()
    unknown = [name for name in arguments.tables if name not in tables]
    if unknown:
        parser.error(f'no table {unknown[0]!r}; there are {", ".join(tables)}')
    return arguments
