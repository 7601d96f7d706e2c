"""Where messages wait for their next run: in queues of the broker, which return them by a TTL.

There is one such queue for each step of a scale of delays. If the broker does not support TTLs, or
refuses the copy, the consumer keeps the message and runs it again itself.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time

from clihelper.amqp import settlement
from clihelper.amqp.declarer import Declarer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clihelper.amqp.connection import Connection
    from clihelper.amqp.topology import Topology

DECLARED = 1800.0
"""seconds after which a queue in use is declared again, so that it is not deleted as unused"""

YOUNG = 2.0
"""Seconds for which nothing is published to a new queue.

RabbitMQ (3.10 to 4.3) loses a quorum queue that was created up to 1.5 s before it crashed, with
the messages that it had confirmed.
"""

DIGITS = 2
"""significant digits of a delay in milliseconds: fewer queues are needed, delays are inexact"""


def step(seconds: float) -> int:
    """The step of the scale that a delay is rounded up to, in milliseconds.

    >>> step(0.5), step(1.024), step(300)
    (500, 1100, 300000)
    """
    exact = max(math.ceil(round(seconds * 1000, 6)), 1)
    coarse: int = 10 ** max(len(str(exact)) - DIGITS, 0)
    return -(-exact // coarse) * coarse


def steps(schedule: Mapping[str, float]) -> list[int]:
    """The steps that ``AMQP.retry`` uses, in order."""
    found = set()
    for runs in range(1, int(schedule['attempts'])):
        seconds = settlement.delay(Exception(), runs, schedule)
        if seconds > 0:
            found.add(step(seconds))
        if seconds >= schedule['max_delay'] or schedule['factor'] == 1:
            break
    return sorted(found)


class RetryQueues:
    """The broker's queues in which messages wait for their next run.

    :param topology: says how they are declared.
    :param schedule: ``AMQP.retry``.
    """

    def __init__(self, topology: Topology, schedule: Mapping[str, float]) -> None:
        self._topology = topology
        self._schedule = schedule
        self._declared: dict[str, float] = {}
        self._ready: dict[str, float] = {}

    def reset(self) -> None:
        """Forget which queues are declared: there is a new connection."""
        self._declared.clear()

    def queue(self, connection: Connection, queue: str, seconds: float) -> tuple[str, float]:
        """The queue that returns a message to *queue* after *seconds*; declared if necessary.

        :param connection: the connection to declare it on.
        :returns: its name, and the seconds for which nothing may be published to it yet.
        :raises clihelper.errors.UnavailableError: it exists, but not as declared.
        :raises Lost: the connection is lost.
        """
        milliseconds = self._step(seconds)
        name = self._topology.name_of_retries(queue, milliseconds)
        now = time.monotonic()
        if now - self._declared.get(name, -math.inf) > DECLARED:
            if self._declare(connection, queue, milliseconds):
                self._ready[name] = time.monotonic() + YOUNG
            self._declared[name] = now
        return name, max(self._ready.get(name, now) - time.monotonic(), 0.0)

    def _declare(self, connection: Connection, queue: str, milliseconds: int) -> bool:
        """Declare a queue on a separate channel; returns whether it is new."""
        declarer = Declarer(connection.channel(), connection.refusals)
        with connection.guard():
            is_new = self._topology.declare_retries(declarer, queue, milliseconds)
            declarer.channel.close()
        return is_new

    def _step(self, seconds: float) -> int:
        wanted = step(seconds)
        if self._topology.declares:
            return wanted
        # Only the queues that the schedule needs exist.
        known = steps(self._schedule)
        return next((each for each in known if each >= wanted), known[-1] if known else wanted)


class LocalRetries:
    """What is due later in this process, in order: runs, and copies to be published."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def put(self, action: Callable[[], None], seconds: float) -> None:
        """Schedule *action* to be called after *seconds*."""
        due = time.monotonic() + seconds
        heapq.heappush(self._heap, (due, next(self._numbers), action))

    @property
    def due(self) -> float:
        """When the next action is due, by the monotonic clock; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def take(self) -> Callable[[], None]:
        """Remove and return the next action."""
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        """Forget all actions."""
        self._heap.clear()
