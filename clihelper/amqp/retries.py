"""Where messages wait for their next run: in queues of the broker, whose TTL gives them back.

There is one such queue for each step of a scale of delays. A broker that has no TTL leaves the
message with the consumer, which runs it again itself; so does one that refuses the copy.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time

from clihelper.amqp import settlement
from clihelper.amqp.topology import UNUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from clihelper.amqp.topology import Topology

DIGITS = 2
"""significant digits of a delay in milliseconds: so few queues are enough, and none is exact"""


def step(seconds: float) -> int:
    """The step of the scale that a delay is rounded up to, in milliseconds.

    >>> step(0.5), step(1.024), step(300)
    (500, 1100, 300000)
    """
    exact = max(math.ceil(round(seconds * 1000, 6)), 1)
    coarse: int = 10 ** max(len(str(exact)) - DIGITS, 0)
    return -(-exact // coarse) * coarse


def steps(schedule: Mapping[str, float]) -> list[int]:
    """The steps that ``AMQP.retry`` makes use of, in order."""
    found = set()
    for runs in range(1, int(schedule['attempts'])):
        seconds = settlement.delay(Exception(), runs, schedule)
        if seconds > 0:
            found.add(step(seconds))
        if seconds >= schedule['max_delay'] or schedule['factor'] == 1:
            break
    return sorted(found)


class Waiting:
    """The queues of the broker in which messages wait.

    :param topology: says how they are declared.
    :param schedule: ``AMQP.retry``.
    """

    def __init__(self, topology: Topology, schedule: Mapping[str, float]) -> None:
        self._topology = topology
        self._schedule = schedule
        self._declared: dict[str, float] = {}

    def reset(self) -> None:
        """Nothing is known to be declared: the connection is another one now."""
        self._declared.clear()

    def queue(
        self, channel: Any, refusals: tuple[type[BaseException], ...], queue: str, seconds: float
    ) -> str:
        """The queue from which a message is back in *queue* after so long; it exists then.

        :param channel: declares it.
        :param refusals: what *channel* raises when the broker refuses.
        """
        milliseconds = self._step(seconds)
        name = self._topology.name_of_retries(queue, milliseconds)
        now = time.monotonic()
        # Declaring it again keeps the broker from taking it for unused.
        if now - self._declared.get(name, -math.inf) > UNUSED / 2000:
            self._topology.declare_retries(channel, refusals, queue, milliseconds)
            self._declared[name] = now
        return name

    def _step(self, seconds: float) -> int:
        wanted = step(seconds)
        if self._topology.declares:
            return wanted
        # Only those exist that the schedule needs.
        known = steps(self._schedule)
        return next((each for each in known if each >= wanted), known[-1] if known else wanted)


class Postponed:
    """What is done later in this process, by when it is due: runs, and copies to be published."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def put(self, action: Callable[[], None], seconds: float) -> None:
        """Have *action* called after so long."""
        due = time.monotonic() + seconds
        heapq.heappush(self._heap, (due, next(self._numbers), action))

    @property
    def due(self) -> float:
        """When the next one is due, by the monotonic clock; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def take(self) -> Callable[[], None]:
        """The next one."""
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
