"""The parts of the consumer that need no broker: outcomes, bodies, delays, addresses."""

from __future__ import annotations

import pytest

from clihelper.amqp import retries, settlement
from clihelper.amqp.connection import BrokerBackoff
from clihelper.amqp.encoding import encode
from clihelper.amqp.message import Message, decode
from clihelper.amqp.publisher import PublishError
from clihelper.amqp.settlement import Outcome
from clihelper.amqp.url import masked

ALL = ('json', 'text', 'binary')


class Delivery:
    """What kombu delivers."""

    def __init__(self, body, content_type=None, content_encoding=None, **properties):
        self.body = body
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.headers = properties.pop('headers', None)
        self.properties = properties
        self.delivery_info = {'exchange': 'shop', 'routing_key': 'order.new'}


def message(*args, **kwargs):
    return Message(Delivery(*args, **kwargs), 'orders', lambda *_: None)


@pytest.mark.parametrize(
    ('error', 'first', 'last', 'reason'),
    [
        (settlement.Requeue(), Outcome.REQUEUE, Outcome.REQUEUE, None),
        (PublishError('', stopped=True), Outcome.REQUEUE, Outcome.REQUEUE, None),
        (settlement.Reject(), Outcome.DEAD_LETTER, Outcome.DEAD_LETTER, 'rejected'),
        (settlement.Undecodable(), Outcome.DEAD_LETTER, Outcome.DEAD_LETTER, 'undecodable'),
        (settlement.Unaccepted(), Outcome.DEAD_LETTER, Outcome.DEAD_LETTER, 'unaccepted'),
        (settlement.Oversize(), Outcome.DEAD_LETTER, Outcome.DEAD_LETTER, 'oversize'),
        (settlement.Crashed(5), Outcome.DEAD_LETTER, Outcome.DEAD_LETTER, 'crashed'),
        (settlement.Retry(), Outcome.RETRY, Outcome.DEAD_LETTER, 'exception'),
        (ConnectionResetError(), Outcome.RETRY, Outcome.DEAD_LETTER, 'exception'),
        (SystemExit(), Outcome.RETRY, Outcome.DEAD_LETTER, 'exception'),
    ],
)
def test_what_was_raised_and_how_often_decides_the_outcome(error, first, last, reason):
    assert settlement.judge(error, 1, 3) is settlement.judge(error, 2, 3) is first
    assert settlement.judge(error, 3, 3) is settlement.judge(error, 4, 3) is last
    if reason:
        assert settlement.reason(error) == reason


SCHEDULE = {'attempts': 12, 'delay': 1, 'factor': 2, 'max_delay': 300}


