"""A RabbitMQ node of one's own: for tests, for benchmarks, and for trying a program by hand.

Nothing of it is shared with the node that the Debian package runs as a service: ports, cookie,
database, logs and port mapper (epmd) are its own, so that any number of nodes can run side by
side, started by any user. ``python -m tests.broker`` runs one until Ctrl-C.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

# The program in /usr/sbin is a wrapper, and a signal to it does not reach the node.
PROGRAMS = '/usr/lib/rabbitmq/bin'

BOOT = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'packages/boot.sh')


class Broker:
    """A private RabbitMQ node on 127.0.0.1; a context manager that starts and removes it.

    Starting takes about 4 s. What the node holds outlives :meth:`stop` and :meth:`kill` until
    :meth:`close`, which ``with`` calls.

    :param config: lines of rabbitmq.conf (``key = value``).
    :param advanced_config: an Erlang term for advanced.config, as
        ``[{rabbit, [{consumer_timeout, 3000}]}].``
    :param root: the root of another system whose RabbitMQ it is, as ``make test-on`` has them
        below ``build/roots``; it takes root. By default what the environment has as
        ``BROKER_ROOT``, else this system's.
    :param epmd_port: of the port mapper; by default one of its own. The nodes of a cluster have
        the same one.
    :param cookie: the secret that nodes of a cluster share; by default it makes one.
    :param schedulers: how many threads of the node's run Erlang code at a time.
    """

    def __init__(self, config: str = '', advanced_config: str = '[].', root: str | None = None, *,
                 epmd_port: int | None = None, cookie: str = '', schedulers: int = 2) -> None:
        self.root = root or os.environ.get('BROKER_ROOT')
        self.port, own_epmd_port, self._distribution_port = _free_ports(3)
        self._epmd_port = epmd_port or own_epmd_port
        self._schedulers = schedulers
        self.name = f't{self.port}@localhost'
        self.directory = tempfile.mkdtemp(prefix='rabbitmq-')
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(config)
        self._write('advanced.config', advanced_config)
        self._write('enabled_plugins', '[].')
        if cookie:
            self._write('.erlang.cookie', cookie)
            os.chmod(self._path('.erlang.cookie'), 0o400)  # or the node refuses to read it

    def __enter__(self) -> Broker:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def url(self, vhost: str = '/') -> str:
        """The URL of a virtual host, as the user ``guest``."""
        return f'amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe="")}'

    @property
    def log(self) -> str:
        """What the node has logged and printed."""
        text = ''
        for name in ('node.log', 'output'):
            if os.path.exists(path := self._path(name)):
                with open(path, errors='replace') as file:
                    text += file.read()
        return text

    def configure(self, config: str) -> None:
        """Write rabbitmq.conf, for the next start."""
        self._write('rabbitmq.conf', config)

    def start(self, timeout: float = 60) -> None:
        """Start the node, or start it again, and return when it accepts connections.

        :raises RuntimeError: it ended first, or was not ready within ``timeout`` seconds.
        """
        with self._notifications() as notifications, open(self._path('output'), 'ab') as output:
            self.process = subprocess.Popen(
                self._command(f'{PROGRAMS}/rabbitmq-server'),
                env=self._environment(), cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,  # a Ctrl-C in the terminal is not for the node
            )
            if not _wait_for_ready(self.process, notifications, timeout):
                self.kill()
                raise RuntimeError(f'RabbitMQ did not start:\n{self.log}')

    def stop(self, timeout: float = 30) -> None:
        """Stop the node in order, as the service manager does; no effect where none runs."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """Let the node crash; no effect where none runs."""
        self._end(signal.SIGKILL, timeout=30)

    def pause(self) -> None:
        """Freeze the node: its connections stay open and nothing answers."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # Until all its threads have stopped; its end, if it has ended, is Popen's to see.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen node go on."""
        self._running().send_signal(signal.SIGCONT)

    def limit_messages(self, size: int) -> int:
        """Have channels that are opened from now on take no larger messages.

        :param size: of a body, in bytes; RabbitMQ's ``max_message_size``.
        :returns: what it was before.
        """
        # Since 4.0 it is read from there, and no longer from the environment.
        return int(self.ctl('eval', f"""
            {{ok, Before}} = application:get_env(rabbit, max_message_size),
            application:set_env(rabbit, max_message_size, {size}),
            persistent_term:put(max_message_size, {size}),
            Before.
        """))

    def ctl(self, *arguments: str, timeout: float = 180) -> str:
        """Run ``rabbitmqctl --quiet`` on the node; it takes a second, on a busy machine more.

        :returns: what it printed.
        :raises RuntimeError: it failed.
        """
        done = subprocess.run(
            self._command(f'{PROGRAMS}/rabbitmqctl', '--quiet', *arguments),
            env=self._environment(), cwd=self.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f'rabbitmqctl {" ".join(arguments)}: {done.stdout}')
        return done.stdout

    def close(self) -> None:
        """Stop the node and its port mapper, and remove what they have stored."""
        try:
            self.stop()
        finally:
            subprocess.run(
                self._command('epmd', '-kill'), env=self._environment(), cwd='/',
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, signum: int, timeout: float) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signum)
        process.send_signal(signal.SIGCONT)  # a frozen node would not see the signal
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def _command(self, *words: str) -> list[str]:
        """A command of the node's system; where that is another, its process is the command's."""
        if not self.root:
            return [*words]
        return ['unshare', '--mount', 'sh', BOOT, self.root,
                '--bind', self.directory, self.directory, *words]

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError('the node is not running')
        return self.process

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _write(self, name: str, text: str) -> None:
        with open(self._path(name), 'w') as file:
            file.write(text + '\n')

    def _environment(self) -> dict[str, str]:
        """What makes the node a private one. See rabbitmq-env(7), epmd(1) and erl(1)."""
        ours = ('RABBITMQ_', 'ERL_', 'NOTIFY_SOCKET', 'WATCHDOG_')
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return inherited | {
            'HOME': self.directory,  # of the cookie
            'NOTIFY_SOCKET': self._path('notify'),
            'RUNNING_UNDER_SYSTEMD': 'true',  # the shell script becomes the node: one pid
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(self._epmd_port),
            'ERL_EPMD_RELAXED_COMMAND_CHECK': 'true',  # it can be ended just after a crash
            'RABBITMQ_NODENAME': self.name,
            'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
            'RABBITMQ_NODE_PORT': str(self.port),
            'RABBITMQ_DIST_PORT': str(self._distribution_port),
            'RABBITMQ_MNESIA_BASE': self._path('mnesia'),
            'RABBITMQ_LOG_BASE': self.directory,
            'RABBITMQ_LOGS': self._path('node.log'),
            'RABBITMQ_CONFIG_FILE': self._path('rabbitmq.conf'),
            'RABBITMQ_ADVANCED_CONFIG_FILE': self._path('advanced.config'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': self._path('enabled_plugins'),
            'RABBITMQ_PID_FILE': self._path('pid'),
            'RABBITMQ_CONF_ENV_FILE': '/dev/null',
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
                '-kernel inet_dist_use_interface {127,0,0,1} '
                f'+S {self._schedulers}:{self._schedulers}',
        }

    @contextmanager
    def _notifications(self) -> Iterator[socket.socket]:
        """A socket for sd_notify(3), open for as long as the node starts."""
        path = self._path('notify')
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.bind(path)
            try:
                yield notifications
            finally:
                os.unlink(path)


def _wait_for_ready(process: subprocess.Popen[bytes], notifications: socket.socket,
                    timeout: float) -> bool:
    """Wait for READY=1: whether it came before the process ended and the time was over."""
    deadline = time.monotonic() + timeout
    exited = os.pidfd_open(process.pid)
    try:
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([notifications, exited], [], [], left)
            if notifications in readable:
                if b'READY=1' in notifications.recv(4096).split(b'\n'):
                    return True
            elif exited in readable:
                return False
        return False
    finally:
        os.close(exited)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that Linux gives to clients (ip(7))."""
    free = []
    for port in random.sample(range(20000, 32768), 100):
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError('no free ports')


def main() -> None:
    with Broker() as broker:
        print(f'{broker.url()}  (Ctrl-C ends it)', flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print()


if __name__ == '__main__':
    main()
