"""clihelper doctor, with faults that are really there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import amqp as amqp_library
import kombu
import pytest

from clihelper.doctor import broker as brokers
from clihelper.doctor import clock, limits, running, unit
from clihelper.errors import UnavailableError
from clihelper.testing import Daemon
from tests.broker import Broker, _free_ports
from tests.certificates import Authority
from tests.life import open_to_all
from tests.test_addresses import BlackHole

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """\
import clihelper


class Ticker(clihelper.Controller):
    def _process(self):
        pass


clihelper.setup('ticker', 'Ticks.', '1.0.0')
clihelper.run(Ticker)
"""

CONSUMER = """\
import clihelper


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        pass


clihelper.setup('ticker', 'Consumes.', '1.0.0')
clihelper.run(Consumer)
"""

LOGGING = """\
Logging:
  handlers: {file: {class: logging.FileHandler, filename: FOLDER/log}}
  root: {level: INFO, handlers: [file]}
"""

PLAIN = 'Daemon: {pidfile: FOLDER/ticker.pid}\n'

SECRET = 's3cret'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'ticker.py').write_text(PROGRAM)
    (tmp_path / 'units').mkdir()
    configure(tmp_path, PLAIN)
    return tmp_path


def configure(folder: Path, text: str = PLAIN, logging: str = LOGGING) -> Path:
    path = folder / 'ticker.yml'
    path.write_text((text + logging).replace('FOLDER', str(folder)))
    return path


def doctor(
    folder: Path, *words: object, **options: Any
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(words),
        env=environment(folder),
        cwd='/',
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    assert SECRET not in done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done


def command(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, str(ROOT / 'bin/clihelper'), 'doctor', *map(str, words)]


def environment(folder: Path) -> dict[str, str]:
    # Units of the machine are none of the tests'.
    return {**os.environ, 'PYTHONPATH': str(ROOT), 'SYSTEMD_UNIT_PATH': str(folder / 'units')}


def findings(folder: Path, *words: object) -> tuple[int, list[dict[str, str]]]:
    """The exit status, and what ``--json`` prints; by default of the folder's configuration."""
    done = doctor(folder, '--json', *(words or ('-c', folder / 'ticker.yml')))
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def of_level(found: list[dict[str, str]], level: str) -> list[tuple[str, str]]:
    return [(each['check'], each['text']) for each in found
            if each['level'] == level and each['check'] != 'clock']


def faults(folder: Path, *words: object) -> list[tuple[str, str]]:
    status, found = findings(folder, *words)
    wrong = of_level(found, 'fault')
    assert status == bool(wrong)
    return wrong


def warnings(folder: Path, *words: object) -> list[tuple[str, str]]:
    return of_level(findings(folder, *words)[1], 'warning')


def start(folder: Path, *options: str, **arguments: Any) -> Daemon:
    return Daemon(
        [sys.executable, str(folder / 'ticker.py'), '-c', 'ticker.yml', *options],
        folder / 'ticker.pid',
        env={'PYTHONPATH': str(ROOT), 'PWD': str(folder)},
        cwd=folder,
        **arguments,
    )


# The command


def test_a_daemon_that_can_be_started_has_no_fault(folder: Path) -> None:
    done = doctor(folder, '-c', folder / 'ticker.yml')
    assert done.returncode == 0, done
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f'ok       {folder}/ticker.yml: is valid'
    assert f'ok       pidfile {folder}/ticker.pid: can be created' in lines
    assert not (folder / 'ticker.pid').exists()
    assert not (folder / 'log').exists()
    assert {line[:9] for line in lines} <= {'ok       ', 'warning  '}


def test_each_object_of_json_has_the_same_keys(folder: Path) -> None:
    _, found = findings(folder)
    assert {tuple(each) for each in found} == {('check', 'level', 'where', 'text', 'remedy')}
    assert found[0] == {'check': 'configuration', 'level': 'ok',
                        'where': f'{folder}/ticker.yml', 'text': 'is valid', 'remedy': ''}


def test_help_has_an_example_and_the_exit_statuses(folder: Path) -> None:
    done = doctor(folder, '--help')
    assert done.returncode == 0
    assert 'exit status is 0' in ' '.join(done.stdout.split())
    assert 'clihelper doctor -c /etc/orders.yml' in done.stdout


@pytest.mark.parametrize('words', [
    (), ('a', 'b'), ('--bogus', 'x'), ('a/b',), ('--pidfile', 'x', 'name'),
    ('nobody-knows-this-one',), ('--pidfile', '/nowhere/nobody-knows-this-one.pid'),
])
def test_a_wrong_question_is_one_line_and_status_2(folder: Path, words: tuple[str, ...]) -> None:
    done = doctor(folder, *words)
    assert done.returncode == 2, done
    assert done.stderr.count('\n') == 1
    assert not done.stdout


