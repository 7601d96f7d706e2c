"""How servers on the IOLoop finish, at a stop and before a reload: real clients of every kind."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.life import Life

SHARING = ('Sharing', 'Partly', 'Lasting', 'Encrypted', 'Speaking')
"""the controllers that serve at the sockets of Daemon.listen"""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return int(free.getsockname()[1])


class Client:
    """One connection: what is sent and received, byte for byte."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(10)
        self.unread = b''

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, *paths: str) -> None:
        """Send requests, all of them at once."""
        self.send(b''.join(f'GET {path} HTTP/1.1\r\nHost: x\r\n\r\n'.encode() for path in paths))

    def read_until(self, end: bytes) -> bytes:
        while end not in self.unread:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError(self.unread)
            self.unread += chunk
        found, _, self.unread = self.unread.partition(end)
        return found

    def read(self, length: int) -> bytes:
        while len(self.unread) < length:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError(self.unread)
            self.unread += chunk
        found, self.unread = self.unread[:length], self.unread[length:]
        return found

    def answer(self) -> tuple[bool, bytes]:
        """An answer: whether it says ``Connection: close``, and its body."""
        headers = self.read_until(b'\r\n\r\n').lower()
        length = headers.partition(b'content-length: ')[2].split(b'\r\n')[0]
        return b'connection: close' in headers, self.read(int(length))

    def ask_until_told(self) -> None:
        """Ask without end, until an answer says that the connection is about to be closed."""
        is_told = False
        while not is_told:
            self.ask('/')
            is_told, body = self.answer()
            assert body == b'hello'

    def rest(self) -> bytes:
        """What comes until the server closes; a reset is an error."""
        while chunk := self.socket.recv(65536):
            self.unread += chunk
        return self.unread

    def shake_hands(self) -> None:
        """Become a WebSocket."""
        key = base64.b64encode(bytes(16)).decode()
        self.send(
            f'GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            f'Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n'.encode())
        assert b' 101 ' in self.read_until(b'\r\n\r\n')

    def send_frame(self, opcode: int, payload: bytes) -> None:
        self.send(bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def frame(self) -> tuple[int, bytes]:
        first, length = self.read(2)
        return first & 0xF, self.read(length)


def connect(port: int) -> Client:
    return Client(socket.create_connection(('127.0.0.1', port), timeout=10))


@contextmanager
def serving(folder: Path, controller: str, port: int, *, workers: int = 1, timeout: float = 60,
            listen: str = '', more: tuple[str, ...] = (), certificate: str = '',
            waits: bool = True, **arguments: object) -> Iterator[Life]:
    """A program that is ready."""
    listens = [listen or f'127.0.0.1:{port}', *more]
    config = (
        f'Application: {{port: {port}, certificate: "{certificate}"}}\n'
        f'Daemon: {{workers: {workers}, stop_timeout: {timeout}, '
        f'listen: {listens if controller in SHARING else []}}}\n')
    arguments.setdefault('held_at', 'slow afterwards answer computing blocked provoked')
    with Life(folder, 'draining.py', controller, config=config, **arguments) as life:  # type: ignore[arg-type]
        if waits:
            for _ in range(workers):
                life.wait_report('ready')
            if workers > 1:
                life.wait_logged('clihelper.supervisor ready')
        yield life


def end(life: Life, *signums: str) -> None:
    """Send signals to the program; between two of them it says that it has had the first."""
    for number, signum in enumerate(signums):
        if number:
            life.wait_logged(f'SIG{signums[number - 1]}')
        life.program.signal(signum)


def reloaded(life: Life) -> None:
    life.wait_report('ready')


def is_refused(port: int) -> bool:
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=10):
            return False
    except ConnectionRefusedError:
        return True


def wait_refused(port: int) -> None:
    deadline = time.monotonic() + 10
    while not is_refused(port):
        assert time.monotonic() < deadline
        time.sleep(0.005)


# HTTP.

BOTH = ['Listening', 'Sharing']


@pytest.mark.parametrize('controller', BOTH)
def test_after_the_answer_in_progress_a_pipelining_client_gets_no_other(
    tmp_path: Path, port: int, controller: str
) -> None:
    with serving(tmp_path, controller, port) as life, connect(port) as client:
        client.ask(*(f'/slow?n={number}' for number in range(50)))
        life.wait_report('begun 0')
        end(life, 'TERM')
        wait_refused(port)
        client.ask(*['/'] * 50)
        life.let_go()
        assert client.answer() == (True, b'at last')
        assert client.rest() == b''
        client.socket.close()
        assert life.wait() == 0
        assert [each for each in life.take_reports() if each.startswith(('begun', 'hello'))] \
            == ['begun 0']


def test_a_client_that_asks_without_end_does_not_delay_the_stop(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port) as life, ExitStack() as clients:
        all_of_them = [clients.enter_context(connect(port)) for _ in range(8)]
        for client in all_of_them:
            client.ask(*['/'] * 20)
        life.wait_report('hello')
        end(life, 'TERM')
        for client in all_of_them:
            answers = client.rest()
            assert answers.count(b'HTTP/1.1 200') == answers.count(b'hello')
            client.socket.close()
        assert life.wait() == 0


def test_a_kept_connection_is_told_before_it_is_closed_for_a_reload(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port) as life, connect(port) as kept:
        kept.ask('/')
        assert kept.answer() == (False, b'hello')
        end(life, 'HUP')
        kept.ask_until_told()
        assert kept.rest() == b''
        kept.socket.close()
        reloaded(life)
        assert life.program.stop() == 0


def test_a_server_for_all_rounds_keeps_connections_in_each(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Lasting', port) as life:
        for _ in range(3):
            with connect(port) as kept:
                for _ in range(2):
                    kept.ask('/')
                    assert kept.answer() == (False, b'hello')
            end(life, 'HUP')
            reloaded(life)
        assert life.program.stop() == 0


@pytest.mark.parametrize('path', ['/upload', '/streamed'])
def test_an_upload_in_progress_is_taken_and_answered(
    tmp_path: Path, port: int, path: str
) -> None:
    with serving(tmp_path, 'Listening', port) as life, connect(port) as client:
        client.send(f'POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n'
                    f'Expect: 100-continue\r\n\r\n'.encode())
        client.read_until(b'100 (Continue)\r\n\r\n')
        client.send(bytes(1000))
        end(life, 'TERM')
        wait_refused(port)
        client.send(bytes(2000))
        assert client.answer() == (True, b'3000 bytes')
        assert client.rest() == b''
        client.socket.close()
        assert life.wait() == 0


def test_a_request_whose_headers_have_just_been_read_is_answered(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port) as life, connect(port) as client, \
            connect(port) as other:
        other.ask('/')
        other.answer()
        client.ask('/provoking')
        life.wait_report('provoked')
        other.ask('/')
        life.let_go()
        assert other.answer() == (True, b'hello')
        other.socket.close()
        client.socket.close()
        assert life.wait() == 0


def test_headers_that_are_not_complete_begin_no_request(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Sharing', port) as life, connect(port) as client:
        client.send(b'GET / HTTP/1.1\r\nHost')
        with connect(port) as other:  # accepted after the first
            other.ask('/')
            other.answer()
        end(life, 'TERM')
        assert client.rest() == b''
        assert life.wait() == 0
        assert life.take_reports().count('hello') == 1


def test_a_handler_that_goes_on_after_its_answer_is_waited_for(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Listening', port) as life, connect(port) as client:
        client.ask('/afterwards')
        assert client.answer()[1] == b'accepted'
        life.wait_report('afterwards')
        end(life, 'TERM')
        assert client.rest() == b''
        client.socket.close()
        life.let_go()
        assert life.wait() == 0
        assert life.take_reports()[-2:] == ['stored', 'cleanup']


def test_a_program_that_stops_its_server_itself_is_drained_all_the_same(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'StoppingItself', port) as life, connect(port) as client:
        client.ask('/slow')
        life.wait_report('slow')
        end(life, 'TERM')
        wait_refused(port)
        life.let_go()
        assert client.answer() == (True, b'at last')
        client.socket.close()
        assert life.wait() == 0


def test_a_client_that_stays_after_its_last_answer_does_not_hold_up_the_stop(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Listening', port) as life, connect(port) as client:
        client.ask('/slow', '/')
        life.wait_report('slow')
        end(life, 'TERM')
        wait_refused(port)
        life.let_go()
        begin = time.monotonic()
        assert life.wait() == 0
        assert time.monotonic() - begin < 5
        assert client.answer() == (True, b'at last')


def test_tls(tmp_path: Path, port: int) -> None:
    authority = Authority(tmp_path)
    chain = tmp_path / 'chain.pem'
    certificate = authority.certify('localhost')
    chain.write_text(certificate.read_text() + certificate.with_suffix('.key').read_text())
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.verify_flags &= ~getattr(ssl, 'VERIFY_X509_STRICT', 0)
    context.check_hostname = False
    with serving(tmp_path, 'Encrypted', port, certificate=str(chain)) as life, \
            connect(port) as plain, connect(port) as silent:
        client = Client(context.wrap_socket(plain.socket))
        client.ask('/slow', '/')
        life.wait_report('slow')
        end(life, 'TERM')
        assert silent.rest() == b''  # it has not shaken hands
        life.let_go()
        assert client.answer() == (True, b'at last')
        client.socket.close()
        assert life.wait() == 0
        assert 'hello' not in life.take_reports()


@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_a_socket_in_the_file_system(tmp_path: Path, port: int, signum: str) -> None:
    path = str(tmp_path / 'socket')
    connected = socket.socket(socket.AF_UNIX)
    with serving(tmp_path, 'Sharing', port, listen=f'unix:{path}') as life, \
            Client(connected) as client:
        connected.connect(path)
        client.ask('/slow', '/')
        life.wait_report('slow')
        end(life, signum)
        life.wait_logged(f'SIG{signum}')
        life.let_go()
        assert client.answer() == (True, b'at last')
        assert client.rest() == b''
        client.socket.close()
        if signum == 'HUP':
            reloaded(life)
            end(life, 'TERM')
        assert life.wait() == 0
        assert 'hello' not in life.take_reports()
        assert not os.path.exists(path)


# Newcomers.

@pytest.mark.parametrize('workers', [1, 2])
def test_a_final_stop_refuses_newcomers_at_once(tmp_path: Path, port: int, workers: int) -> None:
    with serving(tmp_path, 'Sharing', port, workers=workers) as life, connect(port) as client:
        client.ask('/slow')
        life.wait_report('slow')
        end(life, 'TERM')
        wait_refused(port)
        life.let_go()
        assert client.answer() == (True, b'at last')
        client.socket.close()
        assert life.wait() == 0


def test_a_final_stop_closes_sockets_that_no_server_has_taken(tmp_path: Path, port: int) -> None:
    path = str(tmp_path / 'unused')
    with serving(tmp_path, 'Partly', port, more=(f'unix:{path}',)) as life, \
            connect(port) as client:
        client.ask('/slow')
        life.wait_report('slow')
        end(life, 'TERM')
        wait_refused(port)
        with socket.socket(socket.AF_UNIX) as newcomer, pytest.raises(ConnectionRefusedError):
            newcomer.connect(path)
        life.let_go()
        assert client.answer() == (True, b'at last')
        client.socket.close()
        assert life.wait() == 0


@pytest.mark.parametrize('controller', BOTH)
def test_newcomers_wait_for_the_next_round(tmp_path: Path, port: int, controller: str) -> None:
    with serving(tmp_path, controller, port) as life, connect(port) as busy:
        busy.ask('/slow')
        life.wait_report('slow')
        end(life, 'HUP')
        life.wait_logged('SIGHUP')
        with ExitStack() as clients:
            newcomers = [clients.enter_context(connect(port)) for _ in range(20)]
            for each in newcomers:
                each.ask('/')
            life.let_go()
            assert busy.answer() == (True, b'at last')
            reloaded(life)
            for each in newcomers:
                assert each.answer() == (False, b'hello')
        assert life.program.stop() == 0
        reports = life.take_reports()
        assert reports.index('hello') > reports.index('cleanup')


def test_a_stop_during_a_reload_refuses_those_who_wait(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Listening', port) as life, connect(port) as busy:
        busy.ask('/slow')
        life.wait_report('slow')
        end(life, 'HUP')
        life.wait_logged('SIGHUP')
        assert not is_refused(port)
        end(life, 'TERM')
        wait_refused(port)
        life.let_go()
        assert busy.answer() == (True, b'at last')
        busy.socket.close()
        assert life.wait() == 0
        assert len([each for each in life.take_reports() if each.startswith('ready')]) == 1


def test_a_reload_during_setup_leaves_no_server_behind(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Listening', port, held_at='setup', waits=False) as life:
        life.wait_report('setup')
        end(life, 'HUP')
        life.let_go()
        reloaded(life)
        with connect(port) as client:
            client.ask('/')
            assert client.answer() == (False, b'hello')
        assert life.program.stop() == 0


def test_another_address_in_the_next_round_is_not_in_the_way(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Moving', port) as life:
        end(life, 'HUP')
        reloaded(life)
        with socket.create_connection(('127.0.0.2', port)) as connected, \
                Client(connected) as client:
            client.ask('/')
            assert client.answer() == (False, b'hello')
        assert life.program.stop() == 0


# Deadlines.

@pytest.mark.parametrize('controller', BOTH)
@pytest.mark.parametrize('path', ['/events', '/flood', '/endless'])
def test_stop_timeout_bounds_what_a_reload_waits_for(
    tmp_path: Path, port: int, controller: str, path: str
) -> None:
    with serving(tmp_path, controller, port, timeout=1) as life, connect(port) as staying:
        staying.ask(path)
        life.wait_report({'/endless': 'begun'}.get(path, path[1:]))
        begin = time.monotonic()
        end(life, 'HUP')
        life.wait_logged('SIGHUP')
        with connect(port) as newcomer:
            newcomer.ask('/')
            assert newcomer.answer() == (False, b'hello')
        assert 0.9 < time.monotonic() - begin < 5
        line, = [each for each in life.log if 'abandoned' in each]
        assert re.fullmatch(r'WARNING clihelper abandoned \(at stop_timeout, 1 s\): '
                            r'1 request, [1-9]\.\d s old', line)
        assert life.program.stop() == 0
        if path == '/endless':
            reports = life.take_reports()
            assert reports.index('cancelled') < reports.index('cleanup')


def test_a_process_of_the_user_that_takes_too_long_is_cut_before_a_reload(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Working', port, timeout=0.2, waits=False) as life:
        life.wait_report('working')
        end(life, 'HUP')
        life.wait_report('working')
        assert life.logged('abandoned (at stop_timeout, 0.2 s): _process') == 1
        end(life, 'QUIT')
        assert life.wait() == 131


@pytest.mark.parametrize(('signums', 'timeout', 'status'), [
    (('TERM',), 0.3, 143),
    (('INT',), 0.3, 143),
    (('HUP', 'TERM'), 0.8, 143),
    (('TERM', 'TERM', 'HUP'), 0.5, 143),
    (('QUIT',), 60, 131),
    (('TERM', 'QUIT'), 60, 131),
    (('HUP', 'QUIT'), 60, 131),
    (('INT', 'INT'), 60, 130),
    (('TERM', 'INT'), 60, 130),
    (('HUP', 'INT', 'INT'), 60, 130),
])
@pytest.mark.parametrize('path', ['/flood', '/endless'])
def test_the_exit_status_with_a_request_in_progress(
    tmp_path: Path, port: int, signums: tuple[str, ...], timeout: float, status: int, path: str
) -> None:
    with serving(tmp_path, 'Sharing', port, timeout=timeout) as life, connect(port) as client:
        client.ask(path)
        life.wait_report('flood' if path == '/flood' else 'begun')
        end(life, *signums)
        assert life.wait() == status
        assert life.take_reports().count('cleanup') == 1
        line, = [each for each in life.log if 'abandoned' in each]
        assert ': 1 request, ' in line
        assert line.endswith(' s old')
        assert life.logged('Traceback') == 0
        assert life.logged('never retrieved') == 0


def test_code_that_stops_the_ioloop_does_not_end_cleanup(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'StoppingLoop', port) as life:
        end(life, 'TERM')
        assert life.wait() == 0
        assert life.take_reports()[-1] == 'cleanup'


def test_quit_in_a_handler_that_blocks_the_loop(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, 'Sharing', port) as life, connect(port) as client:
        client.ask('/blocking')
        life.wait_report('blocked')
        end(life, 'QUIT')
        assert life.wait() == 131
        assert life.take_reports()[-1] == 'cleanup'


# WebSockets.

@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_a_websocket_is_closed_with_1001_after_the_message_in_progress(
    tmp_path: Path, port: int, signum: str
) -> None:
    with serving(tmp_path, 'Listening', port) as life, connect(port) as idle, \
            connect(port) as busy:
        for client in (idle, busy):
            client.shake_hands()
            life.wait_report('open')
        busy.send_frame(1, b'slow')
        for _ in range(5):
            busy.send_frame(1, b'not begun')
        life.wait_report('answer')
        end(life, signum)
        assert idle.frame() == (8, struct.pack('>H', 1001) + b'going away')
        idle.send_frame(8, struct.pack('>H', 1001))
        assert idle.rest() == b''
        life.let_go()
        assert busy.frame() == (1, b'slow, too')
        assert busy.frame()[0] == 8
        busy.send_frame(8, struct.pack('>H', 1001))
        assert busy.rest() == b''
        if signum == 'HUP':
            reloaded(life)
            assert life.program.stop() == 0
        assert life.wait() == 0
        assert 'message not begun' not in life.take_reports()


def test_a_websocket_that_does_not_answer_its_close_is_not_waited_for_long(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port) as life, connect(port) as client:
        client.shake_hands()
        life.wait_report('open')
        begin = time.monotonic()
        end(life, 'TERM')
        assert life.wait() == 0
        assert time.monotonic() - begin < 4


# Other protocols.

def test_a_tcp_connection_ends_when_its_handler_waits_for_input_in_vain(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Speaking', port) as life, connect(port) as idle, \
            connect(port) as talking:
        for client in (idle, talking):
            client.send(b'hello\n')
            assert client.read_until(b'\n') == b'hello, too'
        end(life, 'TERM')
        wait_refused(port)
        for _ in range(10):  # longer than a silence that is taken for the end
            talking.send(b'b')
            time.sleep(0.1)
        talking.send(b'\n')
        assert talking.read_until(b'\n') == b'bbbbbbbbbb, too'
        assert idle.rest() == b''
        assert life.wait() == 0
        assert life.take_reports().count('line bbbbbbbbbb') == 1


@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_a_tcp_handler_that_works_is_waited_for(tmp_path: Path, port: int, signum: str) -> None:
    with serving(tmp_path, 'Speaking', port) as life, connect(port) as client:
        client.send(b'slow\n')
        life.wait_report('computing')
        end(life, signum)
        life.wait_logged(f'SIG{signum}')
        time.sleep(0.8)  # longer than a silence that is taken for the end
        life.let_go()
        assert client.read_until(b'\n') == b'slow, too'
        assert client.rest() == b''
        if signum == 'HUP':
            reloaded(life)
            end(life, 'TERM')
        assert life.wait() == 0


# Workers.

def test_a_worker_that_is_replaced_tells_a_kept_connection_before_it_closes_it(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port, workers=2) as life, connect(port) as kept:
        kept.ask('/')
        assert kept.answer() == (False, b'hello')
        life.wait_report('hello')  # whose process it is now that has the connection
        life.signal('TERM')
        kept.ask_until_told()
        assert kept.rest() == b''
        reloaded(life)
        assert life.program.stop() == 0


def test_workers_close_kept_connections_at_once_when_the_service_stops(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port, workers=2) as life, connect(port) as kept:
        kept.ask('/')
        kept.answer()
        end(life, 'TERM')
        wait_refused(port)
        with suppress(ConnectionError):
            kept.ask('/')
            assert kept.rest() == b''
        assert life.wait() == 0
        assert life.take_reports().count('hello') == 1


def test_a_reload_of_workers_costs_each_client_one_connection_of_which_it_is_told(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, 'Sharing', port, workers=3) as life:
        clients = [connect(port) for _ in range(6)]
        for _ in range(2):
            end(life, 'HUP')
            closed = [0] * len(clients)
            begun = ended = 0
            while begun < 3 or ended < 3:
                for number, client in enumerate(clients):
                    client.ask('/')
                    closes, body = client.answer()
                    assert body == b'hello'
                    if closes:
                        assert client.rest() == b''
                        client.socket.close()
                        clients[number] = connect(port)
                        closed[number] += 1
                reports = new_reports(life)
                begun += sum(each.startswith('ready') for each in reports)
                ended += reports.count('cleanup')
            assert closed == [1] * len(clients)
        for client in clients:
            client.socket.close()
        assert life.program.stop() == 0


def new_reports(life: Life) -> list[str]:
    """What it has reported since the last time."""
    before = len(life.reported)
    return life.take_reports()[before:]
