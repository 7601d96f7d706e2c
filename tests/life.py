"""A program of ``tests/programs`` and its life: what it reports, and where it is held up."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from clihelper.testing import TIMEOUT, Program, WaitError
from clihelper.testing.process import signal_number

PROGRAMS = Path(__file__).parent / 'programs'

LOGGING = """\
Logging:
  formatters: {plain: {format: '%(levelname)s %(name)s %(message)s'}}
  handlers: {file: {class: logging.FileHandler, filename: FOLDER/log, formatter: plain}}
  root: {level: DEBUG, handlers: [file]}
"""
"""A section that has all that is logged in the file ``log``"""


def open_to_all(folder: Path) -> None:
    """Let everybody into a test's folder: pytest makes it, and those above it, one's own."""
    for each in (folder, *folder.parents):
        if 'pytest' not in str(each):
            break
        each.chmod(0o755)


class Life:
    """A program, in the foreground or as a daemon, from entering the ``with`` to leaving it.

    Its configuration is ``app.yml`` in *folder*, and its log ``log`` there.

    :param folder: the test's own.
    :param program: the file in ``tests/programs``.
    :param words: what follows it on the command line, before the options.
    :param options: what follows after ``-c FILE``; by default it stays in the foreground. With
        none at all it is a daemon; ``--`` is none, for what does not detach for other reasons.
    :param config: sections of the configuration, besides the pidfile and the log.
    :param held_at: phases in which the program waits for :meth:`let_go`.
    :param stdout_to: a descriptor that is its standard output; :attr:`program` sees none then.
    :param stderr_to: the same for standard error.
    :param popen: further arguments of :class:`~clihelper.testing.Program`.
    :ivar Program program: the command; it tells a daemon's end, too.
    """

    def __init__(
        self,
        folder: Path,
        program: str,
        *words: str,
        options: tuple[str, ...] = ('-f',),
        config: str = 'Daemon: {pidfile: FOLDER/pid}\n',
        log: str = LOGGING,
        held_at: str = '',
        env: dict[str, str | None] | None = None,
        stdout_to: int | None = None,
        stderr_to: int | None = None,
        **popen: Any,
    ) -> None:
        self.folder = folder
        self.configure(config + log)
        for name in ('reports', 'gate'):
            os.mkfifo(folder / name)
        self._reports = os.open(folder / 'reports', os.O_RDWR | os.O_NONBLOCK)
        self._gate = os.open(folder / 'gate', os.O_RDWR)
        self._unread = b''
        self.reported: list[str] = []
        self._reporters: dict[str, set[int]] = {}
        self.pid = 0
        self._ended: dict[str, int] = {}
        self._is_daemon = options == ()
        popen.setdefault('notify', False)
        for number, descriptor in ((1, stdout_to), (2, stderr_to)):
            if descriptor is not None:
                popen['preexec_fn'] = partial(os.dup2, descriptor, number)
        self.program = Program(
            [
                sys.executable,
                *([str(PROGRAMS / 'reaper.py'), sys.executable] if self._is_daemon else []),
                str(PROGRAMS / program),
                *words,
                '-c',
                str(folder / 'app.yml'),
                *options,
            ],
            env={
                'REPORTS': str(folder / 'reports'),
                'GATE': str(folder / 'gate'),
                'HELD_AT': held_at,
                'PYTHONPATH': os.pathsep.join([str(PROGRAMS.parent.parent), str(PROGRAMS)]),
                **(env or {}),
            },
            cwd=folder,
            **popen,
        )

    def __enter__(self) -> Self:
        self.program.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_daemon:
            self._kill_daemon()
        self.program.__exit__(*exception)
        os.close(self._reports)
        os.close(self._gate)

    def _kill_daemon(self) -> None:
        try:
            if f'REPORTS={self.folder}/' in Path(f'/proc/{self.pid}/environ').read_text():
                os.kill(self.pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            pass

    def configure(self, text: str) -> None:
        """Write the configuration."""
        (self.folder / 'app.yml').write_text(text.replace('FOLDER', str(self.folder)))

    @property
    def log(self) -> list[str]:
        """The lines of the log so far."""
        try:
            return (self.folder / 'log').read_text().splitlines()
        except FileNotFoundError:
            return []

    def logged(self, words: str) -> int:
        """How many lines of the log have the *words*."""
        return sum(words in line for line in self.log)

    def wait_logged(self, words: str, times: int = 1, timeout: float = TIMEOUT) -> None:
        """Wait until that many lines of the log have the *words*."""
        end = time.monotonic() + timeout
        while self.logged(words) < times:
            if time.monotonic() > end:
                raise WaitError('\n'.join([f'{words!r} was not logged', *self.log]))
            time.sleep(0.005)

    def wait_report(self, words: str, timeout: float = TIMEOUT) -> str:
        """Wait until it reports what begins with *words*; the process that does is :attr:`pid`.

        :raises WaitError: it does not.
        """
        end = time.monotonic() + timeout
        while True:
            while b'\n' in self._unread:
                line, _, self._unread = self._unread.partition(b'\n')
                pid, _, report = line.decode().partition(' ')
                self.reported.append(report)
                self._reporters.setdefault(report, set()).add(int(pid))
                if report.startswith(words):
                    self.pid = int(pid)
                    return report
            if not select.select([self._reports], [], [], max(end - time.monotonic(), 0))[0]:
                raise WaitError(
                    f'{words!r} was not reported\n{self.program}\nreported: {self.reported}\n'
                    + '\n'.join(self.log)
                )
            self._unread += os.read(self._reports, 65536)

    def take_reports(self) -> list[str]:
        """All that it has reported so far."""
        try:
            self.wait_report('\0', timeout=0)
        except WaitError:
            pass
        return self.reported

    def pids_of(self, report: str) -> set[int]:
        """The processes that have reported exactly this."""
        self.take_reports()
        return self._reporters.get(report, set())

    def let_go(self, times: int = 1) -> None:
        """Open the gate at which it waits."""
        os.write(self._gate, b'.' * times)

    def signal(self, *signums: int | str) -> None:
        """Send signals to the process that reported last."""
        for signum in signums:
            os.kill(self.pid, signal_number(signum))

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end of the program in the foreground; its exit status."""
        return self.program.wait(timeout)

    @cached_property
    def command(self) -> int:
        """The pid of the command that starts a daemon."""
        return int(self.program.wait_line(r'^started (\d+)$')[1])

    def wait_command(self, timeout: float = TIMEOUT) -> int:
        """The exit status of the command that starts a daemon."""
        return self._wait_ended('command', timeout)

    def wait_daemon(self, timeout: float = TIMEOUT) -> int:
        """The exit status of the daemon, the process that reported last."""
        return self._wait_ended(str(self.pid), timeout)

    def _wait_ended(self, who: str, timeout: float) -> int:
        """Either of the two may end first; what the other's end says is kept for later."""
        while who not in self._ended:
            line = self.program.wait_line(r'^(command|\d+) (-?\d+)$', timeout)
            self._ended[line[1]] = int(line[2])
        return self._ended[who]


def settled(pid: int) -> str:
    """Wait until a process sleeps and goes on to; how often it has: proc_pid_status(5)."""
    before = None
    while True:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
        status = dict(line.split(':', 1) for line in lines)
        now = status['State'], status['voluntary_ctxt_switches']
        if now == before and 'sleeping' in now[0]:
            return now[1]
        before = now
        time.sleep(0.005)
