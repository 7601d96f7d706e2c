"""The tutorial can be followed: files are written, commands typed, their output compared."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.test_docs import BLOCKS, DOCS, DOCUMENTED_URL, ROOT, Block, commands_of, free_port

PAGE = DOCS / 'tutorial.rst'
STEPS = sorted(
    (block for block in BLOCKS[PAGE] if block.name or block.language == 'console'),
    key=lambda block: int(block.id.rpartition(':')[2]))

#: What only reads is typed again until it shows what is expected, as a reader would.
READING = ('grep ', 'curl ', 'clihelper status', 'clihelper dead-letters -c parcels.yml list')

#: Seconds that a command may take to show what is expected.
PATIENCE = 60

PROGRAMS = {
    'python': 'exec "$PYTHON" "$@"',
    'pip': 'exec "$PYTHON" -m pip "$@"',
    'clihelper': 'exec "$PYTHON" -m clihelper "$@"',
}


class Terminal:
    """A shell that lives as long as the reader's terminal.

    :param replaced: what stands in the tutorial, with what is here in its place.
    """

    def __init__(self, folder: Path, replaced: dict[str, str]) -> None:
        self._replaced = replaced
        self.typed = ''
        self._pending = b''
        for name, text in PROGRAMS.items():
            path = folder / 'bin' / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\n{text}\n')
            path.chmod(0o755)
        environment = {
            **os.environ,
            'PATH': f'{folder}/bin:{os.environ["PATH"]}',
            'PYTHON': sys.executable,
            'PYTHONPATH': str(ROOT),
            'PIP_NO_BUILD_ISOLATION': '0',  # means that there is none, and so no index
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
            'LC_ALL': 'C.UTF-8',
        }
        for name in ('PYTHONWARNINGS', 'RUNTIME_DIRECTORY', 'XDG_RUNTIME_DIR'):
            environment.pop(name, None)  # pip and setuptools warn of much
        self.process = subprocess.Popen(
            ['bash', '--norc'], cwd=folder, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def write(self, name: str, text: str) -> None:
        (folder,) = self.run('pwd')
        Path(self._here(folder), name).write_text(self._here(text))

    def run(self, command: str) -> list[str]:
        """Type a command; the lines that it prints."""
        self.type(command)
        lines = list(self.rest())
        return lines if lines[-1] else lines[:-1]  # the last may have had no end of its own

    def type(self, command: str) -> None:
        assert self.process.stdin
        self.typed = command
        line = self._here(command)
        self.process.stdin.write(
            f'{line}\n_status=$?; printf "\\n--- done\\n"; (exit $_status)\n'.encode())
        self.process.stdin.flush()

    def rest(self) -> Iterator[str]:
        """The lines until the end of the command."""
        return iter(self.line, '--- done')

    def line(self) -> str:
        """The next line, as the tutorial would have it."""
        assert self.process.stdout
        while b'\n' not in self._pending:
            readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            assert readable, f'it does not end: {self.typed}'
            got = os.read(self.process.stdout.fileno(), 65536)
            assert got, 'the shell has ended'
            self._pending += got
        line, _, self._pending = self._pending.partition(b'\n')
        text = line.decode()
        for documented, real in self._replaced.items():
            text = text.replace(real, documented)
        return text

    def interrupt(self) -> None:
        """Ctrl-C: to what runs in the foreground."""
        pid = self.process.pid
        for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()[-1:]:
            os.kill(int(child), signal.SIGINT)

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE)

    def _here(self, text: str) -> str:
        for documented, real in self._replaced.items():
            text = text.replace(documented, real)
        return text


def fits(shown: list[str], lines: list[str]) -> bool:
    """Whether these lines are what is shown: three dots are anything, numbers may differ.

    A line that is only three dots stands for any number of lines.
    """
    expressions = []
    for line in shown:
        if line == '...':
            expressions.append(r'(?:.*\n)*')
        else:
            expression = re.sub(r'\d+', r'\\d+', re.escape(' '.join(line.split())))
            expressions.append(expression.replace(r'\.\.\.', '.*') + r'\n')
    text = ''.join(' '.join(line.split()) + '\n' for line in lines)
    return re.fullmatch(''.join(expressions), text) is not None


def follow(terminal: Terminal, block: Block) -> None:
    """Type the commands of a block, and hold what they print against what is shown."""
    for command, shown in commands_of(block.text):
        if '^C' in shown:
            terminal.type(command)
            awaited = [line for line in shown if line not in ('^C', '...')]
            while awaited:  # processes that share a terminal write in any order
                line = terminal.line()
                awaited = [each for each in awaited if not fits([each], [line])]
            terminal.interrupt()
            assert all('Traceback' not in line for line in terminal.rest())
            continue
        deadline = time.monotonic() + PATIENCE
        while not fits(shown, lines := terminal.run(command)):
            assert command.startswith(READING), (block.id, command, lines)
            assert time.monotonic() < deadline, (block.id, command, lines)


@pytest.fixture
def terminal(broker: Broker, tmp_path: Path) -> Iterator[Terminal]:
    broker.ctl('add_vhost', 'tutorial')
    broker.ctl('set_permissions', '-p', 'tutorial', 'guest', '.*', '.*', '.*')
    url = broker.url('tutorial')
    replaced = {
        DOCUMENTED_URL: url,
        DOCUMENTED_URL.replace(':guest@', ':**@'): url.replace(':guest@', ':**@'),
        '/tmp/parcels': str(tmp_path / 'state'),
        'localhost:9321': f'localhost:{free_port()}',
        'localhost:9091': f'localhost:{free_port()}',
    }
    terminal = Terminal(tmp_path, replaced)
    try:
        yield terminal
    finally:
        terminal.interrupt()
        terminal.run('kill $(jobs -p) 2>/dev/null; clihelper stop --kill -c parcels.yml parcels')
        terminal.close()


def test_the_tutorial_can_be_followed_to_its_end(terminal: Terminal) -> None:
    for step in STEPS:
        if step.name:
            terminal.write(step.name, step.text)
        else:
            follow(terminal, step)


@pytest.mark.parametrize('shown', [['a'], ['a', 'b', 'c'], ['a', 'B'], ['b', '...'], []])
def test_what_does_not_fit_is_noticed(shown: list[str]) -> None:
    assert not fits(shown, ['a', 'b'])


@pytest.mark.parametrize('shown', [['a 9', 'b'], ['...'], ['a ...', 'b'], ['a 1', '...']])
def test_what_may_differ_may_differ(shown: list[str]) -> None:
    assert fits(shown, ['a  1', 'b'])