def test_an_unknown_configuration_is_asked_for(folder: Path) -> None:
    done = doctor(folder, 'nobody-knows-this-one')
    assert done.stderr == ('clihelper: doctor: nobody-knows-this-one: its configuration is not'
                           ' known: give -c FILE\n')


# Finding the configuration


def test_the_configuration_of_a_daemon_that_runs_is_the_one_that_it_was_started_with(
    folder: Path,
) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, working_directory: /}\n')
    with start(folder) as daemon:
        status, found = findings(folder, '--pidfile', folder / 'ticker.pid')
        assert status == 0
        assert found[0]['where'] == f'{folder}/ticker.yml'
        (program,) = (each for each in found if each['check'] == 'configuration.program')
        assert program['remedy'] == (f'run {sys.executable} {folder}/ticker.py'
                                     f' -c {folder}/ticker.yml --check')
        assert ('pidfile', f'the daemon runs, pid {daemon.pid}') in of_level(found, 'ok')


def test_the_configuration_of_a_service_is_the_one_of_its_unit(folder: Path) -> None:
    write_unit(folder)
    assert faults(folder, 'ticker') == []
    assert findings(folder, 'ticker')[1][0]['where'] == f'{folder}/ticker.yml'


def test_variables_of_a_unit_are_known(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid}\nApplication: {key: !env DOCTORED}\n')
    write_unit(folder, f'EnvironmentFile=-{folder}/gone\nEnvironmentFile={folder}/default\n'
                       'Environment="DOCTORED=x y" OTHER=z\n'
                       'ExecStart=\nExecStart=/bin/true -c ${TICKS} $MORE\n')
    (folder / 'default').write_text(f'# for the service\nTICKS="{folder}/ticker.yml"\nMORE=\n')
    assert faults(folder, 'ticker') == []


def test_variables_of_a_daemon_that_runs_are_known(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid}\nApplication: {key: !env DOCTORED}\n')
    assert faults(folder) == [(
        'configuration', 'Application.key: the environment variable DOCTORED is not set')]
    daemon = Daemon(
        [sys.executable, str(folder / 'ticker.py'), '-c', str(folder / 'ticker.yml')],
        folder / 'ticker.pid', env={'PYTHONPATH': str(ROOT), 'DOCTORED': SECRET},
    )
    with daemon:
        assert faults(folder, '--pidfile', folder / 'ticker.pid') == []


@pytest.mark.parametrize(('words', 'expected'), [
    ('orders -c a.yml', 'a.yml'),
    ('orders --config=a.yml -f', 'a.yml'),
    ('python3 -W error -m orders --conf a.yml', 'a.yml'),
    ('orders -fca.yml', 'a.yml'),
    ('orders --check -ca.yml', 'a.yml'),
    ('orders: supervisor', None),
    ('orders -c', None),
    ('', None),
])
def test_the_configuration_in_a_command_line(words: str, expected: str | None) -> None:
    assert running.configuration_in(words.split()) == expected


@pytest.mark.parametrize(('line', 'expected'), [
    ('0::/system.slice/orders.service', 'orders.service'),
    ('0::/user.slice/user-7.slice/user@7.service/app.slice/orders.service', 'orders.service'),
    ('0::/user.slice/user-7.slice/user@7.service/app.slice/shell.scope', ''),
    ('0::/', ''),
])
def test_the_unit_of_a_process(line: str, expected: str) -> None:
    assert running.unit_in([line]) == expected


@pytest.mark.parametrize(('words', 'expected'), [
    ('/usr/bin/orders --password x', '/usr/bin/orders'),
    ('python3 -W error orders.py --password x', 'python3 -W error orders.py'),
    ('python3 -m orders --password x', 'python3 -m orders'),
    ('python3 -c password', ''),
    ('', ''),
])
def test_of_a_command_line_only_the_program_is_shown(words: str, expected: str) -> None:
    assert running.program_in(words.split()) == expected


def test_a_daemon_with_workers_is_found_and_each_worker_is_looked_at(
    folder: Path,
) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, workers: 2}\n')
    with start(folder) as daemon:
        status, found = findings(folder, '--pidfile', folder / 'ticker.pid')
        assert status == 0
        assert found[0]['where'] == f'{folder}/ticker.yml'
        used = [each['where'] for each in found if each['check'] == 'descriptors']
        assert used[0] == f'process {daemon.pid}'
        assert len(used) == 3
        given = '--pidfile', folder / 'ticker.pid', '-c', folder / 'ticker.yml'
        assert findings(folder, *given)[0] == 0


