"""A cluster of three nodes, of which one after the other fails, under a consumer and a publisher.

Both have the three nodes as ``AMQP.url``, each behind a proxy. The publisher publishes each number
until the broker has confirmed it; the consumer notes each number that it has handled, and only
then is the message acknowledged. So a number that was never noted is a message lost.

A node is killed, stopped in order, or cut off from both programs. It comes back when messages are
handled again, and the next fault waits until it has.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks.programs import Program, Workshop
from benchmarks.tables import Table
from faults.crew import NOTE
from tests.cluster import QUORUM, Cluster
from tests.proxy import Proxy

MESSAGES, QUICK_MESSAGES = 50_000, 1_000

LEADER_KILLED, FOLLOWER_KILLED = 'leader killed', 'follower killed'
STOPPED, CUT_OFF = 'node stopped', 'client cut off'
FAULTS = [LEADER_KILLED, FOLLOWER_KILLED, STOPPED, CUT_OFF] * 3
QUICK_FAULTS = [LEADER_KILLED, STOPPED, CUT_OFF]

CONFIRMED, UNKNOWN, FAILED = 'confirmed', 'unknown', 'failed'
"""what the publisher notes"""

QUEUE = 'numbers'
PREFETCH = 100
HEARTBEAT = 2
"""seconds; the silence of a node that is cut off is noticed after two heartbeats"""

WORK = 0.005
"""seconds that the handler takes"""

FAILING = 50
"""each message of so many is run twice: it waits for its second run in a queue of the cluster"""

AHEAD = 500
"""messages that the publisher may be ahead, so that there is something to consume without it"""

INTERRUPTION = 0.25
"""seconds between two messages from which on they count as time without consuming"""

LONGEST_GAP = 5.0
"""seconds without consuming that the death of a leader may cost"""

STALLED = 240.0
"""seconds without a message handled, after which the rest counts as lost: what was on its way from
one queue to another, as for a second run, the broker moves again 180 s after it has lost a node"""

DRAINED = 2 * STALLED
"""seconds in which the queues become empty: the broker may lose what it moves a second time"""

CONFIGURATION = """\
Application: {{wake_interval: 0.05}}
AMQP:
  url: [{urls}]
  heartbeat: {heartbeat}
  prefetch: {prefetch}
  queues: {{{queues}}}
Logging:
  version: 1
  formatters: {{plain: {{format: '%(asctime)s %(levelname)s %(message)s'}}}}
  handlers: {{file: {{class: logging.FileHandler, filename: {log}, formatter: plain}}}}
  root: {{handlers: [file], level: INFO}}
