"""clihelper status, stop and reload, on daemons that really run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clihelper.testing import Daemon

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """\
import signal

import clihelper


class Ticker(clihelper.Controller):
    def _setup(self):
        if self.application_config.get('stubborn'):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _process(self):
        self.logger.info('tick')

    def on_configuration_reloaded(self):
        self.logger.info('reloaded in place')

    def _cleanup(self):
        self.logger.info('cleaned up')

clihelper.setup('ticker', 'Ticks.', '1.0.0')
clihelper.run(Ticker)
"""

CONFIGURATION = """\
Application: {wake_interval: 60, stubborn: STUBBORN}
Daemon: {pidfile: FOLDER/%(app)s.pid, stop_timeout: 20}
Logging:
  handlers: {file: {class: logging.FileHandler, filename: FOLDER/log}}
  root: {level: INFO, handlers: [file]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'ticker.py').write_text(PROGRAM)
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, stubborn: bool = False) -> None:
    text = CONFIGURATION.replace('FOLDER', str(folder)).replace('STUBBORN', str(stubborn))
    (folder / 'ticker.yml').write_text(text)


def start(folder: Path) -> Daemon:
    return Daemon(
        [sys.executable, str(folder / 'ticker.py'), '-c', str(folder / 'ticker.yml')],
        folder / 'ticker.pid',
        env={'PYTHONPATH': str(ROOT)},
    )


def clihelper(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / 'bin/clihelper', *map(str, words)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **env},
        cwd='/',
        capture_output=True,
        text=True,
        timeout=60,
    )


def state(folder: Path) -> tuple[int, str]:
    done = clihelper('status', '--pidfile', folder / 'ticker.pid')
    return done.returncode, done.stdout.splitlines(keepends=True)[0]


def wait_logged(folder: Path, line: str, times: int = 1) -> None:
    end = time.monotonic() + 10
    while (folder / 'log').read_text().splitlines().count(line) < times:
        assert time.monotonic() < end, (folder / 'log').read_text()
        time.sleep(0.01)


# status


def test_status_follows_a_daemon_through_its_life(folder: Path) -> None:
    pidfile = folder / 'ticker.pid'
    assert state(folder) == (3, f'{pidfile}: stopped\n')
    with start(folder) as daemon:
        assert state(folder) == (0, f'{pidfile}: running, pid {daemon.pid}\n')
        daemon.stop('KILL')
        assert state(folder) == (1, f'{pidfile}: died, pid {daemon.pid}\n')
    pidfile.write_text('this is\nno pidfile\n')
    status, line = state(folder)
    assert status == 4
    assert line.startswith(f'{pidfile}: unknown: ')


def test_status_finds_a_daemon_by_configuration_name_and_default_place(folder: Path) -> None:
    config = folder / 'ticker.yml'
    with start(folder) as daemon:
        by_config = clihelper('status', '-c', config, 'ticker')
        by_name = clihelper('status', 'ticker', RUNTIME_DIRECTORY=str(folder))
        expected = f'ticker: running, pid {daemon.pid} ({folder}/ticker.pid)\n'
        for done in (by_config, by_name):
            assert done.stdout.splitlines(keepends=True)[0] == expected
        assert by_config.returncode == by_name.returncode == 0


def test_status_says_that_a_name_is_needed_where_the_pidfile_depends_on_it(folder: Path) -> None:
    done = clihelper('status', '-c', folder / 'ticker.yml')
    assert done.returncode == 4
    assert done.stderr == (f'clihelper: {folder}/ticker.yml: Daemon.pidfile depends on the name'
                           ' of the program: give a NAME as well\n')


def test_status_as_json(folder: Path) -> None:
    with start(folder) as daemon:
        done = clihelper('status', '--json', 'ticker', '-c', folder / 'ticker.yml')
        expected = {
            'name': 'ticker', 'pidfile': f'{folder}/ticker.pid', 'state': 'running',
            'pid': daemon.pid, 'status': 0,
        }
        assert expected.items() <= json.loads(done.stdout).items()


