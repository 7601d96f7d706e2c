"""Controllers on Tornado's IOLoop: servers, coroutines, and a stop that lets requests finish."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

from tests.life import Life

SERVERS = ['Listening', 'Serving']


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return int(free.getsockname()[1])


def web(folder: Path, controller: str, port: int = 0, interval: float = 60,
        **arguments: object) -> Life:
    config = f'Application: {{port: {port}, wake_interval: {interval}}}\n'
    return Life(folder, 'web.py', controller, config=config, **arguments)


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection('127.0.0.1', port, timeout=10)


def get(connection: http.client.HTTPConnection, path: str = '/') -> bytes:
    connection.request('GET', path)
    return connection.getresponse().read()


@pytest.mark.parametrize('controller', SERVERS)
@pytest.mark.parametrize('signum', ['TERM', 'INT'])
def test_a_request_in_hand_finishes_and_no_other_begins(
    tmp_path: Path, port: int, controller: str, signum: str
) -> None:
    with web(tmp_path, controller, port, held_at='answer') as life:
        life.wait_report('listening')
        idle, busy = connect(port), connect(port)
        assert get(idle) == b'hello'  # and the connection is kept
        busy.request('GET', '/slow')
        life.wait_report('answer')
        life.signal(signum)
        assert idle.sock.recv(1) == b''  # it has begun to stop
        with pytest.raises(ConnectionRefusedError):
            get(connect(port))
        life.let_go()
        assert busy.getresponse().read() == b'at last'
        assert life.wait() == 0
        assert life.take_reports()[-1] == 'cleanup'
        idle.close()
        busy.close()


@pytest.mark.parametrize('controller', SERVERS)
def test_a_connection_that_is_only_kept_does_not_delay_the_stop(
    tmp_path: Path, port: int, controller: str
) -> None:
    with web(tmp_path, controller, port) as life:
        life.wait_report('listening')
        idle, silent = connect(port), socket.create_connection(('127.0.0.1', port))
        assert get(idle) == b'hello'
        life.signal('TERM')
        assert life.wait() == 0  # long before stop_timeout is over
        silent.close()
        idle.close()


@pytest.mark.parametrize('controller', SERVERS)
def test_hup_listens_again_on_the_same_port(tmp_path: Path, port: int, controller: str) -> None:
    with web(tmp_path, controller, port) as life:
        life.wait_report('listening')
        for _ in range(3):
            assert get(connect(port)) == b'hello'
            life.signal('HUP')
            life.wait_report('cleanup')
            life.wait_report('listening')
        assert get(connect(port)) == b'hello'
        life.signal('TERM')
        assert life.wait() == 0


def test_hup_lets_a_request_in_hand_finish(tmp_path: Path, port: int) -> None:
    with web(tmp_path, 'Listening', port, held_at='answer') as life:
        life.wait_report('listening')
        busy = connect(port)
        busy.request('GET', '/slow')
        life.wait_report('answer')
        life.signal('HUP')
        life.let_go()
        assert busy.getresponse().read() == b'at last'
        life.wait_report('listening')
        assert get(connect(port)) == b'hello'
        life.signal('TERM')
        assert life.wait() == 0


def test_every_hook_may_be_a_coroutine(tmp_path: Path) -> None:
    with web(tmp_path, 'Coroutines', interval=0.01) as life:
        for _ in range(3):
            life.wait_report('processed ACTIVE')
        life.signal('TERM')
        assert life.wait() == 0
        assert life.take_reports()[0] == 'setup'
        assert life.reported[-2:] == ['cleanup', 'finally']
        assert life.program.stderr == []


def test_a_coroutine_in_hand_finishes_before_the_stop(tmp_path: Path) -> None:
    with web(tmp_path, 'Coroutines', held_at='answer') as life:
        life.wait_report('answer')
        life.signal('TERM')
        life.wait_logged('SIGTERM')
        life.let_go()
        assert life.wait() == 0
        assert life.take_reports()[-3:] == ['processed STOP_REQUESTED', 'cleanup', 'finally']


def test_signals_are_served_while_a_coroutine_waits(tmp_path: Path) -> None:
    with web(tmp_path, 'Coroutines', held_at='answer') as life:
        life.wait_report('answer')
        life.signal('USR2')
        life.wait_logged('state ACTIVE')
        life.signal('QUIT')
        life.wait_report('cleanup')
        life.let_go()  # the thread, which the interpreter waits for
        assert life.wait() == 131
        assert 'finally' in life.take_reports()


@pytest.mark.parametrize(('controller', 'line'), [
    ('Raising', 'ValueError: a coroutine that fails'),
    ('RaisingPlainly', 'ValueError: a hook that fails'),
    ('Cancelled', 'CancelledError'),
])
def test_an_exception_in_process_is_status_1(tmp_path: Path, controller: str, line: str) -> None:
    with web(tmp_path, controller) as life:
        assert life.wait() == 1
        assert life.program.stderr == [f'web: {line}']
        assert life.logged('Traceback') == 1
        assert life.logged('never retrieved') == 0
        assert life.take_reports() == ['cleanup']


def test_a_setup_that_is_cancelled_is_status_1(tmp_path: Path) -> None:
    with web(tmp_path, 'CancelledAtOnce') as life:
        assert life.wait() == 1
        assert life.program.stderr == ['web: CancelledError']


def test_a_reload_leaves_no_timer_of_the_watchdog_behind(tmp_path: Path) -> None:
    with web(tmp_path, 'Timers', notify=True, watchdog=60) as life:
        for _ in range(5):
            life.wait_report('timers 0')
            life.program.wait_notified('READY')
            life.signal('HUP')
        life.wait_report('timers 0')
        life.signal('TERM')
        assert life.wait() == 0


def test_sys_exit_in_process_is_its_status(tmp_path: Path) -> None:
    with web(tmp_path, 'Exiting') as life:
        assert life.wait() == 3
        assert life.program.stderr == ['web: ended itself with status 3']
        assert life.take_reports() == ['cleanup']
