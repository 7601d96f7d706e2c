"""Tools for testing a daemon.

:class:`Harness` runs a controller inside the test, one step at a time: without a broker, without
a separate process, and without changing the signals or the logging of the test's process::

    with testing.Harness(Orders, 'example.yml') as orders:
        assert orders.deliver({'order_id': 1, 'item': 'tea'}).outcome is testing.Outcome.ACK

:class:`Program` runs a whole program as a process, and waits for its readiness, its output and
its end. :class:`Daemon` runs a program that detaches. :class:`NotifySocket` receives what a
program reports to a service manager.

Nothing here needs a particular test runner. Every wait ends: either with the awaited event, or
with a :class:`WaitError`, which is an :class:`AssertionError`.
"""

from clihelper.amqp.settlement import Outcome
from clihelper.testing.harness import Harness
from clihelper.testing.messages import Delivered, Published
from clihelper.testing.notify import NotifySocket
from clihelper.testing.process import Daemon, Program
from clihelper.testing.waiting import TIMEOUT, WaitError

__all__ = [
    'TIMEOUT',
    'Daemon',
    'Delivered',
    'Harness',
    'NotifySocket',
    'Outcome',
    'Program',
    'Published',
    'WaitError',
]