def test_relative_paths_are_those_of_where_the_daemon_was_started(folder: Path) -> None:
    open_to_all(folder)
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, working_directory: FOLDER}\n',
              LOGGING.replace('FOLDER/', ''))
    with start(folder):
        found = findings(folder, '--pidfile', folder / 'ticker.pid')[1]
        assert [each['where'] for each in found if each['check'] == 'logging.file'] == [
            f'Logging.handlers.file {folder}/log']


def test_a_name_that_is_only_a_guess_is_said_to_be_one(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/%(app)s.pid}\n')
    assert ('pidfile', 'if the name of the program is ticker') in of_level(
        findings(folder)[1], 'ok')
    found = findings(folder, '-c', folder / 'ticker.yml', 'tocker')[1]
    assert f'pidfile {folder}/tocker.pid' in [each['where'] for each in found]
    assert not any('if the name' in each['text'] for each in found)


# The configuration, user and folders


def test_all_faults_of_the_configuration_are_told_with_their_places(folder: Path) -> None:
    configure(folder, 'Daemon: {umask: x, stop_timeout: soon}\nAMQP: {nonsense: 1}\n', '')
    status, found = findings(folder)
    assert status == 1
    wrong = [each for each in found if each['level'] == 'fault']
    assert [each['where'] for each in wrong] == [
        f'{folder}/ticker.yml:1:17', f'{folder}/ticker.yml:1:34', f'{folder}/ticker.yml:2:8']
    assert wrong[1]['text'] == "Daemon.stop_timeout: expected a number, got 'soon'"


def test_faults_of_logging_are_told_but_a_class_of_the_program_may_be_unknown(
    folder: Path,
) -> None:
    configure(folder, PLAIN, 'Logging: {handlers: {a: {class: ticker_logs.Handler},'
                             ' b: {class: logging.NullHandler, level: LOUD}}}\n')
    ((check, text),) = faults(folder)
    assert check == 'configuration.logging'
    assert text.startswith('Logging.handlers.b.level: ')
    assert any('ticker_logs' in text for _, text in warnings(folder))


@pytest.mark.root
def test_root_is_told_who_else_could_write_the_configuration(folder: Path) -> None:
    (folder / 'ticker.yml').chmod(0o666)
    ((check, text),) = faults(folder)
    assert check == 'configuration'
    assert 'refused, as root' in text
    assert 'can be written by everybody' in text


def test_a_user_and_a_group_that_do_not_exist_are_faults(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, user: nobody-at-all}\n')
    assert faults(folder) == [('user', "no such user: 'nobody-at-all'")]
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, group: no-group-at-all}\n')
    assert faults(folder) == [('user', "no such group: 'no-group-at-all'")]


def test_folders_that_do_not_exist_are_faults(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/gone/ticker.pid, state_directory: FOLDER/state,'
                      ' working_directory: FOLDER/nowhere}\n')
    found = findings(folder)[1]
    assert of_level(found, 'fault') == [
        ('working_directory', 'does not exist'),
        ('pidfile', f'{folder}/gone: does not exist'),
    ]
    assert ('state_directory', 'does not exist') in of_level(found, 'warning')


@pytest.mark.root
def test_what_the_user_of_the_daemon_may_not_write_is_told_to_root(folder: Path) -> None:
    open_to_all(folder)
    for name in ('state', 'logs'):
        (folder / name).mkdir()
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, user: nobody,'
                      ' state_directory: FOLDER/state, logs_directory: FOLDER/logs}\n',
              LOGGING.replace('FOLDER/', ''))
    found = findings(folder)[1]
    assert of_level(found, 'fault') == [
        ('logging.file', f'the user nobody may not write {folder}/logs')]
    assert any(check == 'state_directory' and 'the user nobody may not write in it' in text
               for check, text in of_level(found, 'warning'))
    for name in ('state', 'logs'):
        shutil.chown(folder / name, 'nobody')
    assert faults(folder) == []


