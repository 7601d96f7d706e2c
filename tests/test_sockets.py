"""``Daemon.listen``: sockets bound by the main process, that all workers serve."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from clihelper.errors import CannotListen, NotPermitted
from clihelper.process.sockets import Listening
from clihelper.testing import Program

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


class Web(Program):
    def __init__(self, folder, listen, workers=1):
        self.file = folder / 'web.yml'
        self.file.write_text(f'Daemon: {{workers: {workers}, listen: {listen}}}\n')
        argv = [sys.executable, PROGRAM, 'Sharing', '-c', str(self.file), '-f']
        super().__init__(argv, env={
            'REPORTS': os.devnull, 'GATE': os.devnull, 'HELD_AT': '',
            'PYTHONPATH': str(Path(PROGRAM).parent),
        })


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


def test_a_folder_that_is_not_for_this_user(listening, tmp_path):
    tmp_path.chmod(0o700)
    pid = os.fork()
    if not pid:
        os.setresuid(54323, 54323, 54323)
        try:
            listening.bind([f'unix:{tmp_path}/socket'])
        except NotPermitted:
            os._exit(77)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
