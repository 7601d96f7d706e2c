"""What is read, decoded, copied, encoded or rendered for one message fails for that one alone."""

from __future__ import annotations

import io
import logging
import struct
import time

import pytest

import clihelper
from clihelper.amqp import exception_text, properties, settlement
from clihelper.amqp.acknowledgement import Acknowledger
from clihelper.amqp.connection import Connection
from clihelper.amqp.frames import Delivery
from clihelper.amqp.message import Message, decode
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.settlement import Outcome, Undecodable
from clihelper.logs import JSONFormatter
from clihelper.testing import Harness
from tests.faults import send, take
from tests.oddities import EXCEPTIONS, RESULTS
from tests.raw import PUBLISH, Client, Closed, content, method, short
from tests.test_acknowledgement import Channel
from tests.test_outcomes import (  # noqa: F401 (fixtures)
    ONCE,
    TWICE,
    channel,
    configure,
    consuming,
    ends_well,
    send_packed,
)

CONFIG = {'AMQP': {'queues': {'q': {}}, 'retry': {'attempts': 2, 'delay': 1}}}


class Odd(clihelper.ConsumerController):
    """Does what the test says."""

    do = staticmethod(lambda message: None)

    def on_message(self, body, message):
        return self.do(message)


@pytest.fixture
def harness():
    with Harness(Odd, CONFIG) as harness:
        yield harness


class Strict(logging.StreamHandler):
    """A handler that does not keep to itself what it cannot write."""

    def handleError(self, record):  # noqa: N802
        raise


@pytest.fixture
def log():
    """The log as text, and as JSON, into one stream that takes no lone surrogates."""
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, 'utf-8', write_through=True)
    logger = logging.getLogger('clihelper')
    handlers = [Strict(stream), Strict(stream)]
    handlers[1].setFormatter(JSONFormatter())
    for handler in handlers:
        logger.addHandler(handler)
    yield data
    for handler in handlers:
        logger.removeHandler(handler)


def raising(name):
    def do(message):
        raise EXCEPTIONS[name]()

    return do


# Exceptions

@pytest.mark.parametrize('name', EXCEPTIONS)
def test_a_message_is_settled_whatever_its_handler_raises(harness, log, name):
    harness.controller.do = raising(name)
    first = harness.deliver('x')
    if first.outcome is not Outcome.REQUEUE:
        assert first.settling, 'neither put aside nor dead-lettered'
        assert harness.deliver('x', attempts=2).dead_letter is not None
    assert len(log.getvalue()) < 1_000_000
    harness.controller.do = lambda message: None
    assert harness.deliver('good').outcome is Outcome.ACK


@pytest.mark.parametrize(
    ('name', 'outcome'),
    [
        ('Requeue', Outcome.REQUEUE),
        ('its class is another', Outcome.RETRY),  # and the one that it poses as is Requeue
        ('it has an attribute stopped', Outcome.RETRY),
        ('stopped raises', Outcome.RETRY),
        ('Reject of much', Outcome.DEAD_LETTER),
        ('str() is lost', Outcome.RETRY),
        ('str() interrupts', Outcome.RETRY),
    ],
)
def test_an_exception_counts_by_its_class(harness, name, outcome):
    harness.controller.do = raising(name)
    assert harness.deliver('x').outcome is outcome


@pytest.mark.parametrize('name', [name for name in EXCEPTIONS if name.startswith('Retry')])
def test_a_delay_that_is_none_is_the_usual_one(harness, name):
    harness.controller.do = raising(name)
    given = {'Retry': 'q.retry.0.01s', 'Retry at once': 'q',
             'Retry, a delay that is a decimal': 'q.retry.0.01s'}  # fmt: skip
    assert harness.deliver('x').retry.routing_key == given.get(name, 'q.retry.1s')


def test_what_cannot_be_logged_is_logged_by_what_stands_for_it(log):
    def shown(name):
        try:
            raise EXCEPTIONS[name]()
        except BaseException as error:
            return exception_text.loggable(error)

    assert isinstance(shown('ValueError'), ValueError)
    for name, line in {
        'its class raises': 'ClassRaises, whose traceback cannot be shown (RuntimeError): ',
        'its name raises': 'NameRaises, whose traceback cannot be shown (RuntimeError): ',
        'each attribute raises': 'Unlike, whose traceback cannot be shown (RuntimeError): ',
        'a long text': 'ValueError, whose text has 2000000 characters: é',
        'a cause with a long text': 'ValueError, whose traceback has 4000',
        'odd characters': 'ValueError, whose traceback cannot be shown (UnicodeEncodeError): a\n',
    }.items():
        error = shown(name)
        assert isinstance(error, exception_text.NotShown)
        assert str(error).startswith(line)
        assert error.__traceback__ is not None
        assert len(str(error)) < 2000


