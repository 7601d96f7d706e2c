"""A daemon to be asked, with a control socket, and ways to ask it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from clihelper.process.sockets import addressable
from clihelper.testing import Daemon
from tests.test_control import ROOT, clihelper

PROGRAM = str(ROOT / 'tests/programs/asked.py')


class Asked(Daemon):
    """The program of programs/asked.py as a daemon.

    :param daemon: further keys of ``Daemon``.
    :param more: keys of ``Application``.
    """

    def __init__(self, folder, *, kind='interval', daemon='', more='', interval=0.1, **options):
        self.folder = folder / 'run'
        self.folder.mkdir(exist_ok=True)
        self.file = folder / 'asked.yml'
        self.pidfile = self.folder / 'asked.pid'
        self.path = self.folder / 'asked.sock'
        self.configure(daemon, more, interval)
        super().__init__([sys.executable, PROGRAM, '-c', str(self.file)], self.pidfile,
                         env={'PYTHONPATH': str(ROOT), 'KIND': kind}, **options)

    def __exit__(self, *exception):
        workers = self.workers() if self.is_running else []
        super().__exit__(*exception)
        for pid in workers:  # one that is stuck does not notice that its supervisor has ended
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def configure(self, daemon='', more='', interval=0.1):
        self.file.write_text(
            f'Application: {{wake_interval: {interval}, {more}}}\n'
            f'Daemon: {{pidfile: {self.pidfile}, {daemon}}}\n'
            f'Logging:\n'
            f'  handlers: {{file: {{class: logging.FileHandler, filename: {self.folder}/log}}}}\n'
            f'  root: {{level: INFO, handlers: [file]}}\n'
        )

    def ask(self, command, *words):
        """Run ``clihelper COMMAND``."""
        return clihelper(command, *words, '--pidfile', self.pidfile)

    def connect(self):
        connected = socket.socket(socket.AF_UNIX)
        with addressable(str(self.path)) as address:
            connected.connect(address)
        connected.settimeout(10)
        return connected

    def request(self, data):
        """Send bytes, and return all answers until the daemon has answered or closed."""
        with self.connect() as connected, connected.makefile('rb') as answers:
            connected.sendall(data)
            found = []
            for line in answers:
                found.append(json.loads(line))
                if 'status' in found[-1]:
                    break
            return found

    def log(self):
        log = self.folder / 'log'
        return log.read_text() if log.exists() else ''

    def wait_logged(self, words, times=1):
        end = time.monotonic() + 15
        while self.log().count(words) < times:
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def wait_worked(self, times=10):
        """Wait until all workers together have done so many pieces of work."""
        end = time.monotonic() + 15
        wanted = self._worked() + times
        while self._worked() < wanted:
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def _worked(self):
        beat = self.folder / 'beat'
        return beat.stat().st_size if beat.exists() else 0  # the first one makes it

    def descriptors(self):
        return len(os.listdir(f'/proc/{self.pid}/fd'))

    def resident(self):
        return int(Path(f'/proc/{self.pid}/statm').read_text().split()[1]) * 4096

    def workers(self):
        children = Path(f'/proc/{self.pid}/task/{self.pid}/children').read_text()
        return [int(child) for child in children.split()]


def as_user(folder, code, *words, user='nobody'):
    """Run Python code as another user, who can import the package from a folder that they see."""
    if not (folder / 'clihelper').exists():
        subprocess.run(['cp', '-r', ROOT / 'clihelper', folder], check=True)
    return subprocess.run(
        ['/usr/bin/python3', '-c', f'import sys; sys.path[:0] = [{str(folder)!r}]\n{code}',
         *map(str, words)],
        user=user, capture_output=True, text=True, timeout=60, cwd='/',
    )


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
