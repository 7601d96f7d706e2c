"""The tests' own RabbitMQ node does what tests of faults ask of it."""

from __future__ import annotations

import os
import socket

import kombu
import pytest

from tests.broker import Broker


def connect(broker: Broker, vhost: str = '/') -> kombu.Connection:
    return kombu.Connection(broker.url(vhost), transport_options={'confirm_publish': True})


def test_the_url_of_a_virtual_host_leads_to_it(broker: Broker) -> None:
    broker.ctl('add_vhost', 'a/b')
    broker.ctl('set_permissions', '--vhost', 'a/b', 'guest', '', '', '')
    with connect(broker, 'a/b') as connection:
        connection.connect()
        assert 'a/b' in broker.ctl('list_connections', 'vhost').split()


def test_ctl_raises_with_what_it_printed_when_it_fails(broker: Broker) -> None:
    with pytest.raises(RuntimeError, match='nonesuch'):
        broker.ctl('delete_vhost', 'nonesuch')


def test_a_persistent_message_outlives_a_crash(broker: Broker, queue_name: str) -> None:
    with connect(broker) as connection:
        connection.SimpleQueue(queue_name).put('kept', delivery_mode=2)
    broker.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', broker.port))
    broker.start()
    with connect(broker) as connection:
        assert connection.SimpleQueue(queue_name).get(timeout=10).payload == 'kept'


def test_a_paused_node_accepts_a_connection_and_answers_once_resumed(broker: Broker) -> None:
    broker.pause()
    try:
        with socket.create_connection(('127.0.0.1', broker.port), timeout=0.5) as client:
            client.sendall(b'AMQP\0\0\x09\x01')
            with pytest.raises(TimeoutError):
                client.recv(1)
            broker.resume()
            client.settimeout(10)
            assert client.recv(1) == b'\x01'  # a method frame: Connection.Start
    finally:
        broker.resume()


def test_a_node_that_cannot_start_says_why_and_leaves_nothing_behind() -> None:
    broker = Broker(config='no.such.key = 1')
    with pytest.raises(RuntimeError, match='no.such.key'), broker:
        pass
    assert not os.path.exists(broker.directory)
