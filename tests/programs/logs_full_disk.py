"""Logs to a small disk that is full for a while, and says what it did as JSON."""

import json
import logging
import os
import sys

from clihelper import logs

folder, mode = sys.argv[1], sys.argv[2]


def resident():
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def fill():
    with open(f'{folder}/filler', 'wb', buffering=0) as filler:
        try:
            while True:
                filler.write(b'x' * 4096)
        except OSError:
            pass


logs.configure(
    {'formatters': {'plain': {'format': '%(message)s'}},
     'handlers': {'file': {'class': 'logging.FileHandler', 'filename': f'{folder}/log',
                           'mode': mode, 'formatter': 'plain'}},
     'root': {'level': 'INFO', 'handlers': ['file']}},
    foreground=False, detached=True, appname='full', locate=lambda *keys: 'x.yml')
log = logging.getLogger('full')
written = 0
for _ in range(10):
    log.info('record %06d %s', written, '.' * 60)
    written += 1
fill()
for _ in range(500):
    log.info('record %06d %s', written, '.' * 60)
    written += 1
before = resident()
for _ in range(10000):
    log.info('record %06d %s', written, '.' * 60)
    written += 1
grown = resident() - before
os.unlink(f'{folder}/filler')
for _ in range(10):
    log.info('record %06d %s', written, '.' * 60)
    written += 1
with open(f'{folder}/log') as file:
    lines = file.read().splitlines()
observed = 'emit' in vars(logging.root.handlers[0])
print(json.dumps({'written': written, 'grown': grown, 'lines': lines, 'observed': observed}))
