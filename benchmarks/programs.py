"""The programs that are measured: how they are started, watched and stopped."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

PEERS = os.path.join(os.path.dirname(__file__), 'peers')
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

PATIENCE = 30.0
"""seconds that a program has for whatever is waited for"""

LOGGING = """
Logging:
  version: 1
  formatters:
    plain: {format: '%(asctime)s %(levelname)s %(name)s: %(message)s'}
  handlers:
    console: {class: logging.StreamHandler, formatter: plain}
  root: {handlers: [console], level: WARNING}
"""
"""Both of the frameworks that read a configuration read this one."""


class Program:
    """A running program that tells its events.

    An event is a time of ``time.monotonic``, which is one clock for all processes, in a line.

    :param command: the program and its arguments.
    :param environment: of the program.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._events, writer = os.pipe()
        self._buffer = b''
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                command, env=environment | {'BENCHMARK_EVENTS': str(writer)},
                pass_fds=[writer], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=self._errors)
        finally:
            os.close(writer)
        self.pid = self._process.pid
        self._command = ' '.join(command)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._events)
        self._errors.close()

    def event(self) -> float:
        """The time of the next event; the first time that is asked for is that of the first."""
        deadline = time.monotonic() + PATIENCE
        while b'\n' not in self._buffer:
            left = max(deadline - time.monotonic(), 0.0)
            readable, _, _ = select.select([self._events], (), (), left)
            chunk = os.read(self._events, 65536) if readable else b''
            if not chunk:
                self._complain('no event')
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b'\n')
        return float(line)

    def events(self) -> list[float]:
        """The times of all events that were told by now."""
        while select.select([self._events], (), (), 0)[0]:
            chunk = os.read(self._events, 65536)
            if not chunk:
                break
            self._buffer += chunk
        lines, _, self._buffer = self._buffer.rpartition(b'\n')
        return [float(line) for line in lines.split()]

    def terminate(self, *accepted: int) -> float:
        """Send TERM, and return the seconds until the program has ended and was waited for.

        :param accepted: statuses that are none of failure, besides 0.
        """
        sent = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        self._reap(*accepted)
        return time.monotonic() - sent

    def wait(self) -> tuple[float, float]:
        """Wait for a program that ends by itself.

        :returns: the seconds it took, and the seconds of CPU time.
        """
        usage = self._reap()
        return time.monotonic() - self.started, usage.ru_utime + usage.ru_stime

    def resident(self) -> tuple[float, float]:
        """Its resident set and its proportional set, in MiB; see proc(5)."""
        return (_kilobytes(f'/proc/{self.pid}/status', 'VmRSS') / 1024,
                _kilobytes(f'/proc/{self.pid}/smaps_rollup', 'Pss') / 1024)

    def switches(self) -> int:
        """How often its threads have given up a CPU to wait: each is followed by a wakeup."""
        total = 0
        for thread in os.listdir(f'/proc/{self.pid}/task'):
            total += _kilobytes(
                f'/proc/{self.pid}/task/{thread}/status', 'voluntary_ctxt_switches')
        return total

    def _reap(self, *accepted: int) -> resource.struct_rusage:
        """Wait for the end, without the naps that ``Popen.wait`` takes when it has a time-out."""
        ended = os.pidfd_open(self.pid)
        try:
            if not select.select([ended], (), (), PATIENCE)[0]:
                self._complain('does not end')
        finally:
            os.close(ended)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode not in (0, *accepted):
            self._complain(f'status {self._process.returncode}')
        return usage

    def _complain(self, what: str) -> None:
        """End the benchmarks, with what the program has printed."""
        if self._process.returncode is None:
            self._process.kill()
        self._errors.seek(0)
        printed = self._errors.read().decode(errors='replace')
        raise RuntimeError(f'{self._command}: {what}\n{printed}')