def test_delays_grow_up_to_a_limit():
    delays = [settlement.delay(ValueError(), runs, SCHEDULE) for runs in range(1, 12)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert settlement.delay(ValueError(), 10**6, {**SCHEDULE, 'factor': 1000}) == 300


def test_a_handler_may_say_how_long():
    assert settlement.delay(settlement.Retry('later', delay=0), 3, SCHEDULE) == 0
    assert settlement.delay(settlement.Retry(delay=1000.5), 3, SCHEDULE) == 1000.5
    assert settlement.delay(settlement.Retry('later'), 3, SCHEDULE) == 4
    assert str(settlement.Retry('later', delay=3)) == 'later'
    for wrong in (-1, float('nan'), float('inf'), settlement.LONGEST_DELAY + 1):
        with pytest.raises(ValueError, match='a delay is from 0 to'):
            settlement.Retry(delay=wrong)


@pytest.mark.parametrize(
    ('seconds', 'milliseconds'),
    [(1, 1000), (0.5, 500), (0.0001, 1), (1.024, 1100), (0.099, 99), (99.01, 100_000),
     (300, 300_000), (settlement.LONGEST_DELAY, 2_600_000_000)],
)  # fmt: skip
def test_delays_are_rounded_up_to_few_steps(seconds, milliseconds):
    assert retries.step(seconds) == milliseconds


def test_the_schedule_has_few_steps():
    assert retries.steps(SCHEDULE) == [1000 * n for n in (1, 2, 4, 8, 16, 32, 64, 130, 260, 300)]
    assert retries.steps({**SCHEDULE, 'attempts': 1}) == []
    assert retries.steps({**SCHEDULE, 'delay': 0}) == []
    assert retries.steps({**SCHEDULE, 'attempts': 10**6, 'factor': 1}) == [1000]


@pytest.mark.parametrize(
    ('attempts', 'reason', 'runs'),
    [
        (None, None, 0),
        (3, None, 3),
        (-3, None, 0),
        ('many', None, 0),
        (True, None, 0),
        (5, 'exception', 0),
    ],
)
def test_runs_are_counted_in_a_header(attempts, reason, runs):
    assert settlement.runs_before(attempts, reason) == runs


def test_a_dead_letter_says_what_happened_within_bounds():
    headers = settlement.dead_letter_headers(ValueError('x' * 9999), 'orders', 'shop')
    assert headers['x-clihelper-exception'] == 'ValueError'
    assert len(headers['x-clihelper-message']) == settlement.LONGEST_TEXT
    assert headers['x-clihelper-queue'] == 'orders'
    assert headers['x-clihelper-application'] == 'shop'


@pytest.mark.parametrize(
    ('body', 'content_type', 'encoding', 'expected'),
    [
        (b'{"a": 1}', 'application/json', 'utf-8', {'a': 1}),
        (b'[1]', 'application/vnd.api+json; charset=utf-8', None, [1]),
        ('grün'.encode(), 'text/plain', 'utf-8', 'grün'),
        ('grün'.encode('latin-1'), 'text/plain', 'latin-1', 'grün'),
        ('grün'.encode(), 'text/html; charset=utf-8', None, 'grün'),
        (b'\x00\xff', 'application/octet-stream', 'binary', b'\x00\xff'),
        (b'\x00\xff', None, None, b'\x00\xff'),
    ],
)
def test_bodies_are_decoded_by_their_type(body, content_type, encoding, expected):
    assert decode(message(body, content_type, encoding), ALL, 100) == expected


@pytest.mark.parametrize(
    ('body', 'content_type', 'encoding', 'error'),
    [
        (b'{secret', 'application/json', 'utf-8', settlement.Undecodable),
        (b'"\xffsecret"', 'application/json', None, settlement.Undecodable),
        (b'[' * 100_000, 'application/json', None, settlement.Undecodable),
        (b'secret\xff', 'text/plain', None, settlement.Undecodable),
        (b'secret', 'text/plain', 'no-such-code', settlement.Undecodable),
        (b'secret', 'application/x-python-serialize', 'binary', settlement.Unaccepted),
        (b'secret' * 100_000, 'text/plain', None, settlement.Oversize),
    ],
)
def test_a_bad_body_is_refused_and_not_quoted(body, content_type, encoding, error):
    with pytest.raises(error) as caught:
        decode(message(body, content_type, encoding), ALL, 200_000)
    assert 'secret' not in str(caught.value)


def test_only_accepted_kinds_are_decoded():
    with pytest.raises(settlement.Unaccepted, match='text/plain'):
        decode(message(b'x', 'text/plain'), ('json',), 100)


@pytest.mark.parametrize(
    ('body', 'expected'),
    [
        (b'\xff', (b'\xff', 'application/octet-stream')),
        ('grün', ('grün'.encode(), 'text/plain')),
        ({'a': [1, None]}, (b'{"a":[1,null]}', 'application/json')),
    ],
)
def test_bodies_are_encoded_by_their_kind(body, expected):
    assert encode(body) == expected


def test_a_copy_neither_expires_nor_is_refused_nor_goes_elsewhere():
    properties = {'correlation_id': '7', 'expiration': '1', 'user_id': 'guest', 'delivery_tag': 1}
    copy = message(
        b'', 'text/plain', 'utf-8', headers={'CC': ['x'], 'mine': 1}, **properties
    ).copy({'x-clihelper-reason': 'rejected'})
    assert copy == {
        'correlation_id': '7',
        'content_type': 'text/plain',
        'content_encoding': 'utf-8',
        'delivery_mode': 2,
        'headers': {'mine': 1, 'x-clihelper-reason': 'rejected'},
    }


def test_delays_grow_under_a_cap_that_depends_on_when_the_broker_was_well():
    backoff = BrokerBackoff(uniform=lambda low, high: high)
    assert [backoff.next(1) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.next(3600) == 0.1 * 2**6
    assert [backoff.next(3600) for _ in range(4)][-1] == 30
    backoff.reset()
    assert backoff.next(1) == 0.1


def test_delays_are_jittered_in_full():
    backoff = BrokerBackoff(uniform=lambda low, high: low)
    assert backoff.next(1) == 0


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        ('amqp://orders:secret@broker:5672/shop', 'amqp://orders:**@broker:5672/shop'),
        ('amqp://orders:se@cr:et@broker//', 'amqp://orders:**@broker//'),
        ('amqp://orders@broker', 'amqp://orders@broker'),
        ('memory://', 'memory://'),
    ],
)
def test_addresses_are_shown_without_passwords(url, shown):
    assert masked(url) == shown


@pytest.mark.parametrize(('runs', 'words'), [
    (1, 'run 1 time, and the process ended then'),
    (5, 'run 5 times, and the process ended each time'),
])
def test_the_reason_of_a_crashed_message_counts_its_runs(runs, words):
    assert str(settlement.Crashed(runs)) == words
