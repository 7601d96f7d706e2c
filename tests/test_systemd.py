"""The protocol of sd_notify(3), from the manager's end of the socket."""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clihelper.process.systemd import Notifier
from tests.forking import fork, status_of


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's socket. What was sent is there at once: nothing has to be waited for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / 'notify'))
        manager.setblocking(False)
        yield manager


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier.from_environment({'NOTIFY_SOCKET': manager.getsockname()})
    yield notifier
    notifier.close()


def fill(manager: socket.socket) -> None:
    """Leave no room in the manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.connect(manager.getsockname())
        other.setblocking(False)
        while select.select([], [other], [], 0)[1]:
            other.send(b'STATUS=filled')


@pytest.mark.parametrize(('method', 'arguments', 'message'), [
    ('ready', (), b'READY=1'),
    ('ready', ('at work',), b'READY=1\nSTATUS=at work'),
    ('status', ('3 orders',), b'STATUS=3 orders'),
    ('status', ('',), b'STATUS='),
    ('stopping', (), b'STOPPING=1'),
    ('stopping', ('draining',), b'STOPPING=1\nSTATUS=draining'),
    ('watchdog', (), b'WATCHDOG=1'),
    ('extend_timeout', (2.5,), b'EXTEND_TIMEOUT_USEC=2500000'),
])
def test_each_method_sends_one_datagram(
    manager: socket.socket, notifier: Notifier, method: str, arguments: tuple[object, ...],
    message: bytes,
) -> None:
    assert getattr(notifier, method)(*arguments) is True
    assert manager.recv(4096) == message
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_reloading_carries_the_monotonic_time_in_the_same_datagram(
    manager: socket.socket, notifier: Notifier
) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading('reading')
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reloading, usec, status = manager.recv(4096).split(b'\n')
    assert (reloading, status) == (b'RELOADING=1', b'STATUS=reading')
    assert usec.startswith(b'MONOTONIC_USEC=')
    assert before <= int(usec.removeprefix(b'MONOTONIC_USEC=')) <= after


def test_a_status_cannot_add_lines_of_its_own(
    manager: socket.socket, notifier: Notifier
) -> None:
    notifier.status('one\nSTOPPING=1\r\nthree')
    assert manager.recv(4096) == b'STATUS=one STOPPING=1 three'


def test_a_long_status_is_cut_between_characters_and_below_the_managers_limit(
    manager: socket.socket, notifier: Notifier
) -> None:
    notifier.reloading('x' + 'é' * 5000)
    message = manager.recv(65536)
    assert len(message) <= 4096
    assert message.decode().endswith('éé')


def test_a_status_that_is_no_unicode_text_is_sent_all_the_same(
    manager: socket.socket, notifier: Notifier
) -> None:
    assert notifier.status('caf\udce9')
    assert manager.recv(4096) == b'STATUS=caf?'


def test_an_abstract_socket_is_reached() -> None:
    name = f'clihelper-test-{os.getpid()}'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind('\0' + name)
        manager.setblocking(False)
        assert Notifier.from_environment({'NOTIFY_SOCKET': '@' + name}).ready()
        assert manager.recv(4096) == b'READY=1'


@pytest.mark.parametrize('environ', [
    {}, {'NOTIFY_SOCKET': ''}, {'NOTIFY_SOCKET': 'relative'}, {'NOTIFY_SOCKET': 'vsock:2:1'},
])
def test_without_a_socket_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environment(environ | {'WATCHDOG_USEC': '1000000'})
    assert not notifier.enabled
    assert notifier.watchdog_interval is None
    assert [notifier.ready(), notifier.reloading(), notifier.watchdog()] == [False] * 3


@pytest.mark.parametrize('address', ['/nonexistent/notify', '/' + 'x' * 200, '/dev/null'])
def test_a_manager_that_cannot_be_reached_is_no_error(address: str) -> None:
    assert Notifier(address).ready() is False


def test_a_full_socket_delays_nobody_and_works_again_when_it_is_read(
    manager: socket.socket, notifier: Notifier
) -> None:
    fill(manager)
    started = time.monotonic()
    assert not any(notifier.status('dropped') for _ in range(100))
    assert time.monotonic() - started < 0.5
    while manager.recv(4096) != b'STATUS=filled':
        pass
    assert notifier.stopping() is True


def test_a_program_without_free_descriptors_feeds_its_watchdog(
    manager: socket.socket, notifier: Notifier
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match='Too many open files'):
            os.open('/dev/null', os.O_RDONLY)
        assert notifier.watchdog() is True
        late = Notifier(manager.getsockname())
        assert late.ready() is False
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert late.ready() is True


def test_a_child_can_send_and_is_not_watched(manager: socket.socket) -> None:
    notifier = Notifier.from_environment({
        'NOTIFY_SOCKET': manager.getsockname(),
        'WATCHDOG_USEC': '3000000', 'WATCHDOG_PID': str(os.getpid()),
    })
    assert notifier.watchdog_interval == 3

    def send() -> None:
        assert notifier.ready()
        assert notifier.watchdog_interval is None

    assert status_of(fork(send)) == 0
    assert manager.recv(4096) == b'READY=1'


@pytest.mark.parametrize(('environ', 'interval'), [
    ({}, None),
    ({'WATCHDOG_USEC': '20000000'}, 20),
    ({'WATCHDOG_USEC': '1'}, 0.000001),
    ({'WATCHDOG_USEC': '0'}, None),
    ({'WATCHDOG_USEC': ''}, None),
    ({'WATCHDOG_USEC': '-5'}, None),
    ({'WATCHDOG_USEC': 'soon'}, None),
    ({'WATCHDOG_USEC': '9' * 5000}, None),
    ({'WATCHDOG_USEC': '20000000', 'WATCHDOG_PID': '1'}, None),
    ({'WATCHDOG_USEC': '20000000', 'WATCHDOG_PID': ''}, None),
    ({'WATCHDOG_USEC': '20000000', 'WATCHDOG_PID': str(os.getpid())}, 20),
])
def test_the_watchdog_interval_is_what_the_manager_set_for_this_process(
    environ: dict[str, str], interval: float | None
) -> None:
    notifier = Notifier.from_environment(environ | {'NOTIFY_SOCKET': '/nonexistent'})
    assert notifier.watchdog_interval == interval


def test_a_closed_notifier_sends_nothing_and_holds_no_descriptor(
    manager: socket.socket
) -> None:
    before = os.listdir('/proc/self/fd')
    notifier = Notifier(manager.getsockname())
    assert len(os.listdir('/proc/self/fd')) == len(before) + 1
    notifier.close()
    assert os.listdir('/proc/self/fd') == before
    assert notifier.ready() is False


def test_the_environment_is_left_as_it_is(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('NOTIFY_SOCKET', manager.getsockname())
    assert Notifier.from_environment().ready()
    assert os.environ['NOTIFY_SOCKET'] == manager.getsockname()


def test_the_socket_module_is_loaded_only_where_there_is_a_manager() -> None:
    code = 'import sys; from clihelper.process.systemd import Notifier; ' \
           'Notifier.from_environment(); print("socket" in sys.modules)'
    for address, loaded in (('', 'False'), ('/nonexistent', 'True')):
        done = subprocess.run(
            [sys.executable, '-c', code], env=os.environ | {'NOTIFY_SOCKET': address},
            capture_output=True, text=True, check=True,
        )
        assert done.stdout.strip() == loaded
