"""A queue in partitions: what is declared, where messages go, and which worker gets them."""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
import time
from zlib import crc32

import kombu
import pytest

import clihelper
from clihelper.amqp.partitions import Partitions, Share
from clihelper.config import parse
from clihelper.errors import ConfigurationError
from clihelper.testing import Harness, Program
from tests.broker import Broker
from tests.test_order import PROGRAM, RETRY, Ordered, check_order
from tests.test_workers import children


class Divided(Ordered):
    count = 8

    def configure(self, daemon='workers: 4', amqp='', kind='classic', more='', queue=''):
        self.file.write_text(
            f'Application: {{notes: {self.folder}/notes, {more}}}\n'
            f'Daemon: {{{daemon}}}\n'
            f'AMQP:\n  url: {self._url}\n  {amqp}\n  queues:\n    {self.queue}:\n'
            f'      partitions: {self.count}\n'
            f'      arguments: {{x-queue-type: {kind}}}\n      {queue}\n'
        )

    def send_key(self, key, body):
        self.publish(body, f'{self.queue}.{crc32(key.encode()) % self.count}')

    def publish(self, body, routing_key, exchange=''):
        producer = kombu.Producer(self.channel)
        producer.publish(body, routing_key, exchange=exchange, content_type='text/plain')

    def send_many(self, count, keys=20, what='flaky'):
        numbers = collections.Counter()
        chance = random.Random(count)
        for _ in range(count):
            key = f'k{chance.randrange(keys)}'
            self.send_key(key, f'{key} {numbers[key]} {what}')
            numbers[key] += 1
        return {(key, number) for key in numbers for number in range(numbers[key])}

    def partitions(self):
        return [self.channel.queue_declare(f'{self.queue}.{number}', passive=True)
                for number in range(self.count)]

    def left(self):
        return sum(each.message_count for each in self.partitions())

    def wait_standing_by(self, program, workers):
        """Until each worker consumes the others' partitions as well."""
        end = time.monotonic() + 20
        while sum('standing by for' in line for line in list(program.lines)) < workers:
            assert time.monotonic() < end, program.lines
            time.sleep(0.02)

    def check(self, *more):
        done = subprocess.run(
            [sys.executable, PROGRAM, '-c', str(self.file), '--check', *more],
            capture_output=True, text=True)  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Divided(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture(scope='module')
def hashing():
    """A broker with the exchange: of the plugin, or where that is built in, without."""
    node = Broker()
    with open(f'{node.directory}/enabled_plugins', 'w') as file:
        file.write('[rabbitmq_consistent_hash_exchange].\n')
    with node:
        yield node


@pytest.fixture
def hashed(tmp_path, hashing, queue_name):
    work = Divided(tmp_path, hashing, queue_name)
    yield work
    work.close()


def test_the_partitions_are_spread_over_the_workers(work, figure):
    work.configure()
    with work.run() as program:
        bodies = {(f'p{number}', 0) for number in range(work.count)}
        for key, number in bodies:
            work.publish(f'{key} {number}', f'{work.queue}.{key[1:]}')
        work.wait_noted(bodies)
        assert program.stop() == 0
    workers = {note[5]: note[3] for note in work.notes() if note[0] == 'run'}
    counts = collections.Counter(workers.values())
    figure('partitions of each of 4 workers, of 8', ', '.join(map(str, counts.values())))
    assert sorted(counts.values()) == [2, 2, 2, 2]


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
@pytest.mark.parametrize('several', ['one', 'threads', 'coroutines'])
def test_a_worker_that_is_killed_loses_no_order_and_no_key_has_two(
    work, monkeypatch, kind, several
):
    monkeypatch.setenv('KIND', several)
    amqp = {'one': '', 'threads': 'threads: 8\n  ', 'coroutines': ''}[several] + RETRY
    work.configure(amqp=amqp, kind=kind,
                   more=f'pause: {0.1 if several == "one" else 0.5}')
    killed = []
    with work.run() as program:
        sent = work.send_many(400)
        work.wait_standing_by(program, 4)
        assert sent - work.noted('done')  # it is killed in the middle
        pid = max(children(program.pid))
        os.kill(pid, signal.SIGKILL)
        killed.append(str(pid))
        program.wait_line('SIGKILL')
        work.wait_noted(sent)
        assert program.stop() == 0
    check_order(work.notes(), killed)
    assert len({note[3] for note in work.notes()}) >= 4
    assert work.left() == 0


def test_dead_letters_of_all_partitions_are_in_one_queue_and_go_back_to_their_own(work):
    work.configure(amqp='retry: {attempts: 2, delay: 0.01}')
    with work.run() as program:
        for key in ('a', 'b', 'c', 'keyless'):
            work.send_key(key, f'{key} 0 fail')
        dead = work.wait_dead(4)
        assert program.stop() == 0
    for letter in dead:
        key = letter.body.split()[0]
        partition = f'{work.queue}.{crc32(key.encode()) % work.count}'
        assert letter.headers['x-clihelper-queue'] == partition
        assert letter.headers['x-clihelper-attempts'] == 2
    assert work.left() == 0


PUBLISHING = """
import clihelper


class Publishing(clihelper.{0}Controller):
    {1}def _process(self):
        for number in range(40):
            {2}self.publish(f'k{{number % 4}} {{number // 4}}', routing_key='{3}',
                         partition_key=f'k{{number % 4}}')
        {2}self.publish('keyless 0', routing_key='{3}')
        self.logger.info('depth %d', {2}self.queue_depth('{3}'))


clihelper.setup('publishing')
clihelper.run(Publishing)
"""


@pytest.mark.parametrize('words', [('', '', ''), ('IOLoop', 'async ', 'await ')])
def test_what_a_program_publishes_is_where_its_key_belongs(work, words):
    work.configure(daemon='')
    with work.run() as program:  # declares the queues
        assert program.stop() == 0
    program_file = work.folder / 'publishing.py'
    program_file.write_text(PUBLISHING.format(*words, work.queue))
    with Program([sys.executable, str(program_file), '-c', str(work.file), '-f']) as program:
        program.wait_line('depth 41')
        assert program.stop() == 0
    work.configure()
    with work.run() as program:
        work.wait_noted({(f'k{key}', number) for key in range(4) for number in range(10)})
        assert program.stop() == 0
    check_order(work.notes())
    for note in work.notes():
        if note[1] != 'keyless':
            assert note[5] == f'{work.queue}.{crc32(note[1].encode()) % work.count}'


def test_bindings_are_spread_by_the_routing_key(hashed):
    queue = hashed.queue
    shop = f'{queue}-shop'
    amqp = f'exchanges: {{{shop}: {{type: topic}}}}'
    hashed.configure(amqp=amqp, queue=f'exchange: {shop}\n      routing_keys: [order.#]')
    status, text = hashed.check('--broker')
    assert (status, text.count('does not exist yet')) == (0, 4), text
    with hashed.run() as program:
        sent = set()
        for number in range(20):
            for key in ('a', 'b', 'c', 'd', 'e', 'f'):
                hashed.publish(f'{key} {number}', f'order.{key}', shop)
                sent.add((key, number))
        hashed.wait_noted(sent)
        assert program.stop() == 0
    check_order(hashed.notes())
    places = {(note[1], note[5]) for note in hashed.notes()}
    assert len(places) == 6  # each key in one
    assert len({place for _, place in places}) > 1
    status, text = hashed.check('--broker')
    assert (status, text.count('not exist')) == (0, 0), text


def test_with_declare_false_it_is_used_as_it_is(hashed):
    queue = f'exchange: amq.topic\n      routing_keys: [{hashed.queue}.#]'
    hashed.configure(daemon='', amqp='declare: false', queue=queue)
    status, text = hashed.check('--broker')
    assert (status, text.count("no queue '"), text.count("no exchange '")) == (69, 17, 1), text
    hashed.configure(daemon='', queue=queue)
    with hashed.run() as program:
        assert program.stop() == 0
    hashed.configure(daemon='', amqp='declare: false\n  retry: {attempts: 1}', queue=queue)
    with hashed.run() as program:
        hashed.publish('a 0', f'{hashed.queue}.a', 'amq.topic')
        hashed.wait_noted({('a', 0)})
        assert program.stop() == 0


def test_a_broker_without_the_exchange_is_told_in_one_line(work, broker):
    """RabbitMQ 4.3 has another one built in."""
    work.configure(daemon='', queue=f'exchange: amq.topic\n      routing_keys: [{work.queue}.#]')
    argv = [sys.executable, PROGRAM, '-c', str(work.file), '-f']
    if tuple(map(int, broker.ctl('version').split('.')[:2])) >= (4, 3):
        with work.run() as program:
            assert program.stop() == 0
        return
    with Program(argv) as program:
        assert program.wait() == 69
        assert [line for line in program.lines if
                "unknown exchange type 'x-consistent-hash': the broker's plugin"
                ' rabbitmq_consistent_hash_exchange has to be enabled' in line]


def test_messages_beyond_fewer_partitions_are_told(work):
    work.configure(daemon='')
    with work.run() as program:
        assert program.stop() == 0
    work.count = 4
    for number in (4, 5):
        work.publish('a 0', f'{work.queue}.{number}')
    work.configure(daemon='')
    with work.run() as program:
        program.wait_line(rf'{work.queue}.partitions is 4: 1 message in {work.queue}\.4, and')
        assert program.stop() == 0


@pytest.mark.parametrize(('options', 'fault'), [
    ('{partitions: 0}', 'expected an integer of at least 1 and at most 1000, got 0'),
    ("{name: '', partitions: 2}", 'cannot have partitions: the broker names the queue'),
    ('{exclusive: true, partitions: 2}', 'cannot have partitions: the queue is exclusive'),
    ('{partitions: 2, arguments: {x-queue-type: stream}}',
     'cannot have partitions: the queue is a stream'),
    ('{partitions: 2}, orders.1: {}', 'is also that of AMQP.queues.orders'),
])
def test_what_cannot_be_divided_is_a_fault(options, fault):
    with pytest.raises(ConfigurationError) as raised:
        parse(f'AMQP:\n  queues: {{orders: {options}}}\n'.encode(), 'test.yml', appname='test',
              shown='test.yml')
    assert fault in str(raised.value)


class Orders(clihelper.ConsumerController):
    def on_message(self, body, message):
        self.publish(body, routing_key='orders', partition_key=body)
        self.publish(body, routing_key='other')
        with self.pipeline() as pipeline:
            pipeline.publish(body, routing_key='orders', partition_key=body.encode())


CONFIG = {'AMQP': {'queues': {'orders': {'partitions': 4}, 'other': {}}}}


def test_the_kit_routes_as_a_broker_would_get_it():
    with Harness(Orders, CONFIG) as orders:
        assert orders.deliver('six', queue='orders').message.queue == 'orders.0'
        orders.published.clear()
        orders.deliver('seven', queue='orders.2')
        expected = f'orders.{crc32(b"seven") % 4}'
        assert [each.routing_key for each in orders.published] == [expected, 'other', expected]
        with pytest.raises(ValueError, match="partition_key: queue 'other' is no queue"):
            orders.controller.publish('x', routing_key='other', partition_key='x')
        with pytest.raises(ValueError, match="partition_key: exchange 'shop' is no queue"):
            orders.controller.publish('x', 'shop', 'orders', partition_key='x')


def test_messages_without_a_key_have_their_turn():
    partitions = Partitions({'orders': {'name': 'orders', 'partitions': 3}})
    assert [partitions.route('', 'orders', {})[0] for _ in range(4)] == [
        'orders.0', 'orders.1', 'orders.2', 'orders.0']


def test_each_worker_has_a_share_and_machines_differ(monkeypatch):
    queues = [{'name': f'orders.{number}', 'partition': number} for number in range(6)]
    shares = [[each['partition'] for each in queues if Share(worker, 4).has(each)]
              for worker in (1, 2, 3, 4)]
    assert shares == [[0, 4], [1, 5], [2], [3]]
    ranks = []
    for machine in ('a', 'b'):
        monkeypatch.setattr('socket.gethostname', lambda machine=machine: machine)
        ranks.append([Share(1, 1).arguments(each)['x-priority'] for each in queues])
    assert 0 < sum(a > b for a, b in zip(*ranks, strict=True)) < 6
    assert Share(1, 4).has({'name': 'plain'})
    assert not Share(1, 4).arguments({'name': 'plain'})
