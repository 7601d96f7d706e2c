"""The command line of the faults."""

import sys

from benchmarks.command import run

TABLES = ('soak', 'fuzz', 'comeback', 'refused', 'blackhole', 'stop', 'drain', 'busy', 'leaks',
          'workers', 'degraded', 'reload', 'crash', 'limit', 'model', 'once', 'cluster')

if __name__ == '__main__':
    sys.exit(run('faults', TABLES))
