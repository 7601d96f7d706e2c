"""Acknowledgements put together, and messages that are kept unsettled among them."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import kombu
import pytest

from clihelper.amqp.acknowledgement import Acknowledger
from clihelper.amqp.rabbitmq import RabbitMQTransport
from tests.faults import send, take


class Channel:
    """What RabbitMQ holds of a channel: the tags that are not settled.

    :ivar list frames: what was acknowledged, each a tag and whether all below it were meant.
    """

    def __init__(self, tags):
        self.unsettled = set(tags)
        self.frames = []

    def send(self, up_to, alone):
        for tag in alone:
            self.acknowledge(tag, False)
        if up_to:
            self.acknowledge(up_to, True)

    def acknowledge(self, tag, multiple):
        assert tag in self.unsettled, f'unknown delivery tag {tag}'
        self.frames.append((tag, multiple))
        self.unsettled -= {each for each in self.unsettled if each <= tag} if multiple else {tag}


def test_acknowledgements_are_put_together():
    channel = Channel(range(1, 8))
    acknowledger = Acknowledger(channel.send, prefetch=10)
    for tag in range(1, 8):
        if acknowledger.add(tag):
            acknowledger.flush()
    assert channel.frames == [(5, True)]
    acknowledger.flush()
    acknowledger.flush()
    assert channel.frames == [(5, True), (7, True)]


def test_a_slow_handler_has_each_message_acknowledged_as_it_ends(monkeypatch):
    now = 100.0
    monkeypatch.setattr('clihelper.amqp.acknowledgement.time.monotonic', lambda: now)
    channel = Channel(range(1, 4))
    acknowledger = Acknowledger(channel.send, prefetch=100)
    for tag in range(1, 4):
        now += 0.06
        assert acknowledger.add(tag)
        acknowledger.flush()
    assert channel.frames == [(1, True), (2, True), (3, True)]


def test_those_below_what_is_kept_go_together_and_those_above_alone():
    channel = Channel(range(1, 9))
    acknowledger = Acknowledger(channel.send, prefetch=100)
    for tag in (1, 2, 3):
        acknowledger.add(tag)
    for kept, after in ((4, 5), (6, 7)):
        acknowledger.keep(kept)
        acknowledger.add(after)
    acknowledger.flush()
    assert sorted(channel.frames) == [(3, True), (5, False), (7, False)]
    channel.frames.clear()

    acknowledger.add_kept(4)
    acknowledger.flush()
    assert channel.frames == [(4, False)]
    channel.unsettled.remove(6)  # rejected by itself
    acknowledger.release(6)
    acknowledger.add(8)
    acknowledger.flush()
    assert channel.frames[1:] == [(8, True)]
    assert not channel.unsettled


@pytest.mark.parametrize('seed', range(50))
def test_messages_that_are_not_handled_yet_are_not_acknowledged_with_later_ones(seed):
    """Messages behind them are kept, and acknowledged, before they are handled."""
    chance = random.Random(seed)
    channel = Channel(range(1, 201))
    acknowledger = Acknowledger(channel.send, prefetch=chance.choice([1, 10, 100]))
    waiting = list(range(1, 201))
    while waiting:
        ahead = chance.sample(waiting[:20], min(len(waiting), chance.randrange(6)))
        for tag in sorted(ahead) if chance.random() < 0.2 else ():
            acknowledger.keep(tag)
            waiting.remove(tag)
        for tag in ahead:
            if tag not in waiting and acknowledger.add_kept(tag):
                acknowledger.flush()
        acknowledger.flush()
        assert set(waiting) <= channel.unsettled
        for tag in waiting[:3]:
            if acknowledger.add(tag):
                acknowledger.flush()
        del waiting[:3]
        if chance.random() < 0.5:
            acknowledger.flush()
        assert set(waiting) <= channel.unsettled
    acknowledger.flush()
    assert not channel.unsettled


def test_half_the_prefetch_is_pending_beside_what_is_kept_too(monkeypatch):
    monkeypatch.setattr('clihelper.amqp.acknowledgement.time.monotonic', lambda: 100.0)
    acknowledger = Acknowledger(Channel(range(100)).send, prefetch=10)
    acknowledger.keep(1)
    assert [acknowledger.add(tag) for tag in range(2, 7)] == [False] * 4 + [True]
    acknowledger.flush()
    assert not acknowledger.add(7)


@pytest.mark.parametrize('seed', range(50))
def test_each_message_is_settled_once_whatever_is_kept(seed):
    """Kept messages are acknowledged or rejected at any time later, as others go on."""
    chance = random.Random(seed)
    channel = Channel(range(1, 301))
    acknowledger = Acknowledger(channel.send, prefetch=chance.choice([1, 10, 100]))
    kept = []

    def maybe_flush():
        if chance.random() < 0.2:
            acknowledger.flush()

    def end_one():
        tag = kept.pop(chance.randrange(len(kept)))
        if chance.random() < 0.5:
            acknowledger.add_kept(tag)
        else:
            channel.unsettled.remove(tag)
            acknowledger.release(tag)

    for tag in range(1, 301):
        action = chance.random()
        if action < 0.1:
            acknowledger.keep(tag)
            kept.append(tag)
        elif action < 0.2:
            channel.unsettled.remove(tag)  # settled by itself at once
        elif acknowledger.add(tag):
            acknowledger.flush()
        if kept and chance.random() < 0.15:
            end_one()
        maybe_flush()
        assert set(kept) <= channel.unsettled
    while kept:
        end_one()
    acknowledger.flush()
    assert not channel.unsettled


def test_a_second_thread_may_send_at_any_time():
    channel = Channel(range(1, 20_001))
    acknowledger = Acknowledger(channel.send, prefetch=50)
    faults, ended = [], threading.Event()

    def beat():
        try:
            while not ended.is_set():
                acknowledger.flush()
                time.sleep(0)
        except AssertionError as error:
            faults.append(error)

    thread = threading.Thread(target=beat)
    thread.start()
    kept = None
    for tag in range(1, 20_001):
        if kept is None and not tag % 7:
            acknowledger.keep(tag)
            kept = tag
            continue
        if acknowledger.add(tag):
            acknowledger.flush()
        if kept and not tag % 5:
            acknowledger.add_kept(kept)
            kept = None
    ended.set()
    thread.join()
    if kept:
        acknowledger.add_kept(kept)
    acknowledger.flush()
    assert not faults
    assert not channel.unsettled


def test_rabbitmq_agrees(broker, queue_name):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        channel.queue_declare(queue_name, durable=True, auto_delete=False)
        for number in range(1, 11):
            send(channel, queue_name, str(number))
    wire = RabbitMQTransport(broker.url(), 0, 5, 'test')
    wire.connect()
    with contextlib.closing(wire):
        channel, got = wire.channel(), []
        acknowledger = wire.acknowledger(channel, 100)
        wire.consume(channel, queue_name, 'tag', got.append)
        while len(got) < 10:
            wire.drain_events(timeout=5)
        for tag in range(1, 11):
            (acknowledger.keep if tag in (3, 6, 9) else acknowledger.add)(tag)
        acknowledger.flush()
        got[2].reject()
        acknowledger.release(3)
        acknowledger.add_kept(6)
        acknowledger.flush()
        # The answer comes when all before it has been acted on; a wrong tag would be an error.
        assert channel.queue_declare(queue_name, passive=True).message_count == 0
        assert channel.is_open
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        assert [message.body for message in take(channel, queue_name)] == ['9']
