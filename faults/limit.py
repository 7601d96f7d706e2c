"""Stops, reloads, crashes and lost connections, many more than a quorum queue's delivery limit.

A quorum queue counts how often a message has been delivered in vain, and drops it at its limit:
20 by default from RabbitMQ 4.0 on, and here with earlier versions, too. Each fault returns the
whole prefetch, most of which was never begun.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import amqp

from benchmarks.programs import LOGGING, PATIENCE, Program, Workshop
from benchmarks.tables import Table
from faults.crew import NOTE
from tests.proxy import Proxy

MESSAGES, PREFETCH = 200, 100
FAULTS, QUICK_FAULTS = 60, 24
LIMIT = 20
WORK = 0.02
"""seconds in the handler, so that the faults are over long before the messages are"""

IDLE = 2.0
"""seconds without a message begun, after which no copy of those that were handled is left"""

STALLED = 15.0
"""seconds without a message begun, after which the rest counts as lost"""


class Limit:
    """A consumer of one queue, and the faults that it goes through.

    :param name: of the queue.
    :param daemon: the configuration's section ``Daemon``.
    :ivar int limit: the queue's delivery limit.
    """

    def __init__(self, workshop: Workshop, proxy: Proxy, name: str, daemon: str) -> None:
        self._workshop = workshop
        self._proxy = proxy
        self._name = name
        self._folder = os.path.join(workshop.directory, name)
        os.mkdir(self._folder)
        with amqp.Connection(f'127.0.0.1:{workshop.broker.port}') as connection:
            arguments = _queue_arguments(connection)
            self._publish(connection.channel(), arguments)
        written = ', '.join(f'{key}: {value}' for key, value in arguments.items())
        self._configuration = workshop.configuration(
            name, f'Daemon: {daemon}\nAMQP:\n  url: {proxy.url}\n  prefetch: {PREFETCH}\n'
            f'  queues: {{{name}: {{arguments: {{{written}}}}}}}\n{LOGGING}')
        self._program: Program
        self.caused: Counter[str] = Counter()

    def run(self, faults: int) -> None:
        """Cause so many faults in turn, each in the midst of a handler, and then none."""
        kinds: tuple[Callable[[], None], ...] = (
            self._restart, self._reload, self._crash, self._proxy.reset)
        self._start()
        try:
            self._wait_begun(0, 0)
            for number in range(faults):
                cause = kinds[number % len(kinds)]
                begun, connects = self._begun(), self._proxy.connects
                cause()
                self.caused[cause.__name__.strip('_')] += 1
                self._wait_begun(begun, connects)
                if begun == self._begun():
                    break  # nothing is left to be handled
            self._finish()
        finally:
            self._program.__exit__()

    def handled(self) -> Counter[int]:
        """How often each number was handled."""
        return Counter(number for number, ended in self._notes() if ended)

    def take(self, suffix: str = '') -> list[int]:
        """Take what is in the queue, or in the one whose name has that *suffix*; the numbers."""
        found = []
        with amqp.Connection(f'127.0.0.1:{self._workshop.broker.port}') as connection:
            channel = connection.channel()
            while (message := channel.basic_get(self._name + suffix, no_ack=True)) is not None:
                found.append(int.from_bytes(message.body, 'big'))
        return found

    # What is done to it.

    def _start(self) -> None:
        self._program = self._workshop.run(
            f'clihelper_runs -f -c {self._configuration}', ledgers=self._folder, work=WORK)

    def _restart(self) -> None:
        self._program.terminate()
        self._program.__exit__()
        self._start()

    def _reload(self) -> None:
        os.kill(self._program.pid, signal.SIGHUP)

    def _crash(self) -> None:
        self._program.__exit__()
        self._start()

    # What is waited for.

    def _wait_begun(self, begun: int, connects: int) -> None:
        """Wait until it has a new connection and has begun with another message, or does not."""
        deadline = time.monotonic() + STALLED
        while self._proxy.connects <= connects or self._begun() <= begun:
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)

    def _finish(self) -> None:
        """Wait until all are handled, and copies of them too, or no more are; then stop it."""
        before, since = -1, time.monotonic()
        while time.monotonic() < since + (
                IDLE if len(self.handled()) == MESSAGES else STALLED):
            if self._begun() != before:
                before, since = self._begun(), time.monotonic()
            time.sleep(0.1)
        self._program.terminate()

    def _begun(self) -> int:
        return sum(not ended for _, ended in self._notes())

    def _notes(self) -> list[tuple[int, bool]]:
        found = []
        for entry in os.scandir(self._folder):
            with open(entry.path, 'rb') as file:
                data = file.read()
            whole = data[: len(data) // NOTE.size * NOTE.size]
            found += [(number, ended) for number, ended, _ in NOTE.iter_unpack(whole)]
        return found

    def _publish(self, channel: Any, arguments: dict[str, Any]) -> None:
        channel.queue_declare(
            self._name, durable=True, auto_delete=False, arguments=arguments)
        for number in range(MESSAGES):
            channel.basic_publish_confirm(
                amqp.Message(number.to_bytes(8, 'big'), delivery_mode=2),
                routing_key=self._name, timeout=PATIENCE)


def _queue_arguments(connection: Any) -> dict[str, Any]:
    """Those of a quorum queue; the limit is the broker's default, or is set where that is none."""
    version = int(connection.server_properties['version'].partition('.')[0])
    limit = {} if version >= 4 else {'x-delivery-limit': LIMIT}
    return {'x-queue-type': 'quorum', **limit}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Do it with and without a state directory, in which it is noted what ended a process."""
    faults = QUICK_FAULTS if quick else FAULTS
    table = Table(f'{MESSAGES} messages, quorum queue with a delivery limit of {LIMIT}, prefetch '
                  f'{PREFETCH}, {faults} faults', ['faults', 'handled', 'runs', 's'])
    with Proxy(workshop.broker.port) as proxy:
        for name, daemon in (('without state', '{}'),
                             ('with state', f'{{state_directory: {workshop.directory}}}')):
            began = time.monotonic()
            limit = Limit(workshop, proxy, f'limit-{name.partition(" ")[0]}', daemon)
            limit.run(faults)
            handled, queued, dead = limit.handled(), limit.take(), limit.take('.dead')
            table.row(name, limit.caused.total(), len(handled), handled.total(),
                      time.monotonic() - began)
            table.bar(f'{name}: lost', MESSAGES - len({*handled, *queued, *dead}), 0)
            table.bar(f'{name}: dead-lettered', len(dead), 0)
            table.bar(f'{name}: left in the queue', len(queued), 0)
    return table