class Workshop:
    """Starts programs, and a broker for those that need one.

    :param directory: for configurations and compiled modules; none of it outlives the benchmarks.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._broker: Any = None  # of tests.broker.Broker
        self._channel: Any = None
        self._environment = {
            key: value for key, value in os.environ.items()
            if key not in ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'PYTHONDONTWRITEBYTECODE')
        } | {
            # All of them are compiled beforehand, as installed packages are.
            'PYTHONPYCACHEPREFIX': os.path.join(directory, 'compiled'),
            'PYTHONPATH': ROOT,
        }

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._broker is not None:
            self._broker.close()

    def code(self, source: str) -> Program:
        """Run Python source."""
        return Program([sys.executable, '-c', source], self._environment)

    def script(self, name: str, *words: str) -> Program:
        """Run a Python script of the project."""
        return Program([sys.executable, os.path.join(ROOT, name), *words], self._environment)

    def run(self, command: str, **environment: object) -> Program:
        """Run a peer.

        :param command: its name and arguments.
        :param environment: of it: ``BENCHMARK_INTERVAL`` and the like, without the prefix.
        """
        name, *arguments = command.split()
        added = {f'BENCHMARK_{key.upper()}': str(value) for key, value in environment.items()}
        return Program([*self._program(name), *arguments], self._environment | added)

    def _program(self, name: str) -> list[str]:
        """What runs that peer; one in C, which uses librabbitmq, is compiled first."""
        source = os.path.join(PEERS, f'{name}.c')
        if not os.path.exists(source):
            return [sys.executable, os.path.join(PEERS, f'{name}.py')]
        program = os.path.join(self.directory, name)
        if not os.path.exists(program):
            subprocess.run(['gcc', '-O2', '-o', program, source, '-lrabbitmq'], check=True)
        return [program]

    def configuration(self, name: str, text: str) -> str:
        """Write a configuration; returns its path."""
        path = os.path.join(self.directory, f'{name}.yml')
        with open(path, 'w') as file:
            file.write(text)
        return path

    def interval(self, seconds: float) -> str:
        """The configuration of an interval program."""
        return self.configuration(
            f'interval-{seconds}', f'Application: {{wake_interval: {seconds}}}\n{LOGGING}')

    def consumer(self, queue: str, heartbeat: int, prefetch: int = 1,
                 url: str | None = None, more: str = '') -> str:
        """The configuration of a consumer.

        :param url: of another than the broker itself.
        :param more: further lines of the AMQP section.
        """
        return self.configuration(
            f'{queue}-{heartbeat}',
            f'AMQP:\n  url: {url or self.url}\n  heartbeat: {heartbeat}\n'
            f'  prefetch: {prefetch}\n{more}  queues: {{{queue}: {{durable: true}}}}\n{LOGGING}')

    @property
    def broker(self) -> Any:
        """A private RabbitMQ node, which is started when it is first asked for."""
        if self._broker is None:
            from tests.broker import Broker

            self._broker = Broker()
            self._broker.start()
        return self._broker

    @property
    def url(self) -> str:
        """The URL of the node."""
        url: str = self.broker.url()
        return url

    def count(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        import amqp

        with amqp.Connection(f'127.0.0.1:{self.broker.port}') as connection:
            declared = connection.channel().queue_declare(queue, passive=True)
            return int(declared.message_count)

    def fill(self, queue: str, count: int) -> None:
        """Put messages into a durable queue, which is made if it is not there."""
        import pika  # type: ignore[import-untyped]

        if self._channel is None:
            parameters = pika.URLParameters(self.url)
            parameters.heartbeat = 0
            self._channel = pika.BlockingConnection(parameters).channel()
            self._channel.confirm_delivery()
        self._channel.queue_declare(queue, durable=True)
        properties = pika.BasicProperties(content_type='application/json', delivery_mode=2)
        for number in range(count):
            self._channel.basic_publish('', queue, b'%d' % number, properties)


def _kilobytes(path: str, key: str) -> int:
    with open(path) as file:
        for line in file:
            if line.startswith(f'{key}:'):
                return int(line.split()[1])
    raise KeyError(key)