def test_status_looks_at_no_other_key_of_the_configuration(folder: Path) -> None:
    with (folder / 'ticker.yml').open('a') as file:
        file.write('AMQP: {url: !env NOT_SET_HERE, nonsense: 1}\n')
    assert clihelper('status', '-c', folder / 'ticker.yml', 'ticker').returncode == 3
    (folder / 'ticker.yml').write_text('Daemon: {pidfile: !env NOT_SET_HERE}\n')
    done = clihelper('status', '-c', folder / 'ticker.yml')
    assert done.returncode == 4
    assert 'Daemon.pidfile: the environment variable NOT_SET_HERE is not set' in done.stderr


@pytest.mark.parametrize('words', [
    (), ('a', 'b'), ('--pidfile',), ('--pidfile', 'x', 'name'), ('--bogus', 'x'), ('a/b',),
    ('-c', '/nowhere.yml', 'x'), ('-c', 'x', '-c', 'y'),
])
def test_a_wrong_question_is_one_line(words: tuple[str, ...]) -> None:
    for command, statuses in (('status', {4}), ('stop', {2, 78}), ('reload', {2, 78})):
        done = clihelper(command, *words)
        assert done.returncode in statuses, done
        assert done.stderr.count('\n') == 1, done.stderr
        assert not done.stdout


def test_status_loads_neither_yaml_nor_the_application(folder: Path) -> None:
    code = ('import sys; sys.argv[1:] = ["status", "--pidfile", "x"]\n'
            'import clihelper.commands as commands\n'
            'try: commands.main()\n'
            'finally: print(*sys.modules)')
    done = subprocess.run(
        [sys.executable, '-IS', '-c', f'import sys; sys.path.append({str(ROOT)!r})\n{code}'],
        capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert 'clihelper.process.pidfile' in loaded
    assert loaded.isdisjoint({'yaml', 'clihelper.application', 'argparse', 're', 'enum', 'json'})


# stop


def test_stop_returns_when_the_daemon_is_gone_and_stopping_twice_is_a_success(
    folder: Path,
) -> None:
    with start(folder) as daemon:
        done = clihelper('stop', 'ticker', '-c', folder / 'ticker.yml')
        assert not daemon.is_running
        assert (done.returncode, done.stdout) == (0, 'ticker: stopped\n')
        assert (folder / 'log').read_text().splitlines()[-1] == 'cleaned up'
        again = clihelper('stop', 'ticker', '-c', folder / 'ticker.yml')
        assert (again.returncode, again.stdout) == (0, 'ticker: stopped\n')


def test_stop_waits_no_longer_than_it_is_told_and_kills_if_it_is_told(folder: Path) -> None:
    configure(folder, stubborn=True)
    words = ('--pidfile', folder / 'ticker.pid', '--timeout', '0.2')
    with start(folder) as daemon:
        done = clihelper('stop', *words)
        assert done.returncode == 1
        assert f'still runs after 0.2 s, pid {daemon.pid}' in done.stderr
        assert daemon.is_running
        done = clihelper('stop', '--kill', *words)
        assert (done.returncode, 'killed after 0.2 s' in done.stdout) == (0, True)
        assert not daemon.is_running
        assert state(folder)[0] == 3


def test_stop_tidies_up_after_a_daemon_that_died(folder: Path) -> None:
    with start(folder) as daemon:
        daemon.stop('KILL')
        assert clihelper('stop', '--pidfile', folder / 'ticker.pid').returncode == 0
        assert not (folder / 'ticker.pid').exists()


def test_stop_never_signals_a_process_that_does_not_hold_the_lock(folder: Path) -> None:
    """The number in the file is another's: it was reused, or somebody wrote it there."""
    pidfile = folder / 'ticker.pid'
    with subprocess.Popen(['sleep', '60']) as bystander, pidfile.open('w+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f'{bystander.pid}\n')
            file.flush()
            done = clihelper('stop', '--kill', '--timeout', '0', '--pidfile', pidfile)
            assert done.returncode == 1
            assert 'not by the process whose ID it contains' in done.stderr
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_stop_waits_for_whoever_else_holds_the_lock(folder: Path) -> None:
    """As a worker does that lives a little longer than its daemon."""
    pidfile = folder / 'ticker.pid'
    with pidfile.open('w+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        daemon = subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()])
        worker = subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()])
        file.write(f'{daemon.pid}\n')
    with daemon, worker:
        done = clihelper('stop', '--timeout', '0.2', '--pidfile', pidfile)
        assert done.returncode == 1, done
        daemon.wait()
        worker.terminate()
        worker.wait()
        assert state(folder)[0] == 1


# reload


def test_what_holds_the_lock_of_a_daemon_that_was_killed_is_named(folder: Path) -> None:
    """As a process that a library has forked past Python."""
    pidfile = folder / 'ticker.pid'
    with pidfile.open('w+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        daemon = subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()])
        other = subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()])
        file.write(f'{daemon.pid}\n')
    with daemon, other:
        daemon.kill()
        daemon.wait()
        by = f'process {other.pid} (sleep)'
        assert f', which has ended: the lock is held by {by}' in state(folder)[1]
        done = clihelper('stop', '--kill', '--timeout', '0.2', '--pidfile', pidfile)
        assert done.returncode == 1
        assert done.stderr == (f'clihelper: {pidfile}: locked, but not by the process whose ID it'
                               f' contains: by {by}\n')
        started = subprocess.run(
            [sys.executable, folder / 'ticker.py', '-c', folder / 'ticker.yml'],
            env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
            timeout=60)
        assert started.returncode == 73
        assert (f'process {daemon.pid} has ended, but the lock is held by {by}'
                in started.stderr)
        assert other.poll() is None
        other.kill()
        other.wait()
        assert clihelper('stop', '--pidfile', pidfile).returncode == 0
        assert not pidfile.exists()


