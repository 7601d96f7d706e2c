"""What a program does with the addresses of several nodes, and when a node of a cluster fails."""

from __future__ import annotations

import contextlib
import sys
import time

import kombu
import pytest

import clihelper
from benchmarks.programs import Workshop
from clihelper.amqp.client import Client
from clihelper.amqp.connection import Connection, Unreachable
from clihelper.testing import Program
from faults.cluster import (
    CUT_OFF,
    HEARTBEAT,
    LEADER_KILLED,
    LONGEST_GAP,
    QUICK_FAULTS,
    QUICK_MESSAGES,
    Outages,
)
from tests.broker import _free_ports
from tests.cluster import Cluster
from tests.faults import PROGRAM, goes_on, logged, take, write
from tests.proxy import Proxy

SOON = 1.5
"""seconds that connecting to another node, declaring and consuming may take"""

QUICK = """
[{rabbit, [{quorum_tick_interval, 1000},
           {dead_letter_worker_publisher_confirm_timeout, 3000}]}].
"""
"""for a quorum queue that counts its messages, or finds that one was not moved to another queue"""

CONFIRMATION = b'\0\x3c\0\x50'
"""class and method of basic.ack"""

CLOSE = b'\1\0\0\0\0\0\x0b' + b'\0\x0a\0\x32' + b'\x01\x40\0' + b'\0\0\0\0' + b'\xce'
"""connection.close with the code 320: AMQP 0-9-1, section 1.4.2.8"""


@pytest.fixture(scope='module')
def cluster():
    with Cluster(advanced_config=QUICK) as cluster:
        yield cluster


@pytest.fixture
def channel(cluster):
    url = cluster.nodes[1].url()
    with kombu.Connection(url) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def start(tmp_path, queue_name):
    """Starts a consumer of a queue with these addresses."""

    @contextlib.contextmanager
    def start(*urls, more='', **options):
        config = write(tmp_path, f'[{", ".join(urls)}]', queue_name, more)
        with Program([sys.executable, PROGRAM, '-c', config, '-f'], **options) as program:
            yield program

    return start


def nobody(count):
    """Addresses at which nobody listens."""
    return [f'amqp://guest:guest@127.0.0.1:{port}/%2F' for port in _free_ports(count)]


# Several addresses.

def test_each_address_is_tried_before_anything_is_waited_for(cluster, start):
    urls = [*nobody(2), cluster.nodes[0].url()]
    with start(*urls, more='  wait_for_broker: false\n', watchdog=10) as program:
        for _ in urls[:-1]:
            program.wait_notified('WATCHDOG')
        program.wait_ready()
        assert logged(program, 'refused; next attempt at once') == 2


def test_when_all_addresses_were_tried_none_is_left():
    connection = Connection(nobody(2), 0, 'test')
    for left in (True, False, True, False):
        with pytest.raises(Unreachable):
            connection.open()
        assert connection.has_untried is left


def test_a_program_that_does_not_wait_for_a_broker_has_tried_all_addresses(start):
    urls = nobody(3)
    with start(*urls, more='  wait_for_broker: false\n') as program:
        assert program.wait() == 69
        assert logged(program, 'no broker') == 2
        assert logged(program, f'AMQP.url: {urls[2].replace("guest@", "**@")}')


def test_a_silent_node_is_not_asked_again_before_the_others(cluster, start, figure):
    first, second = (Proxy(node.port) for node in cluster.nodes[:2])
    with first, second, start(first.url, second.url) as program:
        program.wait_ready()
        first.swallow()
        program.wait_line('the broker has been silent')
        began = time.monotonic()
        program.wait_line(f'consuming .*:{second.port}/')
        took = time.monotonic() - began
        assert took < SOON
        assert first.connects == 1
    figure('silent node: consuming from another after', f'{took:.2f} s')


def test_a_pipeline_without_a_broker_says_that_the_first_message_was_not_taken():
    def connect():
        return Connection(nobody(2), 0, 'test')

    client = Client(connect(), contextlib.nullcontext, connect)
    with pytest.raises(clihelper.PublishError) as caught:
        client.pipeline().publish('a', routing_key='anywhere')
    [(number, why)] = caught.value.failed
    assert number == 0
    assert 'refused' in why
    assert not caught.value.unknown


def test_what_is_confirmed_just_before_the_connection_ends_is_not_unknown(
    cluster, channel, queue_name
):
    """A node that is stopped closes connections, and the confirmation is in the same packet."""
    channel.queue_declare(queue_name, durable=True, auto_delete=False)

    def close_behind_confirmation(data):
        return data + CLOSE if CONFIRMATION in data else data

    with Proxy(cluster.nodes[0].port) as proxy:
        connection = Connection([proxy.url], 0, 'test')
        client = Client(connection, contextlib.nullcontext, lambda: connection)
        proxy.alter = close_behind_confirmation
        client.publish('a', '', queue_name, {})
        assert not connection.is_open
        client.close()
    assert [message.payload for message in take(channel, queue_name)] == ['a']


# Nodes that fail.

def test_a_queue_whose_node_is_down_is_waited_for(cluster, channel, start, queue_name):
    """A classic queue is on one node. RabbitMQ 4 itself waits for that, for more than a minute."""
    node, *others = cluster.nodes
    with kombu.Connection(node.url()) as connection, connection.channel() as home:
        home.queue_declare(queue_name, durable=True, auto_delete=False)
    urls = [each.url() for each in others]
    connection = Connection(urls, 0, 'test')
    client = Client(connection, contextlib.nullcontext, lambda: connection)
    down = rf'home node .{node.name}.* is down or inaccessible|no answer'
    node.kill()
    with start(*urls) as program:
        try:
            program.wait_line(f'lost the broker: .*({down})')
            with pytest.raises(ConnectionError, match=down):
                client.queue_depth(queue_name)
        finally:
            node.start()
        program.signal('HUP')  # the next attempt at once
        goes_on(program, channel, queue_name)
        assert client.queue_depth(queue_name) == 0
    client.close()


def test_nothing_is_lost_whichever_node_fails(cluster, tmp_path, figure):
    """The short form of ``make faults ARGS=cluster``; about 25 s."""
    with Workshop(str(tmp_path)) as workshop:
        outages = Outages(workshop, cluster, QUICK_MESSAGES, QUICK_FAULTS)
        outages.run()
    handled = outages.handled()
    assert {number for number, _ in handled} == set(range(outages.messages))
    assert len(handled) - outages.messages <= outages.allowed
    assert outages.remaining() == {}
    gaps = outages.gaps([when for _, when in handled])
    longest = {fault: max(gaps[fault], default=0.0) for fault in outages.faults}
    assert longest[LEADER_KILLED] < LONGEST_GAP
    assert longest[CUT_OFF] < 2 * HEARTBEAT + SOON
    for fault, seconds in longest.items():
        figure(f'{fault}: longest without consuming', f'{seconds:.2f} s')