def as_nobody(folder: Path) -> list[dict[str, str]]:
    """What an ordinary user is told of the folder's configuration."""
    open_to_all(folder)
    shutil.copytree(ROOT / 'clihelper', folder / 'clihelper',
                    ignore=shutil.ignore_patterns('__pycache__'))
    done = subprocess.run(
        ['/usr/bin/python3', '-c',
         'import sys; sys.path[:0] = sys.argv[1:2]; del sys.argv[1]\n'
         'from clihelper.commands import main; main()',
         str(folder), 'doctor', '--json', '-c', str(folder / 'ticker.yml')],
        user='nobody', group='nogroup', extra_groups=[], env=environment(folder),
        capture_output=True, text=True, timeout=60, cwd='/',
    )
    assert done.returncode == 1, done
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.mark.root
def test_an_ordinary_user_is_told_that_root_would_refuse_the_configuration(folder: Path) -> None:
    write_unit(folder)
    (folder / 'ticker.yml').chmod(0o664)
    shutil.chown(folder / 'ticker.yml', group='daemon')
    wrong = of_level(as_nobody(folder), 'fault')
    assert len(wrong) == 1
    assert wrong[0][0] == 'configuration.writers'
    assert 'can be written by group' in wrong[0][1]


@pytest.mark.root
def test_a_configuration_that_cannot_be_read_is_a_fault_with_what_to_do(folder: Path) -> None:
    (folder / 'ticker.yml').chmod(0o600)
    wrong = [each for each in as_nobody(folder) if each['level'] == 'fault']
    assert [each['text'] for each in wrong] == ['cannot be read: Permission denied']
    assert wrong[0]['remedy'].startswith('run this command as root')


@pytest.mark.root
def test_a_pidfile_that_may_not_be_read_is_no_fault(folder: Path) -> None:
    (folder / 'secret').mkdir(mode=0o700)
    configure(folder, 'Daemon: {pidfile: FOLDER/secret/ticker.pid}\n')
    found = as_nobody(folder)
    assert [check for check, _ in of_level(found, 'fault')] == ['logging.file']
    assert ('pidfile', 'may not be read') in of_level(found, 'warning')


@pytest.mark.root
def test_what_an_ordinary_user_may_not_do_is_told_to_them(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, user: daemon}\n')
    found = as_nobody(folder)
    checks = [check for check, _ in of_level(found, 'fault')]
    assert checks == ['user', 'pidfile', 'logging.file']
    assert f'may not write in {folder}' in of_level(found, 'fault')[1][1]


@pytest.mark.root
def test_root_without_the_capability_to_become_a_user_is_told_so(folder: Path) -> None:
    """As in a container that has dropped it."""
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, user: nobody}\n', '')
    prefix = ['setpriv', '--bounding-set=-setuid,-setgid', '--']
    done = subprocess.run([*prefix, *command(('-c', folder / 'ticker.yml'))], cwd='/',
                          env=environment(folder), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert 'fault    Daemon.user: cannot become user' in done.stdout
    assert 'needs CAP_SETGID and CAP_SETUID' in done.stdout


def test_a_umask_that_lets_everybody_write_is_a_warning(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, umask: 000}\n')
    assert ('umask', 'everybody may write what the daemon creates') in warnings(folder)


@pytest.mark.root
def test_a_scoreboard_of_another_user_is_a_warning(folder: Path) -> None:
    (folder / 'ticker.scoreboard').write_bytes(b'')
    shutil.chown(folder / 'ticker.scoreboard', 'nobody')
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, state_directory: FOLDER}\n')
    assert any('belongs to another user' in text for _, text in warnings(folder))


# The pidfile


def test_a_stale_pidfile_is_a_warning_and_a_foreign_file_a_fault(folder: Path) -> None:
    pidfile = folder / 'ticker.pid'
    with start(folder) as daemon:
        daemon.stop('KILL')
    assert ('pidfile', f'is stale: process {daemon.pid} did not end cleanly; see its log'
            ) in warnings(folder)
    pidfile.write_text('this is\nno pidfile\n')
    assert faults(folder) == [('pidfile', 'is not a pidfile: it has several lines')]
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.yml/ticker.pid}\n')
    assert faults(folder) == [('pidfile', 'cannot be read: Not a directory')]
    configure(folder)
    pidfile.unlink()
    pidfile.mkdir()
    assert faults(folder) == [('pidfile', 'is not a pidfile: it is a directory')]


def test_a_lock_that_another_process_holds_is_a_fault(folder: Path) -> None:
    with (folder / 'ticker.pid').open('w+') as file, \
            subprocess.Popen(['sleep', '60']) as bystander:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f'{bystander.pid}\n')
            file.flush()
            found = findings(folder)[1]
            ((check, text),) = of_level(found, 'fault')
            assert check == 'pidfile'
            # What is said of the daemon is not that of a process that has nothing to do with it.
            assert f'process {bystander.pid}' not in [each['where'] for each in found]
            assert f'not by process {bystander.pid}' in text
            assert f'is locked by process {os.getpid()} ' in text
        finally:
            bystander.kill()


# Daemon.listen


