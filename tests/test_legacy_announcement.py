"""The two programs with which clihelper was announced in 2012 run as they did."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.life import Life

#: The configuration has nothing else.
LOGGING = """\
Logging:
  version: 1
  formatters: {verbose: {format: '%(levelname)s %(process)d %(name)s: %(message)s'}}
  filters:
  handlers:
    console: {class: logging.StreamHandler, formatter: verbose, debug_only: true}
    file: {class: logging.FileHandler, filename: FOLDER/log, formatter: verbose}
  loggers:
    clihelper: {handlers: [console, file], level: DEBUG, propagate: true}
    MyApp: {handlers: [console, file], level: INFO, propagate: true}
  disable_existing_loggers: true
"""

PROGRAMS = {
    'announced_interval.py': 'Would be processing at the specified interval now',
    'announced_ioloop.py': 'ready',
}


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str | None]:
    """Where the default pidfile is."""
    (tmp_path / 'run').mkdir()
    return {'RUNTIME_DIRECTORY': str(tmp_path / 'run')}


@pytest.mark.parametrize('program', PROGRAMS)
def test_it_runs_in_the_foreground(tmp_path: Path, program: str) -> None:
    with Life(tmp_path, program, config='', log=LOGGING) as life:
        life.program.wait_line(PROGRAMS[program])
        os.kill(life.program.pid, 2)
        assert life.wait() == 0
        assert re.match(r'(INFO|DEBUG) \d+ ', life.program.stderr[0])
        assert 'KeyboardInterrupt' not in str(life.program)


@pytest.mark.parametrize('program', PROGRAMS)
def test_in_the_foreground_its_log_is_where_it_was_started(tmp_path: Path, program: str) -> None:
    log = LOGGING.replace('FOLDER/log', 'example.log')
    with Life(tmp_path, program, config='', log=log) as life:
        life.program.wait_line(PROGRAMS[program])
        life.program.signal('HUP')
        life.program.wait_line('SIGHUP')
        life.program.signal('TERM')
        assert life.wait() == 0
        assert len(life.program.stderr) == len((tmp_path / 'example.log').read_text().splitlines())


@pytest.mark.parametrize('program', PROGRAMS)
def test_it_runs_as_a_daemon(
    tmp_path: Path, program: str, runtime: dict[str, str | None]
) -> None:
    with Life(tmp_path, program, options=(), config='', log=LOGGING, env=runtime) as life:
        assert life.wait_command() == 0
        assert life.program.stderr == []
        life.wait_logged(PROGRAMS[program])
        life.pid = int((tmp_path / 'run' / 'MyApp.pid').read_text())
        life.signal('HUP')
        life.wait_logged(PROGRAMS[program] if 'interval' in program else 'SIGHUP',
                         2 if 'interval' in program else 1)
        life.signal('TERM')
        assert life.wait_daemon() == 0
        assert not (tmp_path / 'run' / 'MyApp.pid').exists()
