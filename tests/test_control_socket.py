"""The control socket: when it is there, who may ask, and clients that mean no good."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from clihelper.operations import control
from clihelper.testing import WaitError
from tests.asked import PROGRAM, ROOT, Asked, as_user

WORKERS = pytest.mark.parametrize('workers', [1, 2])


# When it is there


@WORKERS
def test_it_is_there_as_long_as_the_daemon_and_over_a_reload(tmp_path, workers):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon:
        status = daemon.path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert json.loads(daemon.ask('status', '--json').stdout)['control'] == str(daemon.path)
        for _ in range(2):
            assert daemon.ask('reload').returncode == 0
            assert daemon.request(b'{"command": "workers"}\n')[-1]['status'] == 0
        assert daemon.path.stat().st_ino == status.st_ino
        daemon.stop()
        assert not daemon.path.exists()


@WORKERS
def test_one_that_a_killed_daemon_has_left_is_replaced(tmp_path, workers):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon:
        daemon.stop('KILL')
        assert daemon.path.exists()
        done = daemon.ask('workers')
        assert (done.returncode, done.stderr.count('\n')) == (7, 1)
    with Asked(tmp_path) as daemon:
        assert daemon.lines == []
        assert daemon.ask('workers').returncode == 0
        daemon.stop()


def test_a_child_that_the_program_has_forked_does_not_hold_it(tmp_path):
    with Asked(tmp_path, more='do: fork', interval=3600) as daemon:
        end = time.monotonic() + 10
        while not (children := daemon.workers()):  # ready is before the first _process
            assert time.monotonic() < end
            time.sleep(0.01)
        (child,) = children
        daemon.stop('KILL')
        try:
            with pytest.raises(ConnectionRefusedError):
                daemon.connect()
        finally:
            os.kill(child, 9)


def test_it_may_be_elsewhere_or_not_at_all(tmp_path):
    elsewhere = tmp_path / 'other.socket'
    with Asked(tmp_path, daemon=f'control: {tmp_path}/other.socket') as daemon:
        assert elsewhere.exists()
        assert not daemon.path.exists()
        assert daemon.ask('workers').returncode == 0
        daemon.stop()
        assert not elsewhere.exists()
    with Asked(tmp_path, daemon='control: false') as daemon:
        assert not daemon.path.exists()
        done = daemon.ask('stacks')
        assert done.returncode == 1
        assert done.stderr == (f'clihelper: {daemon.pidfile}: has no control socket'
                               ' (Daemon.control)\n')
        daemon.stop()


def test_its_path_may_be_longer_than_an_address(tmp_path):
    folder = tmp_path / ('long' * 30)
    folder.mkdir()
    with Asked(folder) as daemon:
        assert daemon.ask('workers').returncode == 0
        daemon.stop()
        assert not daemon.path.exists()


def test_in_the_foreground_there_is_none(tmp_path):
    daemon = Asked(tmp_path)
    process = subprocess.Popen(
        [sys.executable, PROGRAM, '-c', str(daemon.file), '-f'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)})
    try:
        daemon.wait_logged('setup 1')
        assert not daemon.path.exists()
    finally:
        process.terminate()
        process.wait()


def test_what_is_in_the_default_place_is_left_alone_and_the_daemon_starts(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/asked.sock').write_text('mine')
    with Asked(tmp_path) as daemon:
        assert len(daemon.lines) == 1
        assert 'Daemon.control' in daemon.lines[0]
        assert 'it cannot be asked' in daemon.lines[0]
        assert daemon.path.read_text() == 'mine'
        daemon.stop()
        assert daemon.path.read_text() == 'mine'


def test_one_that_somebody_listens_at_is_status_73_if_it_was_named(tmp_path):
    path = str(tmp_path / 's')
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(WaitError, match='status 73') as caught, Asked(
                tmp_path, daemon=f'control: {path}'):
            pass
        assert 'Daemon.control: unix:' in str(caught.value)


# Who may ask


@pytest.fixture
def public():
    """A folder that everybody may enter: pytest closes its own anew at each start of another."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


