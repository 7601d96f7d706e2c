"""Stands in for syslogd in a namespace of its own, and prints what the default log sent to it."""

import logging
import os
import socket

from clihelper import logs

syslogd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
syslogd.bind('/dev/log')
assert logs.check_default(True) is None
logs.configure(None, foreground=False, detached=True, appname='orders', locate=lambda *keys: 'x')
log = logging.getLogger('shop')
log.debug('not at this level')
log.info('shipped %d', 7)
log.critical('a lone \udc80, a null \0 and 100%')
log.error('x' * 300_000)
logging.getLogger().handlers[0].setFormatter(None)
print(os.getpid())
for _ in range(3):
    print(ascii(syslogd.recv(1_000_000))[:200])
