"""What the author of a daemon needs to test it.

:class:`Harness` runs a controller inside the test, one step at a time: without a broker, without
a process of its own, and without touching the signals or the logging of the process that tests::

    with testing.Harness(Orders, 'example.yml') as orders:
        assert orders.deliver({'order_id': 1, 'item': 'tea'}).outcome is testing.Outcome.ACK

:class:`Program` runs a whole program as a process, and waits for its readiness, its output, its
end. :class:`Daemon` is one that detaches. :class:`NotifySocket` is the ear of a service manager.

Nothing here needs a test runner, and every wait ends: with what was waited for, or with a
:class:`WaitError`, which is an :class:`AssertionError`.
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
