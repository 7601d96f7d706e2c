"""Where messages wait for their next run: in queues of the broker, which return them by a TTL.

There is one such queue for each step of a scale of delays. If the broker does not support TTLs, or
refuses the copy, the consumer keeps the message and runs it again itself.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from functools import partial

from clihelper.amqp import settlement
from clihelper.amqp.connection import Lost, Unreachable
from clihelper.amqp.declarer import Declarer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from clihelper.amqp.connection import Connection
    from clihelper.amqp.topology import Topology

LOGGER = logging.getLogger('clihelper.amqp')

DECLARING = 0.05
"""seconds between two looks at whether a queue is declared by now"""

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
        name, milliseconds = self._name(queue, seconds)
        if not self._is_declared(name):
            self._note_declared(name, self._declare(connection, queue, milliseconds))
        return name, self._pause(name)

    def _declare(self, connection: Connection, queue: str, milliseconds: int) -> bool:
        """Declare a queue on a separate channel; returns whether it is new."""
        declarer = Declarer(connection.channel(), connection.refusals)
        with connection.guard():
            is_new = self._topology.declare_retries(declarer, queue, milliseconds)
            declarer.channel.close()
        return is_new

    def _name(self, queue: str, seconds: float) -> tuple[str, int]:
        milliseconds = self._step(seconds)
        return self._topology.name_of_retries(queue, milliseconds), milliseconds

    def _is_declared(self, name: str) -> bool:
        return time.monotonic() - self._declared.get(name, -math.inf) <= DECLARED

    def _note_declared(self, name: str, is_new: bool) -> None:
        now = time.monotonic()
        self._declared[name] = now
        if is_new:
            self._ready[name] = now + YOUNG

    def _pause(self, name: str) -> float:
        """The seconds for which nothing may be published to it yet."""
        now = time.monotonic()
        return max(self._ready.get(name, now) - now, 0.0)

    def _step(self, seconds: float) -> int:
        wanted = step(seconds)
        if self._topology.declares:
            return wanted
        # Only the queues that the schedule needs exist.
        known = steps(self._schedule)
        return next((each for each in known if each >= wanted), known[-1] if known else wanted)


class AsyncRetryQueues(RetryQueues):
    """The same for an event loop: a thread declares them, over a connection of its own.

    :param event_loop: the loop.
    :param connect: makes a connection that is not open yet.
    """

    def __init__(
        self,
        topology: Topology,
        schedule: Mapping[str, float],
        *,
        event_loop: asyncio.AbstractEventLoop,
        connect: Callable[[], Connection],
    ) -> None:
        super().__init__(topology, schedule)
        self._event_loop = event_loop
        self._connect = connect
        self._declaring: dict[str, asyncio.Task[bool]] = {}

    def reset(self) -> None:
        super().reset()
        for task in self._declaring.values():
            task.cancel()
        self._declaring.clear()

    def queue(self, connection: Connection, queue: str, seconds: float) -> tuple[str, float]:
        """As :meth:`RetryQueues.queue`; a queue that is being declared may not be used yet."""
        name, milliseconds = self._name(queue, seconds)
        if self._is_declared(name):
            return name, self._pause(name)
        task = self._declaring.get(name)
        if task is None:
            from clihelper.amqp.event_loop import in_thread

            declare = partial(self._declare_alone, queue, milliseconds)
            self._declaring[name] = self._event_loop.create_task(
                in_thread(self._event_loop, declare))
        elif task.done():
            del self._declaring[name]
            try:
                self._note_declared(name, task.result())
                return name, self._pause(name)
            except (Lost, Unreachable) as error:
                LOGGER.debug('%s is not declared yet: %s', name, error)
        return name, DECLARING

    def _declare_alone(self, queue: str, milliseconds: int) -> bool:
        connection = self._connect()
        try:
            connection.open_any()
            return self._declare(connection, queue, milliseconds)
        finally:
            connection.close()


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
