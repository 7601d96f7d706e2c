"""A daemon that has no descriptors left recovers, and one that runs for long stays as it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clihelper.testing import Program

PROGRAMS = Path(__file__).parent / 'programs'


def run(name, config):
    return Program([sys.executable, str(PROGRAMS / f'{name}.py'), '-c', str(config), '-f'])


def test_without_descriptors_a_reload_fails_and_is_told_and_the_next_works(tmp_path):
    config = tmp_path / 'exhausted.yml'
    config.write_text('Application: {wake_interval: 3600}\n')
    with run('exhausted', config) as program:
        program.wait_line('exhausted')
        program.wait_line('process')
        for signum in ('USR1', 'HUP'):
            program.signal(signum)
            program.wait_line('exhausted.yml: cannot be read: Too many open files')
            program.wait_line('going on with the old one')
        program.signal('USR2')
        program.wait_line('relieved')
        program.signal('USR1')
        program.wait_line('reloaded')
        program.signal('HUP')
        program.wait_line('setup')
        program.wait_line('process')
        assert program.stop() == 0


def footprint(pid):
    """Resident KiB, and the number of descriptors."""
    status = Path(f'/proc/{pid}/status').read_text()
    resident = next(line for line in status.splitlines() if line.startswith('VmRSS'))
    return int(resident.split()[1]), len(os.listdir(f'/proc/{pid}/fd'))


def test_ticks_and_restarts_leave_nothing_behind(tmp_path):
    config = tmp_path / 'ticker.yml'
    config.write_text('Application: {wake_interval: 0.0001}\n')
    with run('ticker', config) as program:
        program.wait_line('tick 2000')
        for _ in range(10):
            program.signal('HUP')
            program.wait_line('SIGHUP')
        before = footprint(program.pid)
        for _ in range(50):
            program.signal('HUP')
            program.wait_line('SIGHUP')
        program.wait_line('tick', timeout=60)
        program.wait_line('tick', timeout=60)
        after = footprint(program.pid)
        assert program.stop() == 0
    assert after[1] == before[1]
    assert after[0] - before[0] < 512