def test_an_address_that_is_in_use_is_a_fault_unless_the_daemon_runs(folder: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        text = f'Daemon: {{pidfile: FOLDER/ticker.pid, listen: ["127.0.0.1:{port}"]}}\n'
        configure(folder, text)
        assert faults(folder) == [('listen', 'Address already in use')]
    assert faults(folder) == []
    with start(folder):
        assert faults(folder) == []


def test_a_socket_in_the_file_system_that_somebody_reads_is_a_fault(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, listen: "unix:FOLDER/socket"}\n')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / 'socket'))
        server.listen()
        assert faults(folder) == [('listen', 'another process listens there')]
    assert faults(folder) == []
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, listen: "unix:FOLDER/no/socket"}\n')
    assert faults(folder) == [('listen', 'does not exist')]


@pytest.mark.root
def test_a_port_that_the_user_of_the_unit_may_not_use_is_a_fault_without_a_socket_unit(
    folder: Path,
) -> None:
    configure(folder, 'Daemon: {pidfile: null, listen: "127.0.0.1:1"}\n', '')
    first = int(Path('/proc/sys/net/ipv4/ip_unprivileged_port_start').read_text())
    write_unit(folder, 'User=nobody')
    expected = [('listen', 'the user nobody, who starts the daemon, may not use a port below'
                 f' {first}')] if first > 1 else []
    assert faults(folder, 'ticker') == expected
    (folder / 'units' / 'ticker.socket').touch()
    assert faults(folder, 'ticker') == []


# Syslog


def test_syslog_without_a_reader_is_a_warning(folder: Path) -> None:
    logging = ('Logging: {handlers: {a: {class: logging.handlers.SysLogHandler,'
               ' address: FOLDER/socket}}}\n')
    configure(folder, PLAIN, logging)
    path = folder / 'socket'
    assert any(f'there is no {path}' in text for _, text in warnings(folder))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        assert not any(check == 'syslog' for check, _ in warnings(folder))
    assert any(f'{path} cannot be written: Connection refused' in text
               for _, text in warnings(folder))
    path.unlink()
    path.write_text('')
    assert ('syslog', f'{path} is not a socket') in faults(folder)


# The unit


def write_unit(folder: Path, settings: str = '', kind: str = 'notify') -> Path:
    path = folder / 'units' / 'ticker.service'
    path.write_text(
        f'[Unit]\nDescription=Ticks\n[Service]\nType={kind}\n'
        f'ExecStart={sys.executable} {folder}/ticker.py \\\n    -c {folder}/ticker.yml\n'
        f'User=root\nTimeoutStopSec=90\n{settings}\n'
    )
    return path


def test_a_unit_with_a_wrong_type_is_a_fault(folder: Path) -> None:
    write_unit(folder, kind='simple')
    ((check, text),) = faults(folder)
    assert check == 'unit.type'
    assert text.startswith('Type=simple: the daemon detaches')
    drop_ins = folder / 'units' / 'ticker.service.d'
    drop_ins.mkdir()
    (drop_ins / 'type.conf').write_text('[Service]\nType=notify\n')
    assert faults(folder) == []


@pytest.mark.parametrize(('settings', 'level', 'expected'), [
    ('TimeoutStopSec=30', 'warning', 'not more than Daemon.stop_timeout (60 s)'),
    ('TimeoutStopSec=1min 5s', 'ok', ''),
    ('TimeoutStopSec=infinity', 'ok', ''),
    ('User=nobody', 'fault', 'which only root can become'),
    ('ExecStart=\nExecStart=/nowhere/ticker -c FOLDER/ticker.yml', 'fault',
     'ExecStart: /nowhere/ticker cannot be executed'),
    ('ExecStart=\nExecStart=/bin/true -c /etc/other.yml', 'warning',
     'another configuration, /etc/other.yml'),
    ('User=nobody-at-all', 'fault', "no such user: 'nobody-at-all': systemd does not start"),
    ('NotifyAccess=none', 'fault', 'NotifyAccess=none'),
    ('NotifyAccess=none\nNotifyAccess=', 'ok', ''),
    ('LimitNOFILE=20', 'fault', 'needs about 49 descriptors, and 20 may be open'),
])
def test_a_unit_that_does_not_suit_the_configuration(
    folder: Path, settings: str, level: str, expected: str
) -> None:
    configure(folder, 'Daemon: {pidfile: /run/ticker.pid, user: root}\n')
    write_unit(folder, settings.replace('FOLDER', str(folder)))
    found = findings(folder, '-c', folder / 'ticker.yml', 'ticker')[1]
    said = [each for each in ('warning', 'fault') for check, text in of_level(found, each)
            if 'unit' in check or check == 'descriptors']
    assert said == ([] if level == 'ok' else [level]), found
    assert any(expected in text for _, text in of_level(found, level))