def test_a_text_or_a_name_that_raises_is_a_placeholder():
    assert exception_text.text(EXCEPTIONS['str() exits']()) == '<no text: str() raised SystemExit>'
    assert exception_text.text(EXCEPTIONS['str() is odd']()) == 'odd'
    assert exception_text.name(EXCEPTIONS['its name raises']()) == 'NameRaises'
    assert len(exception_text.name(EXCEPTIONS['a long name']())) == 255


# Results

@pytest.mark.parametrize('name', RESULTS)
def test_a_message_is_settled_whatever_its_handler_returns(harness, name):
    harness.controller.do = lambda message: RESULTS[name]()
    delivered = harness.deliver('x', reply_to='r', attempts=2)
    assert delivered.outcome is Outcome.ACK or delivered.dead_letter is not None
    if delivered.reply is not None:
        assert type(delivered.reply.raw) is bytes
        assert len(delivered.reply.raw) < 10_000_000


def test_a_reply_is_what_the_object_contains_and_not_what_its_methods_say(harness):
    for name in ('text whose encode() is odd', 'bytes whose length is odd'):
        harness.controller.do = lambda message, name=name: RESULTS[name]()
        assert harness.deliver('x', reply_to='r').reply.raw == b'done'


def fails_over(port, reply_to):
    """Whether the broker ends the connection over a reply: RabbitMQ does before 4.3, with 541."""
    with Client(port) as client:
        arguments = b'\0\0' + short(b'') + short(reply_to.encode()) + b'\0'
        client.frames.send(method(1, PUBLISH, arguments) + content(1, b'\0\0', b''))
        try:
            client.call((60, 10), bytes(7), (60, 11))
        except Closed as why:
            return str(why).startswith('541')
        return False


def test_a_reply_address_that_rabbitmq_fails_over_is_a_failure_of_its_message(
    configure, broker, channel, queue_name  # noqa: F811
):
    broken = 'amq.rabbitmq.reply-to.g1h2AA5yZXBseQAA.x=='
    fails = fails_over(broker.port, broken)
    with consuming(configure(TWICE)) as program:
        send(channel, queue_name, 'answer empty', reply_to=broken)
        program.wait_line(f'run {1 + fails} of answer')
        for number in range(5):  # more than one at a time is on its way to the broker
            send(channel, queue_name, f'fail {number}')
        for _ in range(5 + fails):
            program.wait_line('dead-lettered a message')
        ends_well(program, channel, queue_name)
    assert len(take(channel, f'{queue_name}.dead')) == 5 + fails


# Bodies

@pytest.mark.parametrize(
    'charset', ['punycode', 'idna', 'unicode_escape', 'no-such', '\0', 'é', 'hex']
)
def test_what_is_no_character_set_is_not_decoded_from(charset):
    began = time.monotonic()
    for given in ({'content_type': f'text/plain; charset={charset}'},
                  {'content_type': 'text/plain', 'content_encoding': charset}):  # fmt: skip
        with pytest.raises(Undecodable):
            decode(message(properties.encode(given), b'a' * 2_000_000), ['text'], 10**9)
    assert time.monotonic() - began < 5  # and not some minutes


# Properties

def message(packed, body=b'', exchange=b'', routing_key=b'q'):
    origin = b'\0' + bytes([len(exchange)]) + exchange + bytes([len(routing_key)]) + routing_key
    return Message(Delivery(None, 1, origin, packed, body), 'q', lambda *_: None)


def header(name, value):
    body = bytes([len(name)]) + name + value
    return b'\x20\0' + struct.pack('>I', len(body)) + body


@pytest.mark.parametrize('runs', [2**31, 2**62, 2**63 - 1])
def test_runs_without_end_are_counted_so_far(runs):
    it = message(header(b'x-clihelper-attempts', struct.pack('>cq', b'l', runs)))
    headers = settlement.run_headers(it.attempts, it.origin)
    assert properties.header(it.copy(headers), settlement.ATTEMPTS) == settlement.MOST_RUNS


