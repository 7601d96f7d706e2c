"""What differs by the version of RabbitMQ: each test holds on all of them."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import kombu
import pytest

from clihelper.amqp.declarer import Declarer
from clihelper.testing import Program
from tests.frames import frame, short
from tests.peer import Peer

STUBBORN = str(Path(__file__).parent / 'programs' / 'stubborn.py')


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration of one queue; returns its path."""

    def write(options, url=None):
        path = tmp_path / 'app.yml'
        path.write_text(
            f'AMQP:\n  url: {url or broker.url()}\n  queues: {{{queue_name}: {options}}}\n')
        return str(path)

    return write


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


def consuming(config):
    return Program([sys.executable, STUBBORN, '-c', config, '-f'])


def fails(config):
    """Run the consumer to its end, for the broker's sake; its one line."""
    with consuming(config) as program:
        assert program.wait(30) == 69
        [line] = [line for line in program.stderr if line.startswith('stubborn: ')]
        return line.removeprefix('stubborn: ')


DENIED = (
    'INTERNAL_ERROR - Feature `{}` is deprecated.\nIts use is not permitted per the configuration'
    ' (overriding the default, which is permitted):\n    "deprecated_features.permit.{} = false"'
)


@pytest.mark.parametrize(('feature', 'said'), [
    ('transient_nonexcl_queues',
     'a queue that is neither durable nor exclusive: its deprecated feature'
     ' transient_nonexcl_queues'),
    ('another_one', 'it: its deprecated feature another_one'),
])
def test_a_feature_that_is_not_permitted_is_an_error_of_the_user(
    configure, queue_name, feature, said
):
    def deny(peer, channel, payload):
        if payload.startswith(struct.pack('>HH', 50, 10)):
            text = DENIED.format(feature, feature)[:252] + '...'
            peer.send(frame(1, 0, struct.pack('>HHH', 10, 50, 541) + short(text) + bytes(4)))
            return True
        return False

    with Peer(on_method=deny) as peer:
        line = fails(configure('{durable: false}', peer.url))
    assert line == f'AMQP.queues.{queue_name}: the broker does not permit {said}'


def test_another_internal_error_is_a_lost_connection(configure):
    def fail(peer, channel, payload):
        if payload.startswith(struct.pack('>HH', 50, 10)) and not peer.failed:
            peer.failed = True
            peer.send(frame(1, 0, struct.pack('>HHH', 10, 50, 541) + short('oh') + bytes(4)))
            return True
        return False

    with Peer(on_method=fail) as peer:
        peer.failed = False
        with consuming(configure('{}', peer.url)) as program:
            program.wait_line('lost the broker: 541 oh; next attempt')
            program.wait_ready(30)


def test_the_broker_is_asked_whether_it_permits_it(configure, channel, queue_name):
    """RabbitMQ 4.3 does not permit this by default, earlier ones do."""
    config = configure('{arguments: {x-queue-master-locator: min-masters}}')
    if Declarer(channel, ()).version >= (4, 3):
        assert fails(config) == (
            f'AMQP.queues.{queue_name}: the broker does not permit x-queue-master-locator:'
            ' its deprecated feature queue_master_locator')
    else:
        with consuming(config) as program:
            program.wait_ready(30)


def test_a_consumer_that_the_broker_cancels_is_told_with_what_may_be_the_reason(
    configure, channel, queue_name
):
    """From RabbitMQ 4.3 on that happens at a time-out of a quorum queue, too."""
    with consuming(configure('{}')) as program:
        program.wait_ready(30)
        channel.queue_delete(queue_name)
        program.wait_line('lost the broker: it has cancelled a consumer: the queue was deleted')
        program.wait_line(f'consuming {queue_name} ')