def test_folders_that_systemd_makes_need_not_exist(folder: Path) -> None:
    write_unit(folder, 'RuntimeDirectory=clihelper-doctor\nLogsDirectory=clihelper-doctor\n')
    configure(folder, '', LOGGING.replace('FOLDER/', ''))
    found = findings(folder, 'ticker')[1]
    assert of_level(found, 'fault') == []
    assert ('pidfile', 'systemd makes its folder') in of_level(found, 'ok')
    assert ('logging.file', 'systemd makes its folder') in of_level(found, 'ok')


@pytest.mark.parametrize(('text', 'expected'), [
    ('90', 90), ('1min 30s', 90), ('2h', 7200), ('infinity', float('inf')), ('soon', None),
    ('', None), ('1.5.5', None), ('5 apples', None),
])
def test_spans_of_time(text: str, expected: float | None) -> None:
    assert unit.seconds(text) == expected


# Descriptors, and the clock


def test_descriptors_that_are_nearly_used_up_are_a_fault(folder: Path) -> None:
    with start(folder) as daemon:
        words = ('--pidfile', folder / 'ticker.pid')
        used = len(os.listdir(f'/proc/{daemon.pid}/fd'))
        assert faults(folder, *words) == []
        # It may have closed the pipe to the command that started it only now.
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 2, used + 2))
        ((check, text),) = faults(folder, *words)
        assert check == 'descriptors'
        assert text.endswith(f' of {used + 2} descriptors are open')


@pytest.mark.parametrize(('used', 'level'), [(10, 'ok'), (900, 'warning'), (1020, 'fault')])
def test_how_many_descriptors_are_too_many(used: int, level: str) -> None:
    assert limits.judge('process 1', used, 1024).level == level


def test_workers_that_need_more_descriptors_than_there_are(folder: Path) -> None:
    configure(folder, 'Daemon: {pidfile: FOLDER/ticker.pid, workers: 1000}\n')
    done = doctor(folder, '-c', folder / 'ticker.yml', preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (1024, 1024)))
    assert done.returncode == 1
    assert 'fault    Daemon.workers 1000: needs about 4049 descriptors, and 1024' in done.stdout


def test_the_clock() -> None:
    levels = {state: next(clock.check_clock(state)).level for state in (0, 5, None)}
    assert levels == {0: 'ok', 5: 'warning', None: 'ok'}


def test_a_configuration_of_the_future_is_a_warning(folder: Path) -> None:
    future = time.time() + 3600
    os.utime(folder / 'ticker.yml', (future, future))
    lines = doctor(folder, '-c', folder / 'ticker.yml').stdout.splitlines()
    assert any(line.startswith(f'warning  {folder}/ticker.yml: was written in the future')
               for line in lines)


# Brokers


def amqp(folder: Path, url: str, more: str = '') -> None:
    configure(folder, f'{PLAIN}AMQP:\n  url: {url}\n{more}')


@pytest.fixture
def channel(broker: Broker) -> Iterator[Any]:
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


def test_a_broker_with_its_queues_is_all_right(
    folder: Path, broker: Broker, channel: Any, queue_name: str
) -> None:
    kept = {'durable': True, 'auto_delete': False}
    for name in (queue_name, f'{queue_name}.dead'):
        channel.queue_declare(name, **kept)
    amqp(folder, broker.url(), f'  queues: {{{queue_name}: }}\n')
    status, found = findings(folder)
    assert status == 0
    texts = {each['check']: each['text'] for each in found}
    assert texts['broker.tcp'].startswith(f'127.0.0.1:{broker.port} answers in ')
    assert texts['broker.login'].startswith('RabbitMQ ')
    assert texts['broker.queues'] == f'as declared: {queue_name}'
    assert texts['broker.alarm'] == 'accepts messages: no alarm'


def test_a_queue_that_does_not_exist_is_no_fault_and_is_not_created(
    folder: Path, broker: Broker, channel: Any, queue_name: str
) -> None:
    amqp(folder, broker.url(), f'  queues: {{{queue_name}: }}\n')
    status, found = findings(folder)
    assert status == 0
    assert any('does not exist yet, and will be declared' in text
               for _, text in of_level(found, 'ok'))
    with pytest.raises(channel.connection.channel_errors):
        channel.queue_declare(queue_name, passive=True)