def test_stop_waits_for_the_workers_of_a_daemon_that_was_killed(folder: Path) -> None:
    pidfile = folder / 'ticker.pid'
    with pidfile.open('w+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        daemon = subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()])
        worker = subprocess.Popen(['sleep', '3'], pass_fds=[file.fileno()])
        file.write(f'{daemon.pid}\n')
    with daemon, worker:
        daemon.kill()
        daemon.wait()
        done = clihelper('stop', '--pidfile', pidfile)
        assert (done.returncode, done.stdout) == (0, f'{pidfile}: stopped, killed before\n')
        assert not pidfile.exists()



def test_reload_begins_again_or_in_place(folder: Path) -> None:
    with start(folder):
        assert clihelper('reload', '--pidfile', folder / 'ticker.pid').returncode == 0
        wait_logged(folder, 'cleaned up')
        wait_logged(folder, 'tick', times=2)
        done = clihelper('reload', '--in-place', '--pidfile', folder / 'ticker.pid')
        assert done.returncode == 0
        wait_logged(folder, 'reloaded in place')
    done = clihelper('reload', '--pidfile', folder / 'ticker.pid')
    assert done.returncode == 7
    assert done.stderr == f'clihelper: {folder}/ticker.pid: does not run\n'


@pytest.mark.root
@pytest.mark.parametrize('command', ['stop', 'reload'])
def test_another_users_daemon_is_not_yours_to_signal(folder: Path, command: str) -> None:
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path('/'):
            path.chmod(path.stat().st_mode | 0o055)
    shutil.copytree(ROOT / 'clihelper', folder / 'clihelper')
    with start(folder) as daemon:
        done = subprocess.run(
            ['/usr/bin/python3', '-c',
             'import sys; sys.path[:0] = sys.argv[1:2]; del sys.argv[1]\n'
             'from clihelper.commands import main; main()',
             str(folder), command, '--pidfile', str(folder / 'ticker.pid')],
            user='nobody', capture_output=True, text=True, timeout=60, cwd='/',
        )
        assert done.returncode == 77, done
        assert 'not yours to signal' in done.stderr
        assert daemon.is_running
