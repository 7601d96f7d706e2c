"""What a consumer does when its connection suffers: each fault is caused for real, by a proxy."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time

import kombu
import pytest

from clihelper.testing import Program
from tests.faults import HEARTBEAT, PROGRAM, consuming, ends, goes_on, logged, send, take, write
from tests.proxy import Dribble, Proxy

FOUND_WITHIN = 2 * HEARTBEAT + 1

DELIVER = b'\x00\x3c\x00\x3c'


@pytest.fixture
def proxy(broker):
    with Proxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def configure(tmp_path, queue_name):
    """Writes a configuration; returns its path."""

    def configure(url, more='', **options):
        return write(tmp_path, url, queue_name, more, **options)

    return configure


def _since(began):
    return f'{time.monotonic() - began:.2f} s'


# A peer that is silent

@pytest.mark.parametrize('way', ['swallow', pytest.param('vanish', marks=pytest.mark.root)])
def test_a_silent_peer_is_found_and_left(configure, channel, proxy, queue_name, way, figure):
    with consuming(configure(proxy.url)) as program:
        getattr(proxy, way)()
        began = time.monotonic()
        program.wait_line(r'lost the broker: the broker has been silent for [2-3]\.\d s')
        took = time.monotonic() - began
        assert took < FOUND_WITHIN + 0.5
        figure(f'silent peer ({way}), heartbeat {HEARTBEAT} s: found within', f'{took:.2f} s')
        proxy.resume()
        goes_on(program, channel, queue_name)
        assert program.stop() == 0


def test_a_silent_peer_is_found_while_a_handler_runs(
    configure, channel, proxy, queue_name, tmp_path, figure
):
    with consuming(configure(proxy.url)) as program:
        send(channel, queue_name, 'work')
        program.wait_line('got work')
        proxy.client_gone.clear()
        proxy.swallow()
        began = time.monotonic()
        assert proxy.client_gone.wait(FOUND_WITHIN + 0.5)
        figure('the same while a handler runs', f'{time.monotonic() - began:.2f} s')
        proxy.resume()
        assert not logged(program, 'done work')
        (tmp_path / 'go').touch()
        program.wait_line('lost the broker: the broker has been silent')
        program.wait_line('got work again')
        program.wait_line('done work')
        assert program.stop() == 0


def test_a_silent_peer_is_found_while_a_confirmation_is_awaited(
    configure, channel, proxy, queue_name, figure
):
    with consuming(configure(proxy.url)) as program:
        send(channel, queue_name, f'publish {queue_name}')
        program.wait_line('published in')
        send(channel, queue_name, 'sleep 1')
        program.wait_line('got sleep')
        send(channel, queue_name, f'publish {queue_name}')
        time.sleep(0.5)  # it is there, and waits behind the other
        proxy.swallow()
        failed = program.wait_line(r'publish failed in (\d\.\d+) s: .*silent')
        assert float(failed[1]) < FOUND_WITHIN + 0.5
        figure('the same while a confirmation is awaited', f'{failed[1]} s')
        proxy.resume()
        send(channel, queue_name, 'after')
        program.wait_line('done after', 30)
        assert program.stop() == 0


def test_a_peer_with_much_to_say_is_not_silent_because_nobody_reads(
    configure, channel, proxy, queue_name
):
    """A handler that is longer than two heartbeats, and a window that is closed meanwhile."""
    with consuming(configure(proxy.url)) as program:
        send(channel, queue_name, 'sleep 4')
        program.wait_line('got sleep')
        for number in range(40):
            send(channel, queue_name, f'big{number} ' + 'x' * 400_000)
        program.wait_line('got big39', timeout=20)
        assert not logged(program, 'lost the broker')
        assert logged(program, 'got sleep') == 1
        assert program.stop() == 0


# TERM and QUIT work at every moment

@pytest.mark.parametrize(('signum', 'status'), [('TERM', 0), ('QUIT', 131)])
@pytest.mark.parametrize('way', ['swallow', pytest.param('vanish', marks=pytest.mark.root)])
def test_a_blackholed_consumer_ends_at_once(configure, proxy, way, signum, status, figure):
    with consuming(configure(proxy.url)) as program:
        getattr(proxy, way)()
        figure(f'{signum} to exit, blackholed ({way})', ends(program, signum, status, 1))


def test_a_consumer_that_waits_for_its_broker_ends_at_once(configure, proxy, figure):
    with consuming(configure(proxy.url)) as program:
        proxy.__exit__()
        program.wait_line('no broker')
        program.wait_line('no broker')
        figure('TERM to exit, broker down', ends(program, 'TERM', 0, 1))


def test_an_idle_consumer_ends_at_once(configure, proxy, figure):
    with consuming(configure(proxy.url)) as program:
        figure('TERM to exit, idle', ends(program, 'TERM', 0, 1))


@pytest.mark.parametrize(('signum', 'status'), [('TERM', 0), ('QUIT', 131)])
def test_waiting_for_a_confirmation_ends_with_a_stop(
    configure, channel, proxy, queue_name, signum, status, figure
):
    with consuming(configure(proxy.url)) as program:
        send(channel, queue_name, f'publish {queue_name}')
        program.wait_line('published in')
        send(channel, queue_name, 'sleep 1')
        program.wait_line('got sleep')
        send(channel, queue_name, f'publish_and_raise {queue_name}')
        time.sleep(0.5)  # it is there, and waits behind the other
        proxy.swallow()
        program.wait_line('got publish_and_raise')
        time.sleep(0.1)  # into the wait
        # A healthy broker gets one second to confirm before a stop.
        took = ends(program, signum, status, 1.5 if signum == 'TERM' else 0.7)
        figure(f'{signum} to exit, a confirmation awaited, blackholed', took)
    proxy.cut()
    wait_for(channel, queue_name, f'publish_and_raise {queue_name}')
    assert not take(channel, f'{queue_name}.dead')


def test_settling_a_message_ends_with_a_stop(configure, channel, proxy, queue_name):
    """One that is to be run again: the queue in which it waits has to be declared."""
    with consuming(configure(proxy.url, heartbeat=10)) as program:
        send(channel, queue_name, 'sleep 1')
        program.wait_line('got sleep')
        send(channel, queue_name, 'fail')
        time.sleep(0.5)  # it is there, and waits behind the other
        proxy.swallow()
        program.wait_line('failed in run 1 of')
        ends(program, 'TERM', 0, 1.5)
    proxy.cut()
    wait_for(channel, queue_name, 'fail')


def wait_for(channel, queue, body):
    """Wait until a message is back in its queue."""
    end = time.monotonic() + 10
    while not any(message.body == body for message in take(channel, queue)):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def silent_resolver(tmp_path):
    """A name server that does not answer, and the words before a command that has to ask it."""
    # One of our own, since others may run these tests at the same time.
    address = f'127.77.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        server.settimeout(20)
        configuration = tmp_path / 'resolv.conf'
        configuration.write_text(f'nameserver {address}\n')
        mount = f'mount --bind {configuration} /etc/resolv.conf && exec "$@"'
        yield server, ['unshare', '-m', 'sh', '-c', mount, 'sh']


@pytest.mark.root
def test_looking_up_the_name_of_the_broker_is_bounded_and_ended_by_a_signal(
    configure, silent_resolver
):
    server, words = silent_resolver
    config = configure('amqp://broker.example.com//')
    with Program([*words, sys.executable, PROGRAM, '-c', config, '-f']) as program:
        server.recv(512)
        program.wait_line('no broker: .*no answer to the look-up of its address; next attempt', 20)
        server.recv(512)
        time.sleep(0.3)
        ends(program, 'TERM', 75, 1)


# A connection that ends

@pytest.mark.parametrize('way', ['cut', 'reset', 'half_close'])
def test_a_connection_that_ends_is_made_again(
    configure, channel, proxy, queue_name, way, figure
):
    with consuming(configure(proxy.url)) as program:
        getattr(proxy, way)()
        began = time.monotonic()
        program.wait_line('lost the broker')
        goes_on(program, channel, queue_name)
        figure(f'connection ends ({way}): handling again after', f'{_since(began)}')
        assert proxy.connects == 2
        assert program.stop() == 0


@pytest.mark.parametrize('way', ['cut', 'reset'])
def test_a_message_at_work_comes_again_and_its_acknowledgement_is_never_late(
    configure, channel, proxy, broker, queue_name, tmp_path, way
):
    before = broker.log.count('unknown delivery tag')
    with consuming(configure(proxy.url)) as program:
        send(channel, queue_name, 'keep')
        program.wait_line('got keep')
        getattr(proxy, way)()
        (tmp_path / 'go').touch()
        program.wait_line('done keep')
        program.wait_line('lost the broker')
        program.wait_line('got keep again')
        program.wait_line('done keep')
        send(channel, queue_name, 'settle_kept')
        program.wait_line('done settle_kept')
        getattr(proxy, way)()
        program.wait_line('consuming')
        send(channel, queue_name, 'settle_kept')
        program.wait_line('done settle_kept')
        send(channel, queue_name, 'after')
        program.wait_line('done after')
        assert program.stop() == 0
    assert broker.log.count('unknown delivery tag') == before
    assert not take(channel, queue_name)


# What comes is not what was sent

def corrupt_once(position):
    """Changes one byte of a delivery: counted from its method frame, or from its end."""
    done = []

    def alter(data):
        start = data.find(DELIVER)
        if done or start < 0:
            return data
        done.append(position)
        changed = bytearray(data)
        changed[start - 7 + position if position >= 0 else position] ^= 0x55
        return bytes(changed)

    return alter


@pytest.mark.parametrize('position', [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, -1])
def test_a_corrupt_frame_delivers_nothing_and_ends_the_connection(
    configure, channel, proxy, queue_name, position, figure
):
    """Type, channel, size, class and method of the first frame; the end of the last."""
    with consuming(configure(proxy.url)) as program:
        proxy.alter = corrupt_once(position)
        send(channel, queue_name, 'body')
        program.wait_line('lost the broker')
        program.wait_line('got body')
        program.wait_line('done body')
        assert logged(program, 'got ') == 1
        figure(f'corrupt frame (byte {position}): wrong bodies', '0')
        assert program.stop() == 0


def test_a_delivery_that_is_cut_delivers_nothing(configure, channel, proxy, queue_name):
    with consuming(configure(proxy.url)) as program:

        def cut(data):
            if DELIVER not in data:
                return data
            proxy.alter = lambda data: data
            proxy.swallow()
            return data[: data.rindex(b'body')]  # what was asked may be answered behind it

        proxy.alter = cut
        send(channel, queue_name, 'body')
        program.wait_line('lost the broker: the broker has been silent')
        proxy.resume()
        program.wait_line('got body')
        assert logged(program, 'got ') == 1
        assert program.stop() == 0


# Byte by byte

@pytest.fixture
def dribble(broker):
    with Dribble(broker.port) as proxy:
        yield proxy


def test_heartbeats_flow_while_a_frame_dribbles_in(configure, channel, dribble, queue_name):
    with consuming(configure(dribble.url)) as program:
        dribble.pause = 0.01
        send(channel, queue_name, 'long ' + 'x' * 400)
        program.wait_line('got long', timeout=20)
        assert not logged(program, 'lost the broker')
        dribble.pause = 0
        assert program.stop() == 0


@pytest.mark.parametrize('phase', ['connecting', 'declaring', 'consuming', 'publishing'])
def test_a_stop_is_not_held_up_by_a_frame_that_dribbles_in(
    configure, channel, dribble, queue_name, phase
):
    answers = {'connecting': b'\x00\x0a\x00\x0a', 'declaring': b'\x00\x32\x00\x0b'}
    with Program([sys.executable, PROGRAM, '-c', configure(dribble.url), '-f']) as program:
        if phase in answers:
            reached = slow_from(dribble, answers[phase])
            assert reached.wait(20)
            time.sleep(0.3)
            ends(program, 'TERM', 75, 1)
            return
        program.wait_ready()
        if phase == 'publishing':
            send(channel, queue_name, f'publish {queue_name}')
            program.wait_line('published in')
            reached = slow_from(dribble, b'\x00\x3c\x00\x50')
            send(channel, queue_name, f'publish_and_raise {queue_name}')
            program.wait_line('got publish_and_raise')
        else:
            reached = slow_from(dribble, DELIVER)
            send(channel, queue_name, 'long ' + 'x' * 400)
        assert reached.wait(20)
        time.sleep(0.3)
        ends(program, 'TERM', 0, 1.5)


def slow_from(dribble, method):
    """From a method of the broker's on, one byte each second; the event says when."""
    reached = threading.Event()

    def alter(data):
        if method in data:
            dribble.pause = 1
            reached.set()
        return data

    dribble.alter = alter
    return reached


