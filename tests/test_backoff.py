"""When a broker that was lost, or refuses, is asked again."""

from __future__ import annotations

import pytest

from clihelper.amqp.connection import STABLE, BrokerBackoff, Connection, Unreachable
from clihelper.backoff import when
from tests.peer import Peer


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr('clihelper.amqp.connection.time', clock)
    return clock


@pytest.fixture
def connection():
    """One whose delays are the longest that there may be."""
    with Peer() as peer:
        connection = Connection([peer.url], 0, 'test')
        connection._backoff = BrokerBackoff(uniform=lambda low, high: high)
        yield connection
        connection.drop()


def lost(connection):
    connection.drop()
    return connection.delay()


def test_a_broker_that_refuses_is_asked_ever_less_often(clock, connection):
    delays = []
    for _ in range(7):
        connection.open()
        clock.now += 0.1
        delays.append(lost(connection))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    clock.now += 60
    for _ in range(5):
        connection.open()
        delay = lost(connection)
    assert delay == 30


def test_half_of_the_delay_is_waited_in_any_case():
    backoff = BrokerBackoff(uniform=lambda low, high: low)
    assert [backoff.next(1, refused=True) for _ in range(3)] == [0.05, 0.1, 0.2]
    assert backoff.next(1) == 0


def test_one_that_serves_is_asked_soon(clock, connection):
    for _ in range(5):
        connection.open()
        lost(connection)
    connection.open()
    connection.serves()
    clock.now += STABLE + 100
    assert lost(connection) == 0.1
    connection.open()
    assert lost(connection) == 0.1


def test_one_that_serves_for_a_moment_is_not_stable(clock, connection):
    """But it is no stranger either: it is asked about once a second."""
    delays = []
    for _ in range(20):
        connection.open()
        connection.serves()
        clock.now += STABLE - 1
        delays.append(lost(connection))
    assert delays == [0.1, 0.2, 0.4, 0.8] + [1.0] * 16


def test_consuming_counts_once(clock, connection):
    """It is no excuse for what is refused later."""
    connection.open()
    connection.serves()
    clock.now += 3600
    delays = [lost(connection)]
    for _ in range(3):
        connection.open()
        clock.now += 10
        delays.append(lost(connection))
    assert delays == [0.1, 0.1, 0.2, 0.4]


def test_after_one_that_refuses_another_one_is_tried():
    with Peer() as first, Peer() as second:
        connection = Connection([first.url, second.url], 0, 'test')
        for expected in (first, second, first):
            connection.open()
            assert connection.shown().endswith(f':{expected.port}/%2F')
            lost(connection)
        connection.open()
        assert connection.shown().endswith(f':{second.port}/%2F')
        connection.serves()
        lost(connection)
        connection.open()  # it may be silent from now on
        assert connection.shown().endswith(f':{first.port}/%2F')
        connection.drop()


def test_one_that_cannot_be_reached_has_not_refused(clock, connection):
    connection.open()
    lost(connection)
    connection._urls = ['amqp://127.0.0.1:1']
    delays = []
    for _ in range(5):
        with pytest.raises(Unreachable):
            connection.open()
        delays.append(connection.delay())
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.0]


@pytest.mark.parametrize(('delay', 'words'), [
    (0.0, 'at once'), (0.004, 'at once'), (0.006, 'in 0.01 s'), (0.25, 'in 0.25 s'),
    (30, 'in 30.00 s'),
])
def test_a_delay_in_words(delay, words):
    assert when(delay) == words
