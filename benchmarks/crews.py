"""Programs of several processes that share a queue, and what they do together."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator

from benchmarks.programs import PATIENCE, Program, Workshop
from benchmarks.stream import HUNDRED, PREFETCH, Streams

COMMANDS = {
    'clihelper': 'clihelper_crew -f -c {}',
    'celery': 'celery_crew',
    'dramatiq': 'dramatiq_crew',
    'FastStream': 'faststream_crew',
}

LATEST = 0.9
"""the part of the messages at which a rate is taken: after it, a process may be out of work"""


class Crew:
    """A running program of several processes.

    :param tallies: the folder in which each process counts what it has handled.
    """

    def __init__(self, program: Program, tallies: str) -> None:
        self.program = program
        self._tallies = tallies

    def counts(self) -> list[int]:
        """How many messages each process has handled."""
        found = []
        for entry in os.scandir(self._tallies):
            with open(entry.path, 'rb') as file:
                found.append(int.from_bytes(file.read(8), 'little'))
        return found

    def rate(self, processes: int, messages: int) -> float:
        """Messages a second of all together, while all of them have work."""
        self._wait(lambda counts: len(counts) >= processes and min(counts) > 0)
        began, first = time.monotonic(), sum(self.counts())
        self._wait(lambda counts: sum(counts) >= messages * LATEST)
        ended, last = time.monotonic(), sum(self.counts())
        return (last - first) / (ended - began)

    def processes(self) -> list[int]:
        """The pids of all of its processes."""
        return descendants(self.program.pid)

    def _wait(self, happened: object) -> None:
        deadline = time.monotonic() + 4 * PATIENCE
        while not happened(self.counts()):  # type: ignore[operator]
            if time.monotonic() > deadline:
                self.program._complain(f'no more messages: {self.counts()}')
            time.sleep(0.01)


class Crews:
    """Starts them, each with a queue of its own."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self.streams = Streams(workshop)
        self._numbers = itertools.count()

    def queue(self, name: str) -> str:
        """A new queue, declared as that program declares it."""
        queue = f'crew-{next(self._numbers)}'
        arguments = {}
        if name == 'dramatiq':
            arguments = {
                'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': f'{queue}.XQ'}
        self.streams.channel.queue_declare(
            queue, durable=True, auto_delete=False, arguments=arguments)
        return queue

    def fill(self, name: str, queue: str, count: int) -> None:
        """Put messages there that the program takes for its own: for a task without arguments."""
        body, properties = HUNDRED
        if name == 'celery':
            body = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
            headers = {'lang': 'py', 'task': 'noop', 'id': 'a' * 36, 'root_id': 'a' * 36,
                       'parent_id': None, 'group': None, 'retries': 0, 'eta': None,
                       'expires': None, 'timelimit': [None, None]}
            properties = {'content_type': 'application/json', 'content_encoding': 'utf-8',
                          'application_headers': headers, 'correlation_id': 'a' * 36}
        elif name == 'dramatiq':
            body = json.dumps({
                'queue_name': queue, 'actor_name': 'noop', 'args': [], 'kwargs': {},
                'options': {}, 'message_id': 'a' * 36, 'message_timestamp': 0,
            }).encode()
            properties = {}
        self.streams.fill(queue, count, body, properties)

    @contextlib.contextmanager
    def run(self, name: str, queue: str, processes: int, **environment: object) -> Iterator[Crew]:
        """Run a program; at the end all of its processes are killed."""
        workshop = self._workshop
        with tempfile.TemporaryDirectory(dir=workshop.directory) as tallies:
            configuration = workshop.configuration(
                f'{queue}-{processes}', f'Daemon: {{workers: {processes}}}\nAMQP:\n'
                f'  url: {workshop.url}\n  prefetch: {PREFETCH}\n'
                f'  queues: {{{queue}: {{durable: true}}}}\n')
            program = workshop.run(
                COMMANDS[name].format(configuration), url=workshop.url, queue=queue,
                prefetch=PREFETCH, processes=processes, tallies=tallies, **environment)
            crew = Crew(program, tallies)
            try:
                yield crew
            finally:
                for pid in crew.processes():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                program.__exit__()


def descendants(pid: int) -> list[int]:
    """The process, and those below it."""
    try:
        with open(f'/proc/{pid}/task/{pid}/children') as file:
            children = [int(child) for child in file.read().split()]
    except OSError:
        return []
    return [pid, *itertools.chain.from_iterable(map(descendants, children))]
