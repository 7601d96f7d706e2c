"""A consumer that is paused, as a program that does not detach, and what it has handled."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

import kombu

from clihelper.testing import Program
from tests.test_control import ROOT, clihelper

PROGRAM = str(ROOT / 'tests/programs/paused.py')

KINDS = {'single': '', 'threads': 'threads: 3', 'coroutines': 'concurrency: 2',
         'batches': 'batch: {wait: 0.01}'}
"""the ways to consume, and what each takes in ``AMQP``"""


class Paused(Program):
    """The program of programs/paused.py.

    :param amqp: further keys of ``AMQP``.
    :param options: of the queue.
    """

    def __init__(self, folder, url, queue, *, kind='single', amqp='', options='',
                 daemon='', pause=0.5, kept=True, more=''):
        self.folder = folder
        self.queue = queue
        self.pidfile = folder / 'paused.pid'
        self.file = folder / 'paused.yml'
        state = f'state_directory: {folder}, ' if kept else ''
        self.file.write_text(
            f'Application: {{wake_interval: 0.1}}\n'
            f'Daemon: {{pidfile: {self.pidfile}, {state}{daemon}}}\n'
            'Logging:\n'
            '  handlers: {all: {class: logging.StreamHandler, stream: ext://sys.stderr}}\n'
            '  root: {level: INFO, handlers: [all]}\n'
            f'AMQP:\n  url: {url}\n  prefetch: 20\n  queues:\n    {queue}: {{{options}}}\n'
            f'{more}'
            + ''.join(f'  {line}\n' for line in (KINDS.get(kind, ''), amqp) if line))
        super().__init__(
            [sys.executable, PROGRAM, '-c', str(self.file)],
            env={'FOLDER': str(folder), 'KIND': kind, 'QUEUE': queue, 'PAUSE': str(pause),
                 'PYTHONPATH': str(ROOT)})

    def __enter__(self):
        super().__enter__()
        self.wait_ready(30)
        return self

    def ask(self, command, *words):
        """Run ``clihelper COMMAND``."""
        return clihelper(command, *words, '--pidfile', self.pidfile)

    def do(self, command, *words):
        """Run it, and see that it is done."""
        done = self.ask(command, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def request(self, command):
        """Ask it by its socket, without the time that a command takes to start."""
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(self.folder / 'paused.sock'))
            connected.sendall(json.dumps({'command': command}).encode() + b'\n')
            assert json.loads(connected.makefile().readline())['status'] == 0

    def status(self):
        return json.loads(self.do('status', '--json'))

    @staticmethod
    def kill_worker(pid):
        os.kill(pid, signal.SIGKILL)

    def notes(self, what='done'):
        """When what was done with which message, by the monotonic clock, and by which process."""
        return notes(self.folder, what)

    def bodies(self, what='done'):
        return [body for _, body, _ in self.notes(what)]

    def wait_notes(self, count, what='done', timeout=15):
        end = time.monotonic() + timeout
        while len(self.bodies(what)) < count:
            assert time.monotonic() < end, (self.bodies(what), self.lines)
            time.sleep(0.005)


def notes(folder, what='done'):
    try:
        lines = [line.split() for line in (folder / 'notes').read_text().splitlines()]
    except FileNotFoundError:
        return []
    return [(float(when), body, int(pid)) for when, did, body, pid in lines if did == what]


class Queue:
    """A queue, seen by another client."""

    def __init__(self, url, name):
        self.name = name
        self._connection = kombu.Connection(url)
        self.channel = self._connection.channel()

    def close(self):
        self._connection.close()

    def send(self, *bodies, **properties):
        producer = kombu.Producer(self.channel)
        for body in bodies:
            producer.publish(str(body), routing_key=self.name, content_type='text/plain',
                             **properties)

    def left(self):
        return self.channel.queue_declare(self.name, passive=True).message_count

    def wait_left(self, count, timeout=10):
        end = time.monotonic() + timeout
        while self.left() != count:
            assert time.monotonic() < end, self.left()
            time.sleep(0.01)

    def dead(self):
        found = []
        while (message := self.channel.basic_get(f'{self.name}.dead', no_ack=True)) is not None:
            found.append(self.channel.message_to_python(message))
        return found
