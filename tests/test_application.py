"""From the command line to each exit status, as a user sees it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.testing import Program
from tests.life import PROGRAMS

ENDINGS = PROGRAMS / 'endings.py'

ENV = {'PYTHONPATH': str(PROGRAMS.parent.parent)}

LOGGING = """\
Logging:
  formatters: {plain: {format: '%(levelname)s %(name)s %(message)s'}}
  handlers: {file: {class: logging.FileHandler, filename: FOLDER/log, formatter: plain}}
  root: {level: DEBUG, handlers: [file]}
"""

CONFIG = """\
Application: {wake_interval: 60}
Daemon: {pidfile: FOLDER/pid}
"""


def configure(folder: Path, config: str = CONFIG) -> Path:
    file = folder / 'app.yml'
    file.write_text((config + LOGGING).replace('FOLDER', str(folder)))
    return file


def argv(file: Path | str, *options: str, controller: str = 'Idle') -> list[str]:
    return [sys.executable, str(ENDINGS), controller, '-c', str(file), *options]


def run(words: list[str], **arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=20,  # type: ignore[call-overload, no-any-return]
                          stdin=subprocess.DEVNULL, env={**os.environ, **ENV}, **arguments)


def assert_one_line(result: subprocess.CompletedProcess[str], status: int, text: str) -> None:
    assert result.returncode == status, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    # Faults of the configuration begin with the place, for people and editors that go there.
    assert re.match(r'endings: |\S+\.yml:', result.stderr)
    assert text in result.stderr
    assert result.stdout == ''


def log(folder: Path) -> str:
    return (folder / 'log').read_text()


# Wrong use, and what the command line says.

@pytest.mark.parametrize(('words', 'text'), [
    ([], '-c/--config'), (['-c'], '-c/--config'), (['-c', 'x', '--wrong'], '--wrong'),
])
def test_a_wrong_command_line_is_status_2(words: list[str], text: str) -> None:
    assert_one_line(run([sys.executable, str(ENDINGS), 'Idle', *words]), 2, text)


def test_version_and_help_are_status_0(tmp_path: Path) -> None:
    version = run([sys.executable, str(ENDINGS), 'Idle', '--version'])
    assert (version.returncode, version.stdout, version.stderr) == (0, 'endings 1.2.3\n', '')
    helped = run([sys.executable, str(ENDINGS), 'Idle', '-h'])
    assert helped.returncode == 0
    assert '--prefix PREFIX' in helped.stdout
    assert '(none)' in helped.stdout


def test_a_good_configuration_is_checked_and_no_more(tmp_path: Path) -> None:
    configure(tmp_path)
    result = run(argv('app.yml', '--check'), cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, 'app.yml: ok\n', '')
    assert sorted(os.listdir(tmp_path)) == ['app.yml']


PLAIN = {'PYTHONIOENCODING': 'ascii'}


def test_what_the_terminal_cannot_show_is_printed_with_escapes(tmp_path: Path) -> None:
    configure(tmp_path)
    (tmp_path / 'app.yml').rename(tmp_path / 'größe.yml')
    (tmp_path / 'program.py').write_text(
        'import clihelper\n'
        "clihelper.setup('program', 'Schiebt Größen.', 'größer')\n"
        'clihelper.run(clihelper.Controller)\n'
    )
    command = [sys.executable, 'program.py']
    env = {**os.environ, **ENV, **PLAIN}

    def printed(*words: str) -> str:
        return subprocess.run([*command, *words], cwd=tmp_path, env=env, timeout=20, check=True,
                              capture_output=True, encoding='ascii').stdout

    assert printed('-c', 'größe.yml', '--check') == 'gr\\xf6\\xdfe.yml: ok\n'
    assert 'Gr\\xf6\\xdfen' in printed('--help')
    assert printed('--version') == 'program gr\\xf6\\xdfer\n'


def test_every_fault_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    configure(tmp_path, 'Application: {wake_interval: 0}\nDaemon: {umsk: 022, workers: x}\n')
    for options in (['--check'], ['-f'], []):
        result = run(argv('app.yml', *options), cwd=tmp_path)
        assert result.returncode == 78
        lines = result.stderr.splitlines()
        assert len(lines) == 3
        for line in lines:
            assert re.match(r'app\.yml:\d+:\d+: (Application|Daemon)\.\w+: ', line)
    assert sorted(os.listdir(tmp_path)) == ['app.yml']


@pytest.mark.parametrize('options', [['-f'], []], ids=['foreground', 'daemon'])
def test_a_missing_configuration_is_status_78(tmp_path: Path, options: list[str]) -> None:
    assert_one_line(run(argv(tmp_path / 'none.yml', *options)), 78, 'none.yml: ')


def test_a_missing_required_section_is_status_78(tmp_path: Path) -> None:
    configure(tmp_path, '')
    assert_one_line(run(argv('app.yml', '-f'), cwd=tmp_path), 78, 'Application')


def test_a_fault_of_the_logging_is_status_78_before_detaching(tmp_path: Path) -> None:
    file = tmp_path / 'app.yml'
    file.write_text('Application:\nLogging: {handlers: {f: {class: logging.Nothing}}}\n')
    assert_one_line(run(argv('app.yml'), cwd=tmp_path), 78, 'app.yml:2:')


# What is not permitted.

def test_an_unknown_user_is_status_77(tmp_path: Path) -> None:
    file = configure(tmp_path, 'Application:\nDaemon: {user: nobody-knows-them}\n')
    assert_one_line(run(argv(file)), 77, 'nobody-knows-them')


@pytest.mark.root
@pytest.mark.parametrize('options', [['-f'], []], ids=['foreground', 'daemon'])
def test_a_configuration_that_others_may_write_is_status_77(
    tmp_path: Path, options: list[str]
) -> None:
    file = configure(tmp_path)
    file.chmod(0o666)
    assert_one_line(run(argv(file, *options)), 77, 'app.yml')


def as_nobody(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run it as an ordinary user, who may not be able to read this Python's library."""
    code = (
        'import argparse, difflib, gettext, locale, os, runpy, shutil, sys, traceback\n'
        'import logging.config, logging.handlers, yaml\n'
        'import clihelper.application, clihelper.config, clihelper.controller\n'
        'import clihelper.loops.interval, clihelper.options, clihelper.config.nodes\n'
        'import clihelper.logs as logs\n'
        '[getattr(logs, name) for name in dir(logs)]\n'
        'import clihelper.logs.setup, clihelper.config.schema\n'
        'program = compile(open(sys.argv[1]).read(), sys.argv[1], "exec")\n'
        'os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n'
        'sys.argv[:] = sys.argv[1:]\n'
        'exec(program, {"__name__": "__main__"})\n'
    )
    return run([sys.executable, '-c', code, *words[1:]])