def test_an_origin_that_is_none_is_not_carried_on():
    for name in (settlement.EXCHANGE, settlement.ROUTING_KEY):
        it = message(header(name.encode(), b'S' + struct.pack('>I', 100_000) + b'x' * 100_000))
        assert it.origin == {settlement.EXCHANGE: '', settlement.ROUTING_KEY: 'q'}
        assert len(it.copy(it.origin)) < 1000


def test_an_origin_that_cannot_be_decoded_is_carried_on_as_it_is():
    it = message(b'\0\0', exchange=b'\xe9', routing_key=b'a')
    copies = it.copy(it.origin), it.renewal()
    for again in map(message, copies):
        assert again.routing_key == 'a'
        with pytest.raises(InvalidProperties, match='exchange: not UTF-8'):
            _ = again.exchange


def test_a_message_whose_origin_cannot_be_decoded_is_published_anew(
    configure, broker, channel, queue_name  # noqa: F811
):
    channel.exchange_declare(f'{queue_name}.in', 'fanout', durable=True, auto_delete=False)
    with consuming(configure(ONCE)) as program:
        channel.queue_bind(queue_name, f'{queue_name}.in')
        connection = Connection([broker.url()], 0, 'test')
        connection.open()
        frames = connection.transport.encode_or_publish(
            connection.channel(), b'requeue 2', f'{queue_name}.in', '@@',
            properties.encode({'application_headers': {'x-delivery-count': 99}}),
        )  # fmt: skip
        connection.transport.write(frames.replace(b'@@', b'\xe9\xff'))
        connection.close()
        program.wait_line('published a message anew')
        program.wait_line('done requeue')
        ends_well(program, channel, queue_name)
    channel.exchange_delete(f'{queue_name}.in')


def test_a_message_that_is_too_large_to_be_published_anew_is_handled(
    configure, channel, queue_name, send_packed  # noqa: F811
):
    headers = {'x-delivery-count': 99, 'large': 'x' * 130_980}
    with consuming(configure(ONCE)) as program:
        send_packed(b'requeue 2', properties.encode({'application_headers': headers}))
        program.wait_line('could not be published anew: .* do not fit in a frame')
        program.wait_line('done requeue')
        ends_well(program, channel, queue_name)


# Acknowledgements

@pytest.mark.parametrize('order', [(5, 6), (6, 5)])
def test_messages_that_are_kept_before_their_turn_take_no_others_with_them(order):
    channel = Channel(range(1, 9))  # noqa: F811
    acknowledger = Acknowledger(channel.send, prefetch=100)
    acknowledger.add(1)
    for tag in (5, 6):  # 2 to 4 are not handled yet
        acknowledger.keep(tag)
    for tag in order:
        acknowledger.add_kept(tag)
        acknowledger.flush()
    assert channel.unsettled == {2, 3, 4, 7, 8}
    for tag in (2, 3, 4, 7, 8):
        acknowledger.add(tag)
    acknowledger.flush()
    assert not channel.unsettled


def test_messages_that_are_published_anew_before_their_turn_take_no_others_with_them(
    configure, channel, queue_name  # noqa: F811
):
    """A crash right afterwards loses none of them."""
    config = configure(ONCE)
    with consuming(config) as program:
        assert program.stop() == 0
    for body in ('work 0', 'work 1', 'near 1', 'near 2'):
        count = {'x-delivery-count': 99} if 'near' in body else {}
        send(channel, queue_name, body, headers=count)
    for line in ('consuming', 'published 2 messages anew'):
        with consuming(config) as program:
            program.wait_line(line)
            program.wait_line('of work 0')
            program.signal('KILL')
            program.wait()
    found = []
    channel.basic_consume(queue_name, no_ack=True, callback=lambda m: found.append(m.body))
    while len(found) < 4:  # the broker may not know yet that the program is gone
        channel.connection.client.drain_events(timeout=10)
    assert sorted(found) == ['near 1', 'near 2', 'work 0', 'work 1']


# Processes

@pytest.mark.parametrize('word', ['odd', 'odd_exit'])
def test_a_child_of_a_handler_ends_whatever_it_raises(
    configure, channel, queue_name, word  # noqa: F811
):
    with consuming(configure(ONCE)) as program:
        send(channel, queue_name, f'fork {word}')
        program.wait_line('the child ended with 1')
        ends_well(program, channel, queue_name)
    assert take(channel, f'{queue_name}.dead') == []