def test_a_queue_that_is_declared_differently_is_a_fault_in_words(
    folder: Path, broker: Broker, channel: Any, queue_name: str
) -> None:
    channel.queue_declare(queue_name, durable=True, auto_delete=False,
                          arguments={'x-max-length': 5})
    amqp(folder, broker.url(), f'  queues: {{{queue_name}: }}\n')
    assert faults(folder) == [(
        'broker.queues', f'AMQP.queues.{queue_name}: x-max-length is not set here, but 5 in the'
        f" queue '{queue_name}' that exists")]


def test_a_queue_that_can_lose_messages_is_a_warning(
    folder: Path, broker: Broker, queue_name: str
) -> None:
    amqp(folder, broker.url(), '  dead_letter: false\n'
         f'  queues: {{{queue_name}: {{arguments: {{x-max-length: 5}}}}}}\n')
    texts = [text for check, text in warnings(folder) if check == 'broker.limits']
    assert len(texts) == 2
    assert 'x-max-length is 5: the oldest messages are dropped' in texts[0]


def test_an_exclusive_queue_of_the_daemon_that_runs_is_no_fault(
    folder: Path, broker: Broker, queue_name: str
) -> None:
    (folder / 'ticker.py').write_text(CONSUMER)
    amqp(folder, broker.url(), f'  queues: {{{queue_name}: {{exclusive: true}}}}\n')
    with start(folder):
        assert faults(folder, '--pidfile', folder / 'ticker.pid') == []


def test_credentials_vhost_and_a_broker_that_is_away_are_told_apart(
    folder: Path, broker: Broker
) -> None:
    [port] = _free_ports(1)
    wrong = broker.url().replace('guest:guest', f'guest:{SECRET}')
    amqp(folder, f'["{wrong}", "{broker.url("nowhere")}", "amqp://a:{SECRET}@127.0.0.1:{port}",'
                 f' "amqp://a:{SECRET}@nowhere.invalid"]')
    assert [(check, text.replace(str(port), 'PORT')) for check, text in faults(folder)][:3] == [
        ('broker.credentials', 'refuses the credentials'),
        ('broker.vhost', 'there is no vhost nowhere'),
        ('broker.tcp', '127.0.0.1:PORT: Connection refused'),
    ]
    ((check, text),) = faults(folder)[3:]
    assert check == 'broker.name'
    assert text.startswith('name nowhere.invalid ')
    assert SECRET not in quote(doctor(folder, '-c', folder / 'ticker.yml').stdout)


def test_guest_is_told_that_only_the_brokers_machine_lets_them_in() -> None:
    error = UnavailableError('AMQP.url: amqp://mq1 refuses the credentials')
    error.__cause__ = amqp_library.AccessRefused('ACCESS_REFUSED')
    here, there = (brokers.refused('AMQP.url', url, error)
                   for url in ('amqp://guest:guest@localhost', 'amqp://mq1'))
    assert here.remedy == 'correct user or password: rabbitmqctl authenticate_user guest'
    assert "only from the broker's own machine" in there.remedy
    assert there.text == 'refuses the credentials'


def test_a_vhost_without_permission_is_not_said_to_be_missing(
    folder: Path, broker: Broker, queue_name: str
) -> None:
    broker.ctl('add_vhost', queue_name)
    try:
        broker.ctl('clear_permissions', '-p', queue_name, 'guest')
        amqp(folder, broker.url(queue_name))
        assert faults(folder) == [
            ('broker.vhost', f'user guest has no permission for vhost {queue_name}')]
    finally:
        broker.ctl('delete_vhost', queue_name)


def test_a_broker_that_was_stopped_is_a_fault(folder: Path) -> None:
    with Broker() as node:
        amqp(folder, node.url())
        assert faults(folder) == []
        node.ctl('eval', 'rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []}).')
        ((check, text),) = faults(folder)
        assert check == 'broker.alarm'
        assert text.startswith('accepts no messages: ')
        node.stop()
        ((check, text),) = faults(folder)
        assert (check, text) == ('broker.tcp', f'127.0.0.1:{node.port}: Connection refused')