# A connection that comes and goes

def test_a_flapping_broker_is_not_stormed(configure, proxy, queue_name, figure):
    with consuming(configure(proxy.url, wake_interval=1.1)) as program:
        began = time.monotonic()
        for _ in range(8):
            proxy.reset()
            program.wait_line('lost the broker')
            program.wait_line('consuming')
        minute = proxy.connects / (time.monotonic() - began) * 60
        figure('flapping broker: connects a minute', f'{minute:.0f}')
        assert minute < 600
        delays = [
            float(found[1] or 0) for line in program.lines
            if (found := re.search(r'next attempt (?:in (\d+\.\d+) s|at once)', line))
        ]
        assert len(delays) == 8
        assert len(set(delays)) > 4  # jitter
        assert delays[0] <= 0.1
        assert max(delays) <= 2
        for _ in range(6):  # stable for more than 5 s
            program.wait_line('tick')
        proxy.reset()
        again = program.wait_line(r'next attempt (?:in (\d+\.\d+) s|at once)')
        assert float(again[1] or 0) <= 0.1
        assert program.stop() == 0


def test_a_consumer_without_descriptors_reconnects_once_it_has_some(
    configure, channel, proxy, queue_name
):
    with consuming(configure(proxy.url)) as program:
        send(channel, queue_name, 'exhaust')
        program.wait_line('done exhaust')
        proxy.reset()
        program.wait_line('no broker: .*Too many open files; next attempt')
        program.wait_line('no broker: .*Too many open files; next attempt')
        program.signal('USR2')
        program.wait_line('relieved')
        goes_on(program, channel, queue_name)
        assert program.stop() == 0


def test_a_consumer_that_was_frozen_reconnects_and_catches_up_no_ticks(
    configure, channel, proxy, queue_name, figure
):
    with consuming(configure(proxy.url, wake_interval=0.5)) as program:
        program.wait_line('tick')
        program.signal('STOP')
        time.sleep(5)  # the broker misses its heartbeats, and leaves
        before = logged(program, 'tick')
        program.signal('CONT')
        goes_on(program, channel, queue_name)
        ticks = logged(program, 'tick') - before
        assert ticks <= 4
        figure('SIGSTOP for 5 s, ticks of 0.5 s: caught up by reconnecting', f'{ticks}')
        assert program.stop() == 0