CONNECT = """
import socket, sys
connected = socket.socket(socket.AF_UNIX)
try:
    connected.connect(sys.argv[1])
except OSError as error:
    print(error.errno)
else:
    try:
        connected.sendall(b'{"command": "workers"}\\n')
    except BrokenPipeError:
        pass
    print(connected.recv(1000).decode())
"""


@pytest.mark.root
@WORKERS
def test_another_user_may_not_even_if_the_file_lets_them(public, workers):
    with Asked(public, daemon=f'workers: {workers}') as daemon:
        done = as_user(public, CONNECT, daemon.path)
        assert done.stdout == f'{errno.EACCES}\n', done
        daemon.path.chmod(0o666)
        done = as_user(public, CONNECT, daemon.path)
        assert json.loads(done.stdout) == {'status': 77, 'errors': ['not permitted']}
        for command in ('stacks', 'workers'):
            done = as_user(public, 'from clihelper.commands import main; main()', command,
                           '--pidfile', daemon.pidfile)
            assert done.returncode == 77, done
            assert done.stderr.count('\n') == 1
        assert daemon.ask('workers').returncode == 0
        daemon.stop()


@pytest.mark.root
@WORKERS
def test_the_daemons_own_user_may_and_so_may_root(public, workers):
    (public / 'run').mkdir()
    (public / 'run').chmod(0o777)
    with Asked(public, daemon=f'user: nobody, workers: {workers}') as daemon:
        assert daemon.path.owner() == 'nobody'
        for command in ('workers', 'stacks', 'reload'):
            done = as_user(public, 'from clihelper.commands import main; main()', command,
                           '--pidfile', daemon.pidfile)
            assert done.returncode == 0, (command, done)
            assert daemon.ask(command).returncode == 0
        daemon.stop()
        assert not daemon.path.exists()


def test_nobody_else_can_answer_in_the_daemons_place(tmp_path):
    with Asked(tmp_path) as daemon:
        daemon.path.unlink()
        with socket.socket(socket.AF_UNIX) as impostor:
            impostor.bind(str(daemon.path))
            impostor.listen()
            done = daemon.ask('stacks')
        assert done.returncode == 1
        assert 'another process than the daemon listens there' in done.stderr
        daemon.stop()


# Clients that mean no good


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 12000), max(hard, 12000)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.root
@WORKERS
def test_ten_thousand_connections_keep_nobody_out(tmp_path, workers, many_descriptors, figure):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon, contextlib.ExitStack() as held:
        before, memory = daemon.descriptors(), daemon.resident()
        began = time.monotonic()
        for number in range(10_000):
            held.enter_context(daemon.connect())
            if number % 2500 == 0:
                assert daemon.ask('workers').returncode == 0
        figure(f'10,000 connections to {workers} worker(s)', f'{time.monotonic() - began:.1f} s')
        # One more while another client is accepted, and one that the daemon opens for a moment.
        assert daemon.descriptors() <= before + control.MOST_CLIENTS + 2
        assert daemon.ask('workers').returncode == 0
        assert daemon.resident() < memory + 8 * 2**20
        daemon.wait_worked(2)
        daemon.stop()


def garbage():
    generator = random.Random(1)
    yield b'\n'
    yield b'null\n'
    yield b'[]\n'
    yield b'"stacks"\n'
    yield b'{"command": "stacks"\n'
    yield b'[' * 60000 + b'\n'
    yield b'{"a":' * 10000 + b'\n'
    yield b'9' * 60000 + b'\n'
    yield b'\xff\xfe\x00\n'
    yield b'GET / HTTP/1.1\r\n\r\n'
    yield b'{"command": null}\n'
    yield b'{"command": ["stacks"]}\n'
    yield b'{"command": {}}\n'
    yield b'{"command": "nothing"}\n'
    yield b'{"command": "__init__", "id": {"a": 1}}\n'
    yield b'{"command": "log-level"}\n'
    yield b'{"command": "log-level", "logger": 1, "level": "DEBUG"}\n'
    yield b'{"command": "log-level", "logger": "a", "level": ["DEBUG"]}\n'
    yield b'{"command": "log-level", "logger": "a", "level": "DEBUG", "seconds": NaN}\n'
    yield b'{"command": "log-level", "logger": "a", "level": "DEBUG", "seconds": 1e999}\n'
    yield b'{"command": "workers", "number": true}\n'
    yield b'{"command": "workers", "number": -1}\n'
    yield b'{"command": "workers", "number": 1e3}\n'
    for _ in range(200):
        yield generator.randbytes(generator.randrange(200)) + b'\n'


