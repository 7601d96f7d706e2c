"""Threads log numbers to a file; each line read from standard input reopens the files."""

import logging
import sys
import threading

from clihelper import logs

path, mode, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
logs.configure(
    {'handlers': {'file': {'class': 'logging.FileHandler', 'filename': path, 'mode': mode}},
     'root': {'level': 'INFO', 'handlers': ['file']}},
    foreground=False, detached=True, appname='rotation', locate=lambda *keys: 'x.yml')
stopping = threading.Event()
counts = [0] * threads


def count(number):
    log = logging.getLogger(f'thread.{number}')
    while not stopping.is_set():
        log.info('%d %d', number, counts[number])
        counts[number] += 1
        stopping.wait(0.0005)


workers = [threading.Thread(target=count, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
print('logging', flush=True)
for _line in sys.stdin:
    logs.reopen()
    print('reopened', flush=True)
stopping.set()
for worker in workers:
    worker.join()
print(*counts, flush=True)
