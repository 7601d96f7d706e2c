"""The command line of the benchmarks."""

import sys

from benchmarks.command import run

TABLES = ('imports', 'usage', 'first_process', 'first_message', 'memory', 'stop', 'drift',
          'wakeups', 'status', 'scraping', 'throughput', 'throughput_json', 'throughput_large',
          'bodies', 'coroutines', 'coroutines_memory', 'threads', 'batches', 'publishing',
          'latency', 'slow_handler', 'requests', 'workers', 'workers_throughput', 'workers_memory')

if __name__ == '__main__':
    sys.exit(run('benchmarks', TABLES))
