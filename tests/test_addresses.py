"""A broker whose name has several addresses, some of which lead nowhere."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time

import kombu
import pytest

from clihelper.amqp import resolver
from clihelper.amqp.connection import CONNECT_TIMEOUT
from clihelper.testing import Program
from tests.faults import PROGRAM, goes_on, write
from tests.proxy import Proxy


class BlackHole:
    """A port at which the kernel drops whoever knocks: nobody accepts, and the queue is full."""

    def __init__(self, address, port=0):
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind((address, port))
        self._server.listen(0)
        self.address = self._server.getsockname()
        self._waiting = []

    def __enter__(self):
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(self.address)
            self._waiting.append(client)
        with socket.socket() as probe:
            probe.settimeout(0.1)
            with pytest.raises(TimeoutError):
                probe.connect(self.address)
        return self

    def __exit__(self, *_):
        for each in (self._server, *self._waiting):
            each.close()


@pytest.fixture
def hole():
    with BlackHole('127.0.0.1') as hole:
        yield hole.address


@pytest.fixture
def server():
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield server


@pytest.fixture
def closed():
    """An address at which nobody listens."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()


@pytest.fixture
def resolve(monkeypatch):
    """Gives a name its addresses, which may be of different ports here."""

    def set_addresses(*addresses):
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        found = [
            (families[':' in each[0]], socket.SOCK_STREAM, 6, '', each) for each in addresses
        ]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: found)

    return set_addresses


def connected_to(seconds=5):
    with resolver.connect('broker.test', 1, seconds) as sock:
        return sock.getpeername()


@pytest.fixture
def descriptors():
    """No attempt leaves a descriptor behind."""
    before = set(os.listdir('/proc/self/fd'))
    yield
    assert set(os.listdir('/proc/self/fd')) <= before


@pytest.mark.usefixtures('descriptors')
def test_the_second_address_is_tried_while_the_first_is_silent(hole, server, resolve):
    resolve(hole, server.getsockname())
    began = time.monotonic()
    assert connected_to(seconds=30) == server.getsockname()
    assert resolver.STAGGER - 0.05 < time.monotonic() - began < 30 / 2


def test_each_of_many_addresses_has_its_share_of_the_time(hole, server, resolve):
    resolve(*[hole] * 20, server.getsockname())
    assert connected_to(seconds=2) == server.getsockname()


def test_an_address_that_refuses_costs_no_time(closed, server, resolve):
    resolve(*[closed] * 20, server.getsockname())
    began = time.monotonic()
    assert connected_to(seconds=30) == server.getsockname()
    assert time.monotonic() - began < 20 * resolver.STAGGER


def test_the_first_address_wins_where_it_answers(server, resolve):
    with socket.create_server(('127.0.0.1', 0)) as other:
        resolve(server.getsockname(), other.getsockname())
        assert connected_to() == server.getsockname()
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_an_attempt_that_has_begun_goes_on(resolve):
    """The first address answers late: after the second, which is silent, was tried."""
    with BlackHole('127.0.0.1') as late, BlackHole('127.0.0.1') as silent:
        resolve(late.address, silent.address)

        def accept():
            for _ in range(2):
                late._server.accept()[0].close()

        threading.Timer(0.4, accept).start()
        assert connected_to() == late.address


@pytest.mark.usefixtures('descriptors')
def test_none_that_answers_is_an_error_in_time(hole, closed, resolve):
    resolve(hole, hole)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match='timed out'):
        connected_to(seconds=0.5)
    assert 0.4 < time.monotonic() - began < 10
    resolve(closed, closed)
    with pytest.raises(ConnectionRefusedError):
        connected_to()
    resolve()
    with pytest.raises(TimeoutError, match='no address'):
        connected_to()


def test_an_address_that_this_machine_has_no_way_to_is_passed_over(server, resolve):
    resolve(('fe80::1', 1, 0, 0), ('255.255.255.255', 1), server.getsockname())
    assert connected_to() == server.getsockname()


def test_families_alternate():
    four, six = socket.AF_INET, socket.AF_INET6
    given = [(six, 1), (six, 2), (six, 3), (four, 4), (four, 5)]
    assert resolver.alternating(given) == [(six, 1), (four, 4), (six, 2), (four, 5), (six, 3)]


@contextlib.contextmanager
def two_addresses(tmp_path, broker):
    """A name of which the first address is a black hole, and the second a way to the broker.

    The first is the one that the system prefers: that of this machine's own connections.
    """
    hosts = tmp_path / 'hosts'
    hosts.write_text('127.77.0.2 broker.test\n127.0.0.1 broker.test\n')
    words = ['unshare', '-m', 'sh', '-c', f'mount --bind {hosts} /etc/hosts && exec "$@"', 'sh']
    with Proxy(broker.port, '127.77.0.2') as proxy, BlackHole('127.0.0.1', proxy.port):
        yield words, proxy


@pytest.mark.root
def test_a_consumer_finds_the_address_that_works(tmp_path, broker, queue_name, figure):
    with two_addresses(tmp_path, broker) as (words, proxy):
        config = write(tmp_path, f'amqp://broker.test:{proxy.port}', queue_name)
        with (
            Program([*words, sys.executable, PROGRAM, '-c', config, '-f']) as program,
            kombu.Connection(broker.url()) as connection,
            connection.channel() as channel,
        ):
            program.wait_ready(30)
            proxy.reset()
            began = time.monotonic()
            goes_on(program, channel, queue_name)
            took = f'{time.monotonic() - began:.2f} s'
            figure('the first of two addresses a black hole: handling again after', took)
            assert program.stop() == 0


@pytest.mark.root
def test_a_stop_does_not_wait_for_addresses_that_are_silent(tmp_path, queue_name):
    hosts = tmp_path / 'hosts'
    hosts.write_text('127.0.0.1 broker.test\n127.77.0.3 broker.test\n')
    words = ['unshare', '-m', 'sh', '-c', f'mount --bind {hosts} /etc/hosts && exec "$@"', 'sh']
    with BlackHole('127.0.0.1') as first, BlackHole('127.77.0.3', first.address[1]) as second:
        config = write(tmp_path, f'amqp://broker.test:{first.address[1]}', queue_name)
        with Program([*words, sys.executable, PROGRAM, '-c', config, '-f']) as program:
            end = time.monotonic() + 10
            while knocking(program.pid) < 2:
                assert time.monotonic() < end, second
                time.sleep(0.02)
            began = time.monotonic()
            program.signal('TERM')
            assert program.wait() == 75
            assert time.monotonic() - began < CONNECT_TIMEOUT - 1


def knocking(pid):
    """How many connections a process tries to make: SYN_SENT, 2, in proc(5)'s net/tcp."""
    inodes = set()
    for name in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f'/proc/{pid}/fd/{name}'))
    with open(f'/proc/{pid}/net/tcp') as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[3] == '02' and f'socket:[{row[9]}]' in inodes for row in rows)