def test_what_does_not_speak_amqp_is_a_fault(folder: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        amqp(folder, f'amqp://127.0.0.1:{server.getsockname()[1]}')
        with subprocess.Popen(command(('-c', folder / 'ticker.yml')), env=environment(folder),
                              stdout=subprocess.PIPE, text=True) as process:
            for _ in range(2):  # the check of TCP, and that of AMQP
                client, _ = server.accept()
                with client:
                    client.sendall(b'SSH-2.0-OpenSSH_9.2\r\n')
            output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert 'does not answer like a broker' in output


def test_a_broker_that_is_silent_takes_seconds(folder: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        amqp(folder, f'amqp://127.0.0.1:{server.getsockname()[1]}')
        began = time.monotonic()
        ((check, text),) = faults(folder)
        assert check == 'broker.amqp'
        assert 'no answer' in text
        assert time.monotonic() - began < 5 + 5


def test_a_black_hole_takes_seconds_and_ctrl_c_ends_it_at_once(folder: Path) -> None:
    with BlackHole('127.0.0.1') as hole:
        port = hole.address[1]
        amqp(folder, f'amqp://127.0.0.1:{port}')
        began = time.monotonic()
        assert faults(folder) == [('broker.tcp', f'127.0.0.1:{port}: no answer within 3 s')]
        assert time.monotonic() - began < 3 + 5
        with subprocess.Popen(
            command(('-c', folder / 'ticker.yml')), env=environment(folder),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process:
            assert process.stdout is not None
            while 'clock' not in process.stdout.readline():  # the brokers are next
                pass
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 130
            assert errors == ''
            assert time.monotonic() - began < 3


def test_one_address_that_answers_is_enough() -> None:
    [port] = _free_ports(1)

    def address(place: tuple[str, int]) -> Any:
        return socket.AF_INET, socket.SOCK_STREAM, 6, '', place

    with BlackHole('127.0.0.1') as hole, socket.create_server(('127.0.0.1', 0)) as server:
        places = [hole.address, ('127.0.0.1', port), server.getsockname()]
        found = brokers.check_addresses('AMQP.url', [address(each) for each in places])
        levels = {each.text: each.level for each in found}
    assert sorted(levels.values()) == ['ok', 'warning', 'warning']
    assert levels[f'127.0.0.1:{hole.address[1]}: no answer within 3 s'] == 'warning'


def test_brokers_of_kombus_are_asked_whether_they_answer(folder: Path) -> None:
    amqp(folder, 'filesystem://localhost', '  queues: {a: }\n')
    found = [each for each in findings(folder)[1] if each['check'].startswith('broker')]
    assert [(each['check'], each['level']) for each in found] == [('broker.login', 'ok')]


def test_memory_needs_no_broker(folder: Path) -> None:
    amqp(folder, 'memory://')
    assert faults(folder) == []


# TLS


@contextlib.contextmanager
def secure_broker(folder: Path, name: str, days: int) -> Iterator[tuple[int, Authority]]:
    ours = Authority(folder)
    ours.certify(name, 'DNS:broker.test,IP:127.0.0.1', days=days)
    [port] = _free_ports(1)
    options = {
        'listeners.ssl.default': f'127.0.0.1:{port}',
        'ssl_options.cacertfile': ours.certificate,
        'ssl_options.certfile': folder / f'{name}.pem',
        'ssl_options.keyfile': folder / f'{name}.key',
    }
    with Broker('\n'.join(f'{key} = {value}' for key, value in options.items())):
        yield port, ours


def test_a_certificate_that_expires_soon_or_is_not_for_the_host_or_unknown(folder: Path) -> None:
    with secure_broker(folder, 'broker', days=2) as (port, ours):
        url = f'amqps://guest:guest@127.0.0.1:{port}'
        amqp(folder, url, f'  tls: {{ca: {ours.certificate}}}\n')
        status, found = findings(folder)
        assert status == 0, found
        assert any(check == 'broker.tls' and 'the certificate expires in 2 days' in text
                   for check, text in of_level(found, 'warning'))
        amqp(folder, url, f'  tls: {{ca: {ours.certificate}, server_name: other.test}}\n')
        ((check, text),) = faults(folder)
        assert check == 'broker.tls'
        assert 'certificate is not accepted' in text
        amqp(folder, url)
        ((check, text),) = faults(folder)
        assert check == 'broker.tls'
        amqp(folder, url, '  tls: {verify: false}\n')
        assert any('anybody may pose as the broker' in text for _, text in warnings(folder))


def test_an_expired_certificate_is_a_fault_with_what_to_do(folder: Path) -> None:
    with secure_broker(folder, 'expired', days=-1) as (port, ours):
        amqp(folder, f'amqps://guest:guest@127.0.0.1:{port}',
             f'  tls: {{ca: {ours.certificate}}}\n')
        wrong = [each for each in findings(folder)[1] if each['level'] == 'fault']
        assert [each['check'] for each in wrong] == ['broker.tls']
        assert 'certificate has expired' in wrong[0]['text']
        assert wrong[0]['remedy'] == "renew the broker's certificate"


def test_a_port_without_tls_is_a_fault(folder: Path, broker: Broker) -> None:
    amqp(folder, f'amqps://guest:guest@127.0.0.1:{broker.port}')
    ((check, _),) = faults(folder)
    assert check == 'broker.tls'
