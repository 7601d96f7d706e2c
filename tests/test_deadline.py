"""The deadline of a stop holds, whatever still runs; until the process is gone, it is locked."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clihelper.process.pidfile import probe
from clihelper.testing import WaitError
from tests.life import LOGGING, Life, settled

F_SETPIPE_SZ = 1031

FOREGROUND, DAEMON = ('-f',), ()

#: What may be at work after ``_cleanup``.
LINGERING = ['Thread', 'Executor', 'ExitHandler']

CONSOLE = """\
Logging:
  handlers: {console: {class: logging.StreamHandler}}
  root: {level: INFO, handlers: [console]}
"""

QUEUED = """\
Logging:
  handlers:
    console: {class: logging.StreamHandler}
    memory: {class: logging.handlers.MemoryHandler, capacity: 3, target: console}
  root: {level: INFO, handlers: [memory]}
"""


def lingering(folder: Path, controller: str, options: tuple[str, ...] = DAEMON,
              stop_timeout: float = 20, held_at: str = 'lingers', more: str = '',
              **arguments: object) -> Life:
    config = f'Daemon: {{pidfile: FOLDER/pid, stop_timeout: {stop_timeout}{more}}}\n'
    return Life(folder, 'lingering.py', controller, options=options, config=config,
                held_at=held_at, **arguments)


def wait_end(life: Life, options: tuple[str, ...], pid: int) -> int:
    life.pid = pid
    return life.wait_daemon() if options is DAEMON else life.wait()


def second_start(folder: Path) -> tuple[int, list[str]]:
    """Start the program a second time; its status, and its lines on the terminal."""
    other = folder / 'other'
    other.mkdir(exist_ok=True)
    for name in ('reports', 'gate'):
        if (other / name).exists():
            (other / name).unlink()
    life = lingering(other, 'Thread', held_at='')
    life.configure(f'Daemon: {{pidfile: {folder}/pid}}\n' + LOGGING)
    with life:
        status = life.wait_command()
        if status == 0:
            life.wait_report('process')
            life.signal('KILL')
        life.program.wait()
        return status, life.program.stderr


# Until the process is gone, no other is started.

@pytest.mark.parametrize('controller', LINGERING)
def test_no_other_is_started_while_a_stopped_one_is_still_at_work(
    tmp_path: Path, controller: str
) -> None:
    with lingering(tmp_path, controller) as life:
        life.wait_report('process')
        pid = life.pid
        life.signal('TERM')
        life.wait_report('after run')
        assert 'cleanup' in life.reported
        assert second_start(tmp_path) == (
            73, [f'lingering: pidfile {tmp_path}/pid: already running, pid {pid}'])
        life.let_go()
        assert wait_end(life, DAEMON, pid) == 0
        assert not (tmp_path / 'pid').exists()


def test_no_other_is_started_while_the_very_last_exit_handler_runs(tmp_path: Path) -> None:
    with lingering(tmp_path, 'Lingering', held_at='last') as life:
        life.wait_report('process')
        life.signal('TERM')
        life.wait_report('last')
        assert second_start(tmp_path)[0] == 73
        life.let_go()
        assert life.wait_daemon() == 0
        assert not (tmp_path / 'pid').exists()


def test_no_other_is_started_while_one_that_failed_is_still_at_work(tmp_path: Path) -> None:
    with lingering(tmp_path, 'Failing') as life:
        life.wait_report('cleanup')
        pid = life.pid
        life.wait_logged('CRITICAL clihelper all is lost')
        assert second_start(tmp_path)[0] == 73
        life.let_go()
        assert wait_end(life, DAEMON, pid) == 1
        assert not (tmp_path / 'pid').exists()


def test_the_command_returns_when_a_daemon_that_failed_is_gone(tmp_path: Path) -> None:
    with lingering(tmp_path, 'FailingSetup') as life:
        life.wait_report('setup')
        pid = life.pid
        life.program.wait_line('^lingering: ValueError: all is lost$')
        with pytest.raises(WaitError):
            life.wait_command(0.2)
        life.let_go()
        assert life.wait_command() == 1
        assert probe(str(tmp_path / 'pid')) == ('stopped', None)
        assert wait_end(life, DAEMON, pid) == 1


@pytest.mark.parametrize('workers', [0, 2])
def test_another_is_started_though_a_child_of_one_that_was_killed_lives_on(
    tmp_path: Path, workers: int
) -> None:
    more = f', workers: {workers}' if workers else ''
    with lingering(tmp_path, 'Parent', held_at='child', more=more) as life:
        assert life.wait_command() == 0
        pid = probe(str(tmp_path / 'pid'))[1]
        assert pid
        for _ in range(workers or 1):
            life.wait_report('process')
        children = life.pids_of('child')
        for each in {pid, *life.pids_of('process')}:
            os.kill(each, signal.SIGKILL)
        life.pid = pid
        assert life.wait_daemon() == -signal.SIGKILL
        assert second_start(tmp_path) == (0, [])
        for each in children:
            os.kill(each, 0)  # it is still there
        life.let_go(2)


# The deadline, when the life cycle is over.

@pytest.mark.parametrize('options', [FOREGROUND, DAEMON], ids=['foreground', 'daemon'])
@pytest.mark.parametrize('controller', LINGERING)
def test_what_is_still_at_work_at_the_deadline_is_left_behind(
    tmp_path: Path, controller: str, options: tuple[str, ...]
) -> None:
    with lingering(tmp_path, controller, options, stop_timeout=0.5) as life:
        life.wait_report('process')
        pid, begin = life.pid, time.monotonic()
        life.signal('TERM')
        assert wait_end(life, options, pid) == 143
        assert 0.5 <= time.monotonic() - begin < 3
        life.wait_logged('CRITICAL clihelper still not stopped: ending at once with status 143')
        assert life.logged(', in spite of these threads: baker') == (controller != 'ExitHandler')
        assert not (tmp_path / 'pid').exists()
        assert not any('ignored' in line for line in life.program.stderr)


@pytest.mark.parametrize('controller', LINGERING)
@pytest.mark.parametrize(('signum', 'status'), [('QUIT', 131), ('INT', 130)])
def test_a_stop_at_once_leaves_behind_what_is_still_at_work(
    tmp_path: Path, controller: str, signum: str, status: int
) -> None:
    with lingering(tmp_path, controller, FOREGROUND) as life:
        life.wait_report('process')
        life.signal('INT')
        life.wait_report('lingers' if controller == 'ExitHandler' else 'after run')
        begin = time.monotonic()
        life.signal(signum)
        assert life.wait() == status
        assert time.monotonic() - begin < 3
        assert not any('ignored' in line for line in life.program.stderr)


def test_a_stop_that_comes_when_a_failed_one_is_still_at_work_has_its_deadline(
    tmp_path: Path
) -> None:
    with lingering(tmp_path, 'Failing', FOREGROUND, stop_timeout=0.3) as life:
        life.wait_logged('CRITICAL clihelper all is lost')
        life.wait_report('cleanup')
        life.signal('TERM')
        assert life.wait() == 143


@pytest.mark.parametrize('controller', LINGERING[:2])
def test_what_a_worker_leaves_at_the_deadline_ends_with_status_143(
    tmp_path: Path, controller: str
) -> None:
    with lingering(tmp_path, controller, FOREGROUND, 0.5, more=', workers: 2') as life:
        life.wait_report('process')
        life.wait_report('process')
        os.kill(life.program.pid, signal.SIGTERM)
        assert life.wait() == 143
        assert life.logged('still not stopped: ending at once with status 143') >= 1
        assert life.logged('has not stopped in time: killed') == 0


def test_an_exit_handler_of_the_program_does_not_keep_the_supervisor(tmp_path: Path) -> None:
    with lingering(tmp_path, 'Lingering', FOREGROUND, 0.2, 'last', more=', workers: 2') as life:
        life.wait_report('process')
        life.wait_report('process')
        os.kill(life.program.pid, signal.SIGTERM)
        life.wait_report('last')
        assert life.wait() == 143


# Output that nobody reads.

@pytest.fixture
def full_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, b'.' * fcntl.fcntl(writer, F_SETPIPE_SZ, 4096))
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize('log', [CONSOLE, QUEUED], ids=['stream', 'memory'])
@pytest.mark.parametrize(('signum', 'status'), [('TERM', 143), ('QUIT', 131)])
def test_the_deadline_holds_where_nobody_reads_the_log(
    tmp_path: Path, full_pipe: int, log: str, signum: str, status: int
) -> None:
    config = 'Daemon: {stop_timeout: 1}\n'
    with Life(tmp_path, 'own_loops.py', 'Logging', config=config, log=log,
              stderr_to=full_pipe) as life:
        life.wait_report('loop')
        settled(life.pid)
        begin = time.monotonic()
        life.signal(signum)
        assert life.wait() == status
        assert time.monotonic() - begin < 1 + 2
        assert life.take_reports()[-1] == 'cleanup'


def test_the_deadline_holds_where_nobody_reads_what_was_printed(
    tmp_path: Path, full_pipe: int
) -> None:
    with lingering(tmp_path, 'Printing', FOREGROUND, stop_timeout=0.5, stdout_to=full_pipe,
                   held_at='', env={'PYTHONUNBUFFERED': None}) as life:
        life.wait_report('process')
        begin = time.monotonic()
        life.signal('TERM')
        assert life.wait() == 143
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize(('signum', 'status'), [('TERM', 143), ('QUIT', 131)])
def test_a_supervisor_stops_its_workers_where_nobody_reads_the_log(
    tmp_path: Path, full_pipe: int, signum: str, status: int
) -> None:
    config = 'Daemon: {stop_timeout: 2, workers: 2}\n'
    with Life(tmp_path, 'own_loops.py', 'Waiting', config=config, log=CONSOLE,
              stderr_to=full_pipe) as life:
        life.wait_report('loop')
        begin = time.monotonic()
        os.kill(life.program.pid, getattr(signal, f'SIG{signum}'))
        assert life.wait() == status
        assert time.monotonic() - begin < 8