"""


class Outages:
    """Faults of nodes, one after the other, evenly among the messages.

    :param messages: how many to publish at the least; it goes on until the last fault is over.
    :param faults: the kind of each.
    :ivar int messages: how many were published.
    :ivar caused: when each fault was caused.
    :ivar ended: when there were enough messages.
    """

    def __init__(self, workshop: Workshop, cluster: Cluster, messages: int,
                 faults: list[str]) -> None:
        self._workshop = workshop
        self._cluster = cluster
        self.messages = messages
        self.faults = faults
        self.caused: list[float] = []
        self.ended = 0.0
        self._proxies = [Proxy(node.port) for node in cluster.nodes]
        self._ledgers = os.path.join(workshop.directory, 'ledgers')
        os.mkdir(self._ledgers)

    def run(self) -> None:
        """Do all of it."""
        with ExitStack() as running:
            for proxy in self._proxies:
                running.enter_context(proxy)
            consumer = running.enter_context(self._consumer())
            _until(self._consuming_from)
            publisher = running.enter_context(self._publisher())
            for number, fault in enumerate(self.faults, 1):
                self._work_until(self.messages * number // (len(self.faults) + 1))
                self._cause(fault)
            self._work_until(self.messages)
            self.ended = time.monotonic()
            open(self._path('enough'), 'w').close()
            publisher.wait()
            self.messages = sum(
                count for _, kind, count in self.published() if kind == CONFIRMED)
            self._work_until(self.messages)
            self._drain()
            consumer.terminate()

    def _work_until(self, numbers: int) -> None:
        """Wait until so many different numbers are handled, or no more of them are."""
        handled, since = 0, time.monotonic()
        while handled < numbers and time.monotonic() - since < STALLED:
            time.sleep(0.1)
            before, handled = handled, len({number for number, _ in self.handled()})
            if handled > before:
                since = time.monotonic()

    def _drain(self) -> None:
        """Wait until what comes twice is handled, too; the broker counts every five seconds."""
        deadline = time.monotonic() + DRAINED
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.5)

    # The two programs.

    def _consumer(self) -> Program:
        arguments = ', '.join(f'{key}: {value}' for key, value in QUORUM.items())
        configuration = self._configuration('consumer', f'{QUEUE}: {{arguments: {{{arguments}}}}}')
        return self._workshop.run(
            f'clihelper_runs -f -c {configuration}', ledgers=self._ledgers, work=WORK,
            failing=FAILING)

    def _publisher(self) -> Program:
        configuration = self._configuration('publisher', '')
        return self._workshop.run(
            f'clihelper_publisher -f -c {configuration}', ledgers=self._ledgers, queue=QUEUE,
            notes=self._path('publisher.notes'), ahead=AHEAD, enough=self._path('enough'))

    def _configuration(self, name: str, queues: str) -> str:
        return self._workshop.configuration(name, CONFIGURATION.format(
            urls=', '.join(f'"{proxy.url}"' for proxy in self._proxies), heartbeat=HEARTBEAT,
            prefetch=PREFETCH, queues=queues, log=self._path(f'{name}.log')))

    def _path(self, name: str) -> str:
        return os.path.join(self._workshop.directory, name)

    # Faults.

    def _cause(self, fault: str) -> None:
        """Cause a fault, wait until messages are handled again, and end it."""
        index = self._victim(fault)
        node, proxy = self._cluster.nodes[index], self._proxies[index]
        self.caused.append(time.monotonic())
        before = len({number for number, _ in self.handled()})
        if fault == CUT_OFF:
            proxy.swallow()
        elif fault == STOPPED:
            node.stop()
        else:
            node.kill()
        self._work_until(before + 2 * PREFETCH)  # more than the consumer can have had already
        if fault == CUT_OFF:
            proxy.resume()
        else:
            node.start()

    def _victim(self, fault: str) -> int:
        """The index of the node: the consumer's own, unless the fault asks for another."""
        nodes = self._cluster.nodes
        leader = nodes.index(_until(lambda: self._cluster.leader_of(QUEUE)))
        consumers = _until(self._consuming_from)
        if fault == LEADER_KILLED:
            return leader
        if fault == FOLLOWER_KILLED and consumers == leader:
            return (consumers + 1) % len(nodes)
        return consumers

    def _consuming_from(self) -> int | None:
        """The index of the node that the consumer says it consumes from, if it does."""
        with open(self._path('consumer.log'), 'a+') as file:
            file.seek(0)
            lines = [line for line in file if re.search(r'consuming |(lost the|no) broker', line)]
        found = re.search(r'consuming .*:(\d+)/', lines[-1]) if lines else None
        ports = [proxy.port for proxy in self._proxies]
        return None if found is None else ports.index(int(found[1]))

    # What the two programs have noted.

    def handled(self) -> list[tuple[int, float]]:
        """The numbers whose handling has ended, and when, in the order of time."""
        found: list[tuple[int, float]] = []
        for entry in os.scandir(self._ledgers):
            with open(entry.path, 'rb') as file:
                data = file.read()
            notes = NOTE.iter_unpack(data[: len(data) // NOTE.size * NOTE.size])
            found += [(number, when) for number, ended, when in notes if ended]
        return sorted(found, key=lambda each: each[1])

    def published(self) -> Iterator[tuple[float, str, int]]:
        """When the publisher had what for an answer, and for how many messages."""
        with open(self._path('publisher.notes')) as file:
            for line in file:
                when, kind, count = line.split()
                yield float(when), kind, int(count)

    def gaps(self, times: list[float]) -> dict[str, list[float]]:
        """The seconds of each interruption between *times*, by the fault before, while there are
        enough messages."""
        found: dict[str, list[float]] = {fault: [] for fault in self.faults}
        for before, after in itertools.pairwise(times):
            if after - before >= INTERRUPTION and self.caused[0] < after < self.ended:
                found[self._fault_before(after)].append(after - before)
        return found

    def errors(self, kind: str) -> Counter[str]:
        """How many messages the publisher has had such an error for, by the fault before."""
        found: Counter[str] = Counter()
        for when, noted, count in self.published():
            if noted == kind and when > self.caused[0]:
                found[self._fault_before(when)] += count
        return found

    @property
    def allowed(self) -> int:
        """How many duplicates there may be."""
        return len(self.faults) * PREFETCH + self.errors(UNKNOWN).total()

    def _fault_before(self, when: float) -> str:
        return self.faults[bisect.bisect(self.caused, when) - 1]

    def left(self) -> int:
        """How many messages are in the queues, that of the dead letters included."""
        return sum(ready + unacknowledged for ready, unacknowledged in self.remaining().values())

    def remaining(self) -> dict[str, tuple[int, int]]:
        """The messages that are ready, and delivered, in each queue that is not empty."""
        columns = ('name', 'messages_ready', 'messages_unacknowledged')
        listed = json.loads(self._cluster.ctl('list_queues', *columns, '--formatter', 'json'))
        counts = {each[columns[0]]: (each[columns[1]], each[columns[2]]) for each in listed}
        return {name: count for name, count in counts.items() if any(count)}


def _until(ask: Callable[[], Any]) -> Any:
    """The first answer that is not None; there has to be one before long."""
    deadline = time.monotonic() + STALLED
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f'{ask} has no answer')
        time.sleep(0.05)
    return answer


def measure(workshop: Workshop, quick: bool) -> Table:
    """Do it once, with another order of the faults each time."""
    faults = [*(QUICK_FAULTS if quick else FAULTS)]
    seed = random.SystemRandom().randrange(10**6)
    random.Random(seed).shuffle(faults)
    with Cluster() as cluster:
        outages = Outages(workshop, cluster, QUICK_MESSAGES if quick else MESSAGES, faults)
        outages.run()
        table = _table(outages, seed)
        table.bar('left in the queues', outages.left(), 0)
    return table


def _table(outages: Outages, seed: int) -> Table:
    handled = outages.handled()
    confirmed = [when for when, kind, count in outages.published()
                 if kind == CONFIRMED and count]
    consuming = outages.gaps([when for _, when in handled])
    publishing = outages.gaps(confirmed)
    unknown, failed = outages.errors(UNKNOWN), outages.errors(FAILED)
    table = Table(
        f'{outages.messages} messages, {len(outages.faults)} faults of three nodes, heartbeat '
        f'{HEARTBEAT} s, seed {seed}: seconds without consuming, longest without publishing, '
        'and messages not confirmed',
        ['faults', 'longest', 'in all', 'publish', 'unknown', 'failed'])
    for fault in sorted(consuming):
        table.row(fault, outages.faults.count(fault), max(consuming[fault], default=0.0),
                  sum(consuming[fault]), max(publishing[fault], default=0.0),
                  unknown[fault], failed[fault])
    distinct = len({number for number, _ in handled})
    table.bar('lost', outages.messages - distinct, 0)
    table.bar('duplicates', len(handled) - distinct, outages.allowed)
    table.bar('leader killed, seconds without consuming',
              max(consuming[LEADER_KILLED], default=0.0), LONGEST_GAP)
    return table
