"""clihelper's consumer, which also tells when it begins and ends to drop a connection."""

import os
import time

from event import EVENTS, work

import clihelper
from clihelper.amqp.connection import Connection

drop = Connection.drop


def told(connection):
    begin = time.monotonic()
    drop(connection)
    os.write(EVENTS, b'%.6f\n%.6f\n' % (begin, time.monotonic()))


Connection.drop = told


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        work()


clihelper.setup('consumer', 'Consumes.', '1.0')
clihelper.run(Consumer)