@WORKERS
def test_garbage_is_answered_with_status_2(tmp_path, workers):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon:
        for data in garbage():
            answers = daemon.request(data)
            assert answers[-1]['status'] == 2, (data, answers)
            assert answers[-1]['errors']
        assert 'Traceback' not in daemon.log()
        daemon.wait_worked(2)
        daemon.stop()


@WORKERS
def test_a_request_that_is_too_long_is_refused_before_it_is_read(tmp_path, workers):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon:
        memory = daemon.resident()
        longest = b'{"command": "workers", "x": "%s"}' % (b'x' * (control.LONGEST - 31))
        assert len(longest) == control.LONGEST
        assert daemon.request(longest + b'\n')[-1]['status'] == 0
        assert daemon.request(longest[:-1] + b' }\n')[-1]['status'] == 2
        with daemon.connect() as connected:
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 100 * 2**20:
                    sent += connected.send(b'x' * 65536)
            assert sent < 4 * 2**20
        assert daemon.resident() < memory + 8 * 2**20
        daemon.wait_worked(2)
        daemon.stop()


@WORKERS
def test_a_client_that_never_reads_costs_bounded_memory_and_nobody_waits(tmp_path, workers):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon, contextlib.ExitStack() as held:
        memory = daemon.resident()
        for _ in range(control.MOST_CLIENTS):
            greedy = held.enter_context(daemon.connect())
            greedy.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(1000):
                    greedy.send(b'{"command": "stacks"}\n' * 1000)
        for _ in range(5):
            assert daemon.ask('workers').returncode in (0, 75)
        assert daemon.resident() < memory + control.MOST_OUTPUT_IN_ALL + 16 * 2**20
        daemon.wait_worked(2)
        # Those that have not read anything for so long are dropped.
        end = time.monotonic() + control.PATIENCE + 10
        while daemon.ask('workers').returncode:
            assert time.monotonic() < end
        daemon.stop()


def test_one_that_sends_nothing_or_byte_by_byte_is_dropped(tmp_path):
    with Asked(tmp_path) as daemon, daemon.connect() as silent, daemon.connect() as slow:
        silent.settimeout(control.PATIENCE + 5)
        slow.send(b'{')
        began = time.monotonic()
        assert silent.recv(1) == b''
        assert slow.recv(1) == b''
        assert time.monotonic() - began > control.PATIENCE / 2
        daemon.stop()


@WORKERS
def test_requests_of_one_connection_are_answered_in_turn(tmp_path, workers):
    with Asked(tmp_path, daemon=f'workers: {workers}') as daemon:
        with daemon.connect() as connected, connected.makefile('rb') as answers:
            connected.sendall(b''.join(
                b'{"command": "workers", "id": %d}\n' % number for number in range(500)))
            connected.shutdown(socket.SHUT_WR)
            found = [json.loads(line) for line in answers]
        assert [answer['id'] for answer in found] == list(range(500))
        assert {answer['status'] for answer in found} == {0}
        daemon.stop()


def test_without_a_free_descriptor_it_waits_for_one(tmp_path):
    with Asked(tmp_path, interval=3600) as daemon:
        before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        numbers = [int(name) for name in os.listdir(f'/proc/{daemon.pid}/fd')]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, before[1]))
        with contextlib.ExitStack() as held:
            for _ in range(len(range(max(numbers))) - len(numbers) + 5):
                held.enter_context(daemon.connect())
            spent = cpu(daemon)
            time.sleep(1)
            assert cpu(daemon) - spent < 0.3
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
            assert daemon.ask('workers').returncode == 0
        daemon.stop()


def cpu(daemon):
    """The seconds of CPU that the process has used."""
    with open(f'/proc/{daemon.pid}/stat', 'rb') as file:
        user, system = file.read().rpartition(b')')[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')
