"""``Daemon.listen`` and socket activation: sockets of the main process, that all workers serve."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from clihelper.errors import CannotListen, NotPermitted
from clihelper.process import systemd
from clihelper.process.sockets import Listening
from clihelper.testing import Program
from tests.forking import fork, status_of

PROGRAM = str(Path(__file__).parent / 'programs' / 'web.py')


@pytest.fixture
def listening():
    listening = Listening()
    yield listening
    listening.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def ask(family, address):
    """The answer to a request on a connection of its own; '' if there is none."""
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        client.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        answer = b''
        while chunk := client.recv(4096):
            answer += chunk
    return answer.partition(b'\r\n\r\n')[2].decode().strip()


ACTIVATE = """
import fcntl, os, sys
count = int(os.environ['LISTEN_FDS'])
# Out of the way first: the numbers may overlap.
copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1:1 + count]]
os.closerange(3, 100)
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.closerange(100, 200)
os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[1 + count], sys.argv[1 + count:])
"""
"""What a service manager does between its fork and the program, see sd_listen_fds(3)"""


class Web(Program):
    def __init__(self, folder, listen='[]', workers=1, program='Sharing', options=('-f',),
                 passed=(), names=None, **keywords):
        self.file = folder / 'web.yml'
        self.pidfile = folder / 'web.pid'
        self.file.write_text(f'Daemon: {{workers: {workers}, listen: {listen}, '
                             f'pidfile: {self.pidfile}}}\n')
        argv = [sys.executable, PROGRAM, program, '-c', str(self.file), *options]
        env = {
            'REPORTS': os.devnull, 'GATE': os.devnull, 'HELD_AT': '',
            'PYTHONPATH': str(Path(PROGRAM).parent),
        }
        if passed:
            numbers = [each.fileno() for each in passed]
            argv = [sys.executable, '-c', ACTIVATE, *map(str, numbers), *argv]
            keywords['pass_fds'] = numbers
            env['LISTEN_FDS'] = str(len(numbers))
            if names is not None:
                env['LISTEN_FDNAMES'] = names
        super().__init__(argv, env=env, **keywords)


@pytest.fixture
def manager():
    """Makes the sockets of a service manager, which outlive the service."""
    made = []

    def listen(family=socket.AF_INET, address=('127.0.0.1', 0)):
        made.append(socket.socket(family))
        made[-1].bind(address)
        made[-1].listen()
        return made[-1]

    yield listen
    for each in made:
        each.close()


@pytest.mark.parametrize('workers', [1, 2])
def test_no_connection_is_refused_while_workers_are_replaced(tmp_path, workers):
    port = free_port()
    path = tmp_path / 'socket'
    with Web(tmp_path, f'["127.0.0.1:{port}", "unix:{path}"]', workers) as web:
        web.wait_ready()
        answers = {ask(socket.AF_INET, ('127.0.0.1', port)) for _ in range(100)}
        assert answers <= {'1', '2'}
        assert ask(socket.AF_UNIX, str(path)) in answers
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        failures = []

        def load():
            while not ended.is_set():
                try:
                    if ask(socket.AF_INET, ('127.0.0.1', port)) not in ('1', '2'):
                        failures.append('no answer')
                except OSError as error:
                    failures.append(error)

        ended = threading.Event()
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            web.signal('HUP')
            web.wait_ready()
        ended.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert web.stop() == 0
    assert not path.exists()
    assert 'Traceback' not in '\n'.join(web.lines)


def test_the_socket_of_a_killed_program_is_replaced_and_that_of_a_living_is_not(tmp_path):
    path = tmp_path / 'socket'
    with Web(tmp_path, f'unix:{path}') as web:
        web.wait_ready()
        with Web(tmp_path, f'unix:{path}') as second:
            assert second.wait() == 73
            assert second.lines == [f'web: Daemon.listen: unix:{path}: Address already in use']
        web.stop('KILL')
    assert path.exists()
    with Web(tmp_path, f'unix:{path}') as web:
        web.wait_ready()
        assert ask(socket.AF_UNIX, str(path)) == '1'
        assert web.stop() == 0


def test_every_address_of_a_name_is_listened_at(listening):
    port = free_port()
    listening.bind([f':{port}'])
    families = {each.family for each in listening.sockets}
    assert socket.AF_INET in families
    for each in listening.sockets:
        assert not each.getblocking()
        assert not os.get_inheritable(each.fileno())
        with socket.socket(each.family) as client:
            local = '127.0.0.1' if each.family == socket.AF_INET else '::1'
            client.connect((local, port))


def test_what_is_no_socket_is_left_alone(listening, tmp_path):
    (tmp_path / 'file').write_text('precious')
    with pytest.raises(CannotListen, match='Address already in use'):
        listening.bind([f'unix:{tmp_path}/file'])
    assert (tmp_path / 'file').read_text() == 'precious'
    assert listening.sockets == []


@pytest.mark.parametrize(
    ('address', 'error'),
    [('203.0.113.1:80', CannotListen), ('no.such.host.invalid:80', CannotListen)],
)
def test_an_address_of_another_machine(listening, address, error):
    with pytest.raises(error, match=f'^Daemon.listen: {address}: '):
        listening.bind([address])


@pytest.mark.root
def test_a_folder_that_is_not_for_this_user(listening, tmp_path):
    tmp_path.chmod(0o700)

    def bind():
        os.setresuid(54323, 54323, 54323)
        with pytest.raises(NotPermitted):
            listening.bind([f'unix:{tmp_path}/socket'])

    assert status_of(fork(bind)) == 0


# Socket activation


@pytest.mark.parametrize('workers', [1, 2])
def test_a_restart_under_a_service_manager_refuses_no_connection(tmp_path, manager, workers):
    passed = manager()
    refused, answers = [], []

    def load():
        while not ended.is_set():
            try:
                answers.append(ask(socket.AF_INET, passed.getsockname()))
            except ConnectionRefusedError as error:
                refused.append(error)

    ended = threading.Event()
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        with Web(tmp_path, workers=workers, passed=[passed]) as web:
            web.wait_ready()
            web.signal('HUP')
            web.wait_ready()
            assert web.stop() == 0
    with Web(tmp_path, passed=[passed]) as web:
        web.wait_ready()
        ended.set()
        for thread in threads:
            thread.join()
        assert web.stop() == 0
    assert refused == []
    assert set(answers) <= {'1', '2'}


def test_sockets_are_known_by_the_names_of_their_units(tmp_path, manager):
    public, path = manager(), tmp_path / 'admin.socket'
    admin = manager(socket.AF_UNIX, str(path))
    second = manager()
    with Web(tmp_path, program='Named', passed=[public, admin, second], names='web:admin:web',
             listen='"127.0.0.1:0"') as web:
        web.wait_ready()
        for each in (public, second):
            assert ask(socket.AF_INET, each.getsockname()) == 'web 2 of 4'
        assert ask(socket.AF_UNIX, str(path)) == 'admin 1 of 4'
        web.signal('HUP')
        web.wait_ready()
        assert ask(socket.AF_UNIX, str(path)) == 'admin 1 of 4'
        assert web.stop() == 0
    assert path.exists(), "the socket is the service manager's"


@pytest.mark.parametrize('names', [None, 'too:many'])
def test_without_valid_names_sockets_are_unknown(tmp_path, manager, names):
    passed = manager()
    with Web(tmp_path, program='Named', passed=[passed], names=names) as web:
        web.wait_ready()
        assert ask(socket.AF_INET, passed.getsockname()) == 'unknown 1 of 1'
        assert web.stop() == 0


@pytest.mark.parametrize('workers', [1, 2])
def test_a_daemon_has_the_sockets_that_the_command_was_passed(tmp_path, manager, workers):
    passed = manager()
    with Web(tmp_path, workers=workers, passed=[passed], options=(), notify=False) as command:
        assert command.wait() == 0
        daemon = int((tmp_path / 'web.pid').read_text())
        try:
            assert ask(socket.AF_INET, passed.getsockname()) in ('1', '2')
        finally:
            pidfd = os.pidfd_open(daemon)
            os.kill(daemon, signal.SIGTERM)
            select.select([pidfd], [], [], 30)
            os.close(pidfd)


@pytest.mark.parametrize(('address', 'listen'), [
    ('127.0.0.1', '127.0.0.1:{port}'), ('::', ':{port}'), ('{path}', 'unix:{path}'),
])
def test_an_address_of_listen_is_not_bound_again_where_a_socket_was_passed(
    tmp_path, manager, address, listen
):
    path = str(tmp_path / 'web.socket')
    if address == '{path}':
        passed, port = manager(socket.AF_UNIX, path), 0
    else:
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        passed = manager(family, (address, 0))
        port = passed.getsockname()[1]
    listen = listen.format(path=path, port=port)
    with Web(tmp_path, f'"{listen}"', program='Named', passed=[passed]) as web:
        web.wait_ready()
        assert ask(passed.family, passed.getsockname()) == 'unknown 1 of 1'
        assert web.stop() == 0
    assert not port or ask_later(passed.getsockname()), 'it is still listened at'


def ask_later(address):
    """Whether a connection is taken, to wait for the next start of the service."""
    with socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET) as client:
        client.connect(address)
    return True


def test_a_descriptor_that_is_no_socket_is_left_to_the_program(tmp_path, manager):
    passed = manager()
    with open('/dev/zero') as file, Web(
        tmp_path, program='Named', passed=[file, passed], names='zero:web'
    ) as web:
        web.wait_ready()
        assert ask(socket.AF_INET, passed.getsockname()) == 'web 1 of 1'
        assert os.readlink(f'/proc/{web.pid}/fd/3') == '/dev/zero'
        assert web.stop() == 0


def test_a_descriptor_that_was_announced_and_is_not_open_is_one_line(tmp_path):
    file = tmp_path / 'web.yml'
    file.write_text('Daemon: {}')
    argv = ['sh', '-ec', 'LISTEN_PID=$$ LISTEN_FDS=7000 exec "$@"', 'sh',
            sys.executable, PROGRAM, 'Sharing', '-c', file, '-f']
    env = {'PYTHONPATH': str(Path(PROGRAM).parent), 'REPORTS': os.devnull, 'GATE': os.devnull,
           'HELD_AT': ''}
    with Program(argv, env=env) as program:
        assert program.wait() == 73
        assert re.fullmatch(r'web: LISTEN_FDS: descriptor \d+: Bad file descriptor',
                            *program.lines)


def test_descriptors_for_another_process_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv('LISTEN_PID', str(os.getppid()))
    monkeypatch.setenv('LISTEN_FDS', '1')
    assert not systemd.listen_fds()
    monkeypatch.setenv('LISTEN_PID', str(os.getpid()))
    assert systemd.listen_fds() == range(3, 4)
    monkeypatch.setenv('LISTEN_FDS', '9' * 20)
    assert systemd.listen_names(systemd.listen_fds())(3) == 'unknown'