@pytest.mark.root
def test_a_configuration_that_may_not_be_read_is_status_77(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    file = configure(tmp_path)
    file.chmod(0o600)
    assert_one_line(as_nobody(argv(file, '-f')), 77, 'app.yml')


@pytest.mark.root
def test_another_user_takes_root(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    file = configure(tmp_path, 'Application:\nDaemon: {user: root, pidfile: null}\n')
    assert_one_line(as_nobody(argv(file)), 77, 'root')


@pytest.mark.root
def test_a_log_file_that_may_not_be_written_is_status_77(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    file = configure(tmp_path, 'Application:\nDaemon: {user: nobody, pidfile: FOLDER/pid}\n')
    assert_one_line(run(argv(file)), 77, str(tmp_path / 'log'))
    # Nobody may not unlink it there: empty it says the same.
    assert (tmp_path / 'pid').read_text() == ''


# The pidfile.

def test_a_second_start_is_status_73(tmp_path: Path) -> None:
    file = configure(tmp_path)
    with Program(argv(file), env=ENV) as first:
        first.wait_ready()
        assert_one_line(run(argv(file)), 73, str(first.pid))
        beside = Program(argv(file, '-f'), env=ENV)
        with beside:  # the foreground takes no pidfile
            beside.wait_ready()
            assert beside.stop() == 0
        assert first.stop() == 0
    assert not (tmp_path / 'pid').exists()


def test_a_pidfile_that_cannot_be_created_is_status_73(tmp_path: Path) -> None:
    file = configure(tmp_path, 'Application:\nDaemon: {pidfile: FOLDER/none/pid}\n')
    assert_one_line(run(argv(file)), 73, 'none/pid')


# The broker.

@pytest.mark.parametrize('options', [['-f'], []], ids=['foreground', 'daemon'])
def test_a_broker_that_is_not_waited_for_is_status_69(tmp_path: Path, options: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))  # and nobody listens
        port = closed.getsockname()[1]
        file = configure(tmp_path, CONFIG + (
            f'AMQP: {{url: "amqp://orders:secret@127.0.0.1:{port}//", wait_for_broker: false,\n'
            '       queues: {q: {}}}\n'
        ))
        result = run(argv(file, *options, controller='Consumer'))
    assert_one_line(result, 69, f'127.0.0.1:{port}')
    assert 'secret' not in result.stderr + log(tmp_path)
    assert not (tmp_path / 'pid').exists()


# How the program itself may end.

@pytest.mark.parametrize(('controller', 'status', 'line'), [
    ('Exits', 3, 'ended itself with status 3'),
    ('ExitsWithAMessage', 1, 'all is lost'),
    ('Raises', 1, "KeyError: 'a fault of the program'"),
    ('RaisesInSetup', 1, 'ValueError: cannot set up'),
    ('RaisesInInit', 1, 'ValueError: cannot be made'),
    ('ExitsInSetup', 4, 'ended itself with status 4'),
    ('RaisesInCleanup', 1, 'OSError: cannot clean up'),
])
def test_a_program_that_fails_ends_with_its_status_and_a_line(
    tmp_path: Path, controller: str, status: int, line: str
) -> None:
    file = configure(tmp_path)
    # As below a service manager, where it has a pidfile and does not detach.
    with Program(argv(file, controller=controller),
                 env=ENV) as program:
        assert program.wait() == status
        assert program.stderr == [f'endings: {line}']
        assert program.stdout == []
    assert not (tmp_path / 'pid').exists()
    assert ('Traceback' in log(tmp_path)) == controller.startswith('Raises')


@pytest.mark.parametrize('controller', ['StopsItself', 'ExitsCleanly', 'Interrupted'])
def test_a_program_may_stop_itself(tmp_path: Path, controller: str) -> None:
    result = run(argv(configure(tmp_path), '-f', controller=controller))
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout == 'the program goes on after run\n'


@pytest.mark.parametrize(('controller', 'status', 'line'), [
    ('RaisesInSetup', 1, 'ValueError: cannot set up'),
    ('RaisesInInit', 1, 'ValueError: cannot be made'),
    ('ExitsInSetup', 4, 'ended itself with status 4'),
    ('Dies', 1, 'died before it was ready'),
])
def test_the_command_tells_why_a_daemon_did_not_become_ready(
    tmp_path: Path, controller: str, status: int, line: str
) -> None:
    result = run(argv(configure(tmp_path), controller=controller))
    assert_one_line(result, status, line)
    assert ('Traceback' in log(tmp_path)) == controller.startswith('Raises')
    if controller != 'Dies':
        assert not (tmp_path / 'pid').exists()


def test_cleanup_is_called_after_a_failure(tmp_path: Path) -> None:
    assert run(argv(configure(tmp_path), '-f', controller='Raises')).returncode == 1
    assert 'INFO endings cleaned up' in log(tmp_path)


# What it is given, and what it prints.

def test_the_controller_has_the_options_and_the_arguments(tmp_path: Path) -> None:
    file = configure(tmp_path)
    with Program(argv(file, '-f', '-p', 'x', 'one', 'two'),
                 env=ENV) as program:
        program.wait_ready()
        assert program.stop('INT') == 0
    assert "idle with x and ['one', 'two']" in log(tmp_path)


def test_what_a_service_prints_goes_to_the_log(tmp_path: Path) -> None:
    with Program(argv(configure(tmp_path), controller='Prints'),
                 env=ENV) as program:
        assert program.wait() == 0
        assert program.stderr == []
        assert program.stdout == ['the program goes on after run']
    assert 'INFO stdout printed' in log(tmp_path)
    assert 'WARNING py.warnings' in log(tmp_path)


def test_what_a_program_prints_in_the_foreground_is_left_alone(tmp_path: Path) -> None:
    result = run(argv(configure(tmp_path), '-f', controller='Prints'))
    assert result.stdout.splitlines() == ['printed', 'the program goes on after run']
    assert 'printed' not in log(tmp_path)


def test_the_foreground_says_that_it_does_not_change_the_user(tmp_path: Path) -> None:
    file = configure(tmp_path, 'Application:\nDaemon: {user: nobody}\n')
    with Program(argv(file, '-f'), env=ENV) as program:
        program.wait_ready()
        assert os.stat(f'/proc/{program.pid}').st_uid == os.geteuid()
        assert os.readlink(f'/proc/{program.pid}/cwd') == os.getcwd()
        assert program.stop() == 0
        assert program.stderr == ['endings: with -f it runs as the current user, not as nobody']


def test_a_start_that_takes_longer_than_start_timeout_goes_on(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        file = configure(tmp_path, (
            'Application:\nDaemon: {pidfile: FOLDER/pid, start_timeout: 0.5}\n'
            f'AMQP: {{url: "amqp://127.0.0.1:{closed.getsockname()[1]}//", queues: {{q: {{}}}}}}\n'
        ))
        result = run(argv(file, controller='Consumer'))
        assert_one_line(result, 0, 'not ready after 0.5 s; it goes on starting')
        os.kill(int((tmp_path / 'pid').read_text()), 15)
