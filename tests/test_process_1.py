"""As process 1 of a container, for which a namespace of processes stands in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clihelper.testing import Program
from tests.test_workers import children

PROGRAM = str(Path(__file__).parent / 'programs' / 'orphans.py')


class Container(Program):
    def __init__(self, folder, daemon='', more='', held_at_fork=False):
        file = folder / 'orphans.yml'
        file.write_text(
            f'Application: {{wake_interval: 0.1, {more}}}\n'
            f'Daemon: {{pidfile: {folder}/pid, {daemon}}}\n'
        )
        super().__init__(
            ['unshare', '-pf', '--mount-proc', '--kill-child', sys.executable, PROGRAM, '-c',
             str(file)],
            notify=False, stdin=subprocess.PIPE,
            env={'PYTHONUNBUFFERED': '1', 'HELD_AT_FORK': '1' if held_at_fork else None},
        )

    @property
    def first(self):
        """Process 1, by its number outside."""
        return children(self.pid)[0]

    def all(self):
        return [self.first, *children(self.first), *map(children, children(self.first))]


def zombies(pid):
    return [
        child for child in children(pid)
        if Path(f'/proc/{child}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'
    ]


@pytest.mark.root
@pytest.mark.parametrize(('daemon', 'count'), [('', 1), ('workers: 2', 2)])
def test_orphans_are_reaped_and_own_children_are_not(tmp_path, daemon, count):
    with Container(tmp_path, daemon) as container:
        for _ in range(20):
            assert container.wait_line(r'own child: (\d)')[1] == '7'
        end = time.monotonic() + 5
        while len(children(container.first)) > count + 2 or zombies(container.first):
            assert time.monotonic() < end, children(container.first)
            time.sleep(0.02)
        started = time.monotonic()
        os.kill(container.first, 15)
        # Where one process does the work it goes on in the program, and that has its own status.
        assert container.wait() == 3
        assert time.monotonic() - started < 1
        assert sum('after run' in line for line in container.lines) == 1


@pytest.mark.root
def test_the_end_of_the_program_is_that_of_process_1(tmp_path):
    with Container(tmp_path, more='die: true') as container:
        assert container.wait() == 128 + 9


@pytest.mark.root
@pytest.mark.parametrize(('signum', 'status'), [(15, 75), (2, 75), (3, 131)])
def test_a_stop_before_the_child_has_its_handlers_is_a_stop(tmp_path, signum, status):
    with Container(tmp_path, held_at_fork=True) as container:
        container.wait_line('forked')
        os.kill(children(container.first)[0], signum)
        container.stdin.write(b'\n')
        assert container.wait() == status
        assert sum('stopped' in line for line in container.stderr) == 1
