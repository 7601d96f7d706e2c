"""Exchanges, queues and bindings as the user writes them, on RabbitMQ."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import amqp
import kombu
import pytest

from clihelper import config
from clihelper.amqp.connection import Connection, Lost
from clihelper.amqp.declare_errors import DeclarationRefused, explain
from clihelper.amqp.declarer import Declarer
from clihelper.amqp.entities import Entities
from clihelper.amqp.iteration import section_for
from clihelper.amqp.rabbitmq import RabbitMQTransport
from clihelper.amqp.topology import Topology
from clihelper.errors import ConfigurationError
from clihelper.testing import Program

PROGRAMS = Path(__file__).parent / 'programs'
OBEDIENT = str(PROGRAMS / 'consumer.py')
DECLARING = str(PROGRAMS / 'declaring.py')


@pytest.fixture
def configure(tmp_path, broker, queue_name):
    """Writes a configuration, in which NAME is the test's own; returns its path."""

    def write(section, url=None):
        path = tmp_path / 'app.yml'
        path.write_text(
            f'AMQP:\n  url: {url or broker.url()}\n{section}'.replace('NAME', queue_name)
        )
        return str(path)

    return write


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


@contextlib.contextmanager
def running(config, program=OBEDIENT, **env):
    with Program([sys.executable, program, '-c', config, '-f'], env=env) as started:
        started.wait_ready(30)
        yield started


def fails(config, status=69, program=OBEDIENT, **env):
    """Run the consumer to its end; its one line."""
    with Program([sys.executable, program, '-c', config, '-f'], env=env) as started:
        assert started.wait(30) == status
        [line] = [line for line in started.stderr if line.startswith(('obedient: ', 'Declaring'))]
        return line.removeprefix('obedient: ')


def publish(channel, exchange, routing_key, body, **properties):
    kombu.Producer(channel).publish(
        body, exchange=exchange, routing_key=routing_key, **properties
    )


EVERY_TYPE = '''\
  exchanges:
    NAME.direct: {}
    NAME.fanout: {type: fanout, durable: false, auto_delete: true}
    NAME.topic: {type: topic}
    NAME.headers: {type: headers, arguments: {alternate-exchange: NAME.fanout}}
  queues:
    NAME.one: {exchange: NAME.direct, routing_keys: [a, b]}
    NAME.two: {exchange: NAME.fanout}
    NAME.three: {exchange: NAME.topic, routing_keys: log.*}
    NAME.four:
      bindings:
        - {exchange: NAME.headers, arguments: {x-match: all, level: high, kind: 1}}
        - {exchange: NAME.headers, arguments: {x-match: any, all: true}}
        - {exchange: NAME.topic, routing_key: 'log.#'}
'''


def test_messages_are_routed_as_each_type_of_exchange_does(configure, channel, queue_name):
    with running(configure(EVERY_TYPE)) as program:
        sent = [
            ('direct', 'a', {}, ['one']),
            ('direct', 'b', {}, ['one']),
            ('direct', 'c', {}, []),
            ('fanout', 'whatever', {}, ['two']),
            ('topic', 'log.error', {}, ['three', 'four']),
            ('topic', 'log.error.db', {}, ['four']),
            ('headers', '', {'level': 'high', 'kind': 1}, ['four']),
            ('headers', '', {'all': True}, ['four']),
            ('headers', '', {'level': 'high'}, ['two']),  # by the alternate exchange
        ]
        wanted = []
        for number, (kind, key, headers, queues) in enumerate(sent):
            publish(channel, f'{queue_name}.{kind}', key, f'm{number}', headers=headers)
            wanted += [f"got 'm{number}' from {queue_name}.{queue}" for queue in queues]
        for queue in ('one', 'two', 'three', 'four'):
            publish(channel, '', f'{queue_name}.{queue}', 'last')
        for _ in range(4):
            program.wait_line("got 'last'")
        got = [line[line.index('got '):] for line in program.lines if "got 'm" in line]
        assert sorted(got) == sorted(wanted)
        assert program.stop() == 0


def test_the_arguments_of_a_queue_reach_the_broker(configure, channel, queue_name):
    section = '''\
  exchanges: {NAME.dead: {type: fanout}}
  queues:
    NAME.jobs:
      arguments: {x-queue-type: quorum, x-dead-letter-exchange: NAME.dead}
    NAME.short: {arguments: {x-message-ttl: 60000, x-max-length: 2, x-overflow: reject-publish}}
    NAME.failed: {exchange: NAME.dead}
'''
    same = {
        'jobs': {'x-queue-type': 'quorum', 'x-dead-letter-exchange': f'{queue_name}.dead'},
        'short': {'x-message-ttl': 60000, 'x-max-length': 2, 'x-overflow': 'reject-publish'},
    }
    with running(configure(section + '  dead_letter: false\n')) as program:
        for queue, arguments in same.items():
            channel.queue_declare(
                f'{queue_name}.{queue}', durable=True, auto_delete=False, arguments=arguments
            )
        publish(channel, '', f'{queue_name}.jobs', 'reject')
        program.wait_line(f"got 'reject' from {queue_name}.jobs")
        program.wait_line(f"got 'reject' from {queue_name}.failed")
        assert program.stop() == 0


SERVER_NAMED = '''\
  exchanges: {NAME.news: {type: fanout}, NAME.log: {type: topic}}
  queues:
    news: {name: '', exchange: NAME.news}
    errors: {name: '', exchange: NAME.log, routing_keys: '#.error'}
  dead_letter: NAME.dead
'''


def queues_of(broker):
    return set(broker.ctl('list_queues', 'name', '--no-table-headers').split())


def test_queues_that_the_broker_names_are_told_apart_by_their_labels(
    configure, broker, channel, queue_name
):
    before = queues_of(broker)
    with running(configure(SERVER_NAMED)) as program:
        mine = queues_of(broker) - before - {f'{queue_name}.dead'}
        assert len(mine) == 2
        assert all(name.startswith('amq.gen-') for name in mine)
        publish(channel, f'{queue_name}.news', '', 'hello')
        program.wait_line("got 'hello' from news")
        publish(channel, f'{queue_name}.log', 'db.error', 'oh')
        program.wait_line("got 'oh' from errors")
        assert program.stop() == 0
    assert not queues_of(broker) & mine


def test_they_are_declared_anew_on_the_next_connection(configure, broker, channel, queue_name):
    with running(configure(SERVER_NAMED)) as program:
        before = queues_of(broker)
        close_connection_of(broker, program.pid)
        program.wait_line('lost the broker')
        program.wait_line('consuming')
        assert len(queues_of(broker) - before) == 2
        publish(channel, f'{queue_name}.news', '', 'hello')
        program.wait_line("got 'hello' from news")
        assert program.stop() == 0


def close_connection_of(broker, pid):
    connections = broker.ctl('list_connections', 'pid', 'client_properties').splitlines()
    [number] = [line.split()[0] for line in connections if f':{pid}"' in line]
    broker.ctl('close_connection', number, 'by the operator')


def test_a_dead_letter_of_a_queue_that_the_broker_names_goes_by_its_label(
    configure, channel, queue_name
):
    section = "  queues: {NAME.here: {name: '', exchange: amq.fanout}}\n"
    with running(configure(section)) as program:
        publish(channel, 'amq.fanout', '', 'reject')
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    dead = channel.basic_get(f'{queue_name}.here.dead', no_ack=True)
    assert dead.body == 'reject'
    assert dead.headers['x-clihelper-queue'] == f'{queue_name}.here'


def test_a_queue_may_have_another_name_than_its_label(
    configure, channel, queue_name, monkeypatch
):
    monkeypatch.setenv('ORDERS', f'{queue_name}.orders')
    retry = '  retry: {attempts: 2, delay: 0.01}\n'
    section = '  queues: {orders: {name: !env ORDERS}}\n' + retry
    with running(configure(section)) as program:
        publish(channel, '', f'{queue_name}.orders', 'fail')
        program.wait_line("got 'fail' from orders")
        program.wait_line("got 'fail' from orders")
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    dead = channel.basic_get(f'{queue_name}.orders.dead', no_ack=True)
    assert dead.headers['x-clihelper-queue'] == f'{queue_name}.orders'


def test_a_message_of_a_queue_that_the_broker_names_is_run_again(configure, channel):
    section = "  queues: {here: {name: '', exchange: amq.fanout}}\n"
    retry = '  retry: {attempts: 2, delay: 0.01}\n  dead_letter: false\n'
    with running(configure(section + retry)) as program:
        publish(channel, 'amq.fanout', '', 'fail')
        program.wait_line("got 'fail' from here")
        program.wait_line("got 'fail' from here")
        program.wait_line('dropped a message')
        assert program.stop() == 0


def test_a_queue_of_dead_letters_may_be_consumed_itself(configure, channel, queue_name):
    section = '  queues: {NAME: {}, NAME.dead: {arguments: {x-max-length: 9}}}\n'
    with running(configure(section)) as program:
        publish(channel, '', queue_name, 'reject')
        program.wait_line(f"got 'reject' from {queue_name}$")
        program.wait_line(f"got 'reject' from {queue_name}.dead")
        assert program.stop() == 0
    assert channel.basic_get(f'{queue_name}.dead.dead', no_ack=True).body == 'reject'


@pytest.mark.parametrize(
    ('here', 'there', 'said'),
    [
        ('{durable: false}', {},
         "durable is false here, but true in the queue 'NAME' that exists"),
        ('{auto_delete: true}', {},
         "auto_delete is true here, but false in the queue 'NAME' that exists"),
        ('{arguments: {x-message-ttl: 5}}', {'arguments': {'x-message-ttl': 7}},
         "x-message-ttl is 5 here, but 7 in the queue 'NAME' that exists"),
        ('{arguments: {x-message-ttl: 5}}', {},
         "x-message-ttl is 5 here, but not set in the queue 'NAME' that exists"),
        ('{arguments: {}}', {'arguments': {'x-max-length': 7}},
         "x-max-length is not set here, but 7 in the queue 'NAME' that exists"),
        ('{arguments: {x-queue-type: quorum}}', {},
         "x-queue-type is quorum here, but classic in the queue 'NAME' that exists"),
        ('{arguments: {x-queue-type: classic}}', {'arguments': {'x-queue-type': 'quorum'}},
         "x-queue-type is classic here, but quorum in the queue 'NAME' that exists"),
        ('{exclusive: true}', {},
         "cannot obtain exclusive access to locked queue 'NAME' in vhost '/': it belongs to"
         ' another connection, or exists without being exclusive'),
    ],
)
def test_a_queue_that_differs_is_an_error_that_names_what_differs(
    configure, channel, queue_name, here, there, said
):
    channel.queue_declare(queue_name, durable=True, auto_delete=False, **there)
    line = fails(configure(f'  queues: {{NAME: {here}}}\n'))
    assert line == f'AMQP.queues.{queue_name}: ' + said.replace('NAME', queue_name)


@pytest.mark.parametrize(
    ('here', 'said'),
    [
        ('{type: topic}', "type is topic here, but direct in the exchange 'NAME' that exists"),
        ('{durable: false}',
         "durable is false here, but true in the exchange 'NAME' that exists"),
        ('{arguments: {alternate-exchange: x}}',
         "alternate-exchange is x here, but not set in the exchange 'NAME' that exists"),
    ],
)
def test_an_exchange_that_differs_is_such_an_error(configure, channel, queue_name, here, said):
    channel.exchange_declare(queue_name, 'direct', durable=True, auto_delete=False)
    line = fails(configure(f'  exchanges: {{NAME: {here}}}\n'))
    assert line == f'AMQP.exchanges.{queue_name}: ' + said.replace('NAME', queue_name)


def test_a_queue_of_another_connection_is_such_an_error(configure, channel, queue_name):
    channel.queue_declare(queue_name, exclusive=True)
    line = fails(configure('  queues: {NAME: }\n'))
    assert line.startswith(f'AMQP.queues.{queue_name}: cannot obtain exclusive access')


def test_a_queue_of_dead_letters_that_differs_is_such_an_error(configure, channel, queue_name):
    channel.queue_declare(f'{queue_name}.dead', durable=False, auto_delete=False)
    line = fails(configure('  queues: {NAME: }\n'))
    assert line == (
        f"AMQP.dead_letter: durable is true here, but false in the queue '{queue_name}.dead' that"
        ' exists'
    )


@pytest.mark.parametrize(
    ('section', 'said'),
    [
        ('  queues: {q: {name: NAME, arguments: {x-message-ttl: "5"}}}\n',
         'AMQP.queues.q: the broker does not take x-message-ttl: expected integer, got longstr'),
        ('  queues: {q: {name: NAME, arguments: {x-queue-type: quorm}}}\n',
         "AMQP.queues.q: the broker does not take x-queue-type: unsupported queue type 'quorm'"),
        ('  queues: {q: {name: NAME, durable: false, arguments: {x-queue-type: quorum}}}\n',
         'AMQP.queues.q: the broker does not take non-durable'),
        ('  queues: {q: {name: NAME, arguments: {x-dead-letter-routing-key: a}}}\n',
         'AMQP.queues.q: the broker does not take x-dead-letter-routing-key: it also'
         ' requires x-dead-letter-exchange'),
        ('  queues: {q: {name: NAME, exchange: amq.nowhere}}\n',
         "AMQP.queues.q: no exchange 'amq.nowhere' in vhost '/'"),
        ('  queues: {q: {name: amq.q}}\n',
         "AMQP.queues.q: queue name 'amq.q' contains reserved prefix 'amq.*'"),
        ('  exchanges: {NAME: {type: x-no-such-plugin}}\n',
         "AMQP.exchanges.NAME: unknown exchange type 'x-no-such-plugin'"),
        ('  declare: false\n  exchanges: {NAME: }\n',
         "AMQP.exchanges.NAME: no exchange 'NAME' in vhost '/'"),
        ('  declare: false\n  queues: {q: {name: NAME}}\n',
         "AMQP.queues.q: no queue 'NAME' in vhost '/'"),
        ('  declare: false\n  exchanges: {amq.topic: {}}\n  queues: {amq.q: }\n',
         "AMQP.queues.amq.q: no queue 'amq.q' in vhost '/'"),
    ],
)
def test_what_the_broker_does_not_take_is_an_error_of_the_user(
    configure, queue_name, section, said
):
    assert fails(configure(section)) == said.replace('NAME', queue_name)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ("inequivalent arg 'x' for queue 'it's' in vhost '/': received 'a' but current is 'b'",
         "x is a here, but b in the queue 'it's' that exists"),
        ("inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '5' of"
         " type 'longstr' but current is the value '5' of type 'signedint'",
         "x-message-ttl is '5', of type longstr, here, but '5', of type signedint, in the queue"
         " 'q' that exists"),
        # The broker cuts a text that is too long.
        ("inequivalent arg 'durable' for queue 'LLLLL...",
         "inequivalent arg 'durable' for queue 'LLLLL..."),
        ('no words at all', 'no words at all'),
    ],
)
def test_a_text_that_is_not_understood_is_repeated(text, said):
    assert explain(text) == said


def test_declare_false_creates_and_binds_nothing_but_what_goes_with_the_connection(
    configure, channel, queue_name
):
    channel.exchange_declare(queue_name, 'topic', durable=True, auto_delete=False)
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    section = '''\
  declare: false
  dead_letter: false
  retry: {attempts: 1}
  exchanges: {NAME: {type: topic}}
  queues:
    NAME: {exchange: NAME, routing_keys: a}
    here: {name: '', exchange: NAME, routing_keys: a}
'''
    with running(configure(section)) as program:
        publish(channel, queue_name, 'a', 'once')
        program.wait_line("got 'once' from here")
        publish(channel, '', queue_name, 'last')
        program.wait_line(f"got 'last' from {queue_name}")
        assert sum("got 'once'" in line for line in program.lines) == 1
        assert program.stop() == 0


@contextlib.contextmanager
def wire(broker):
    connection = RabbitMQTransport(broker.url(), 0, 5, 'test')
    connection.connect()
    try:
        yield connection
    finally:
        connection.end(5)


def test_a_queue_that_an_old_connection_still_has_is_waited_for(broker, channel, queue_name):
    """The broker has not noticed yet that the connection before this one is dead."""
    channel.queue_declare(queue_name, exclusive=True, durable=True, auto_delete=False)
    text = f'AMQP: {{queues: {{{queue_name}: {{exclusive: true}}}}, dead_letter: false}}'
    section = config.parse(text.encode(), '/', appname='x', shown='x').amqp
    with wire(broker) as connection:
        with pytest.raises(DeclarationRefused):
            Topology(section).establish(connection.channel(), RabbitMQTransport.refusals)
        with pytest.raises(Lost, match='it belongs to another connection'):
            Topology(section).establish(
                connection.channel(), RabbitMQTransport.refusals, again=True)


def test_a_queue_whose_node_is_down_is_waited_for():
    error = amqp.NotFound(
        "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost '/' is down or inaccessible"
    )
    assert DeclarationRefused('AMQP.queues.q', error).transient
    assert not DeclarationRefused('AMQP.queues.q', amqp.NotFound('NOT_FOUND - no queue')).transient


# What a program declares with kombu's classes.

def test_a_program_declares_with_the_classes_of_kombu(configure, channel, queue_name):
    path = configure('  queues: {NAME.more: {exchange: amq.topic, routing_keys: NAME}}\n')
    with running(path, DECLARING, NAME=queue_name) as program:
        program.wait_line(f'declared {queue_name}.orders 0 0')
        sent = {
            'one': (f'{queue_name}.shop', 'order.new', {}, f'{queue_name}.orders'),
            'two': (f'{queue_name}.shop', 'stock.low.tea', {}, f'{queue_name}.both'),
            'three': (f'{queue_name}.audit', '', {'level': 'high'}, f'{queue_name}.both'),
            'four': (f'{queue_name}.news', '', {}, 'here'),
            'five': ('amq.topic', queue_name, {}, f'{queue_name}.more'),
        }
        for body, (exchange, key, headers, queue) in sent.items():
            publish(channel, exchange, key, body, headers=headers)
            program.wait_line(f"got '{body}' from {queue}")
        # It exists, and as kombu would have declared it.
        channel.queue_declare(
            f'{queue_name}.orders', durable=True, auto_delete=False,
            arguments={'x-message-ttl': 60000, 'x-max-length': 10},
        )
        channel.queue_declare(f'{queue_name}.orders.dead', passive=True)
        assert program.stop() == 0


def test_the_arguments_of_a_consumer_reach_the_broker(configure, broker, queue_name):
    section = '  queues: {NAME.low: {consumer_arguments: {x-priority: -7}}}\n'
    with running(configure(section), DECLARING, NAME=queue_name) as program:
        shown = broker.ctl('list_consumers', 'queue_name', 'arguments')
        found = dict(line.split('\t') for line in shown.splitlines() if queue_name in line)
        assert '"x-priority",-7' in found[f'{queue_name}.low'].replace(' ', '')
        assert '"x-priority",3' in found[f'{queue_name}.orders'].replace(' ', '')
        assert program.stop() == 0


@pytest.mark.parametrize(
    ('section', 'said'),
    [
        ('  queues: {NAME.orders: }\n',
         'Declaring.queues: NAME.orders: is already declared: AMQP.queues.NAME.orders'),
        ('  queues: {other: {name: NAME.orders}}\n',
         'Declaring.queues: NAME.orders: is already declared: AMQP.queues.other'),
        ('  exchanges: {NAME.audit: {type: headers}}\n',
         'Declaring.exchanges: NAME.audit: is already declared: AMQP.exchanges.NAME.audit'),
        ('  exchanges: {NAME.shop: {}}\n',
         'Declaring.queues: NAME.orders: exchange NAME.shop: type is topic here, but direct in'
         ' AMQP.exchanges.NAME.shop (no_declare=True refers to that one)'),
    ],
)
def test_what_section_and_program_both_declare_is_an_error_of_the_user(
    configure, queue_name, section, said
):
    path = configure(section)
    done = subprocess.run(
        [sys.executable, DECLARING, '-c', path, '--check'],
        env={'NAME': queue_name, 'PYTHONPATH': str(PROGRAMS.parent.parent)},
        capture_output=True, text=True, timeout=30,
    )
    assert done.stderr == said.replace('NAME', queue_name) + '\n'
    assert done.returncode == 78
    assert fails(path, 78, DECLARING, NAME=queue_name) == said.replace('NAME', queue_name)


SECTION = {
    'url': 'amqp://guest:guest@localhost:5672//', 'exchanges': {}, 'queues': {},
    'dead_letter': True, 'retry': {'attempts': 5},
}


def test_an_exchange_that_several_queues_share_is_declared_once():
    shop = kombu.Exchange('shop', type='topic')
    entities = Entities(
        SECTION, [kombu.Queue('a', shop), kombu.Queue('b', kombu.Exchange('shop', type='topic'))]
    )
    assert list(entities.exchanges) == ['shop']
    with pytest.raises(ConfigurationError, match='type is direct here, but topic in'):
        Entities(SECTION, [kombu.Queue('a', shop), kombu.Queue('b', 'shop')])


def test_what_others_declare_is_not_declared():
    entities = Entities(
        SECTION,
        [
            kombu.Queue('a', kombu.Exchange('shop', no_declare=True), no_declare=True),
            kombu.Queue('b', kombu.Exchange('amq.topic', type='topic'), routing_key='x'),
            kombu.Queue('c'),
        ],
    )
    assert entities.exchanges == {}
    assert [queue['declare'] for queue in entities.queues.values()] == [False, True, True]
    assert entities.queues['b']['bindings'] == [
        {'exchange': 'amq.topic', 'routing_key': 'x', 'arguments': {}}
    ]
    assert entities.queues['c']['bindings'] == []


def test_a_queue_of_kombu_that_cannot_be_consumed_so_is_an_error():
    with pytest.raises(ConfigurationError, match='needs an alias'):
        Entities(SECTION, [kombu.Queue(exclusive=True)], owner='Shop')
    with pytest.raises(ConfigurationError, match='Shop.queues: a: no_ack'):
        Entities(SECTION, [kombu.Queue('a', no_ack=True)], owner='Shop')


@pytest.mark.parametrize(
    ('declared', 'said'),
    [
        ({'queues': [kombu.Queue('q' * 251)]},
         'expected a name of at most 240 bytes, got 251: its retry queues are called'
         ' <queue>.retry.<delay>'),
        ({'queues': [kombu.Queue('q' * 234, queue_arguments={'x-queue-type': 'stream'})]},
         'expected a name of at most 233 bytes, got 234: the broker keeps a stream in a folder'),
        ({'queues': [kombu.Queue('q', kombu.Exchange('e'), routing_key='\u00e9' * 128)]},
         'expected names and routing keys of at most 255 bytes of UTF-8'),
        ({'queues': [kombu.Queue('q', queue_arguments={'x-dead-letter-exchange': 'x' * 256})]},
         'expected names and routing keys'),
        ({'exchanges': [kombu.Exchange('e' * 256)]}, 'expected names and routing keys'),
    ],
)  # fmt: skip
def test_names_that_are_too_long_for_the_broker_are_errors_of_the_user(declared, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        Entities(SECTION, **declared, owner='Shop')


def test_who_declares_in_the_section_alone_does_not_load_kombu(broker, queue_name):
    code = (
        'import sys\n'
        'from clihelper import config\n'
        'from clihelper.amqp.topology import Topology\n'
        'from clihelper.amqp.rabbitmq import RabbitMQTransport\n'
        f"wire = RabbitMQTransport('{broker.url()}', 0, 5, 'test')\n"
        'wire.connect()\n'
        f"text = b'AMQP: {{queues: {{{queue_name}: {{exchange: amq.topic}}}}}}'\n"
        "section = config.parse(text, '/', appname='x', shown='x').amqp\n"
        'Topology(section).establish(wire.channel(), wire.refusals)\n'
        "assert 'kombu' not in sys.modules\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=30)


def test_the_memory_transport_has_such_queues_too(configure):
    section = "  exchanges: {a: {type: fanout}}\n  queues: {here: {name: '', exchange: a}}\n"
    with running(configure(section, 'memory://')) as program:
        assert program.stop() == 0


def test_what_closes_another_channel_is_no_refusal_of_a_declaration(broker, queue_name):
    connection = Connection([broker.url()], 0, 'test')
    connection.open()
    consuming, declaring = connection.channel(), connection.channel()
    consuming.basic_ack(99)
    options = {'durable': True, 'exclusive': True, 'auto_delete': False, 'arguments': {}}
    with pytest.raises(amqp.PreconditionFailed, match='unknown delivery tag'):
        Declarer(declaring, connection.refusals).queue('AMQP.retry', queue_name, options)
    connection.drop()


# Queues that are not consumed.

def exists(channel, queue):
    with channel.connection.channel() as other:
        try:
            other.queue_declare(queue, passive=True)
        except amqp.NotFound:
            return False
        return True


def test_a_queue_that_is_not_consumed_is_declared_and_bound(configure, channel, queue_name):
    config = configure("""
  exchanges: {NAME.x: {}}
  queues:
    NAME: {}
    NAME.audit:
      consume: false
      exchange: NAME.x
      routing_keys: k
      arguments: {x-queue-type: quorum}
""")
    with running(config) as program:
        publish(channel, f'{queue_name}.x', 'k', 'for others')
        publish(channel, '', queue_name, 'for us')
        program.wait_line("got 'for us'")
        end = time.monotonic() + 10
        while True:  # a quorum queue counts a message a moment after it has it
            found = channel.queue_declare(f'{queue_name}.audit', passive=True)
            if found.message_count or time.monotonic() > end:
                break
            time.sleep(0.01)
        assert (found.message_count, found.consumer_count) == (1, 0)
        assert program.stop() == 0
    assert exists(channel, f'{queue_name}.dead')
    assert not exists(channel, f'{queue_name}.audit.dead')


def test_nothing_but_queues_that_are_not_consumed(configure, channel, queue_name):
    config = configure('  queues: {NAME: {consume: false, partitions: 2}}\n')
    with running(config) as program:
        program.wait_line('nothing to consume')
        assert program.stop() == 0
    for number in range(2):
        found = channel.queue_declare(f'{queue_name}.{number}', passive=True)
        assert found.consumer_count == 0
    assert not exists(channel, f'{queue_name}.dead')


def test_with_declare_false_a_queue_that_is_not_consumed_must_exist_alone(
    configure, channel, queue_name
):
    config = configure('  declare: false\n  queues: {NAME: {consume: false}}\n')
    assert f'AMQP.queues.{queue_name}: ' in fails(config)
    channel.queue_declare(queue_name, durable=True, auto_delete=False)
    with running(config) as program:
        assert program.stop() == 0


def test_the_check_looks_only_at_what_such_a_queue_has(configure, channel, queue_name):
    config = configure('  dead_letter: false\n  queues: {NAME: {consume: false}}\n')
    done = subprocess.run(
        [sys.executable, OBEDIENT, '-c', config, '--check', '--broker'],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert 'does not exist yet' in done.stdout + done.stderr
    assert 'what cannot be handled is dropped' not in done.stdout + done.stderr


def parsed(text):
    return config.parse(text, 'app.yml', appname='test', shown='app.yml').amqp


def test_a_loop_of_the_programs_own_consumes_such_a_queue():
    section = parsed(b'AMQP: {queues: {jobs: {consume: false}, more: {}}}')
    assert Topology(section).queues == ['more']
    assert Topology(section_for('jobs', section, ((), (), ''))).queues == ['jobs']


def test_dead_letters_may_be_in_such_a_queue():
    section = parsed(b'AMQP: {dead_letter: failed, queues: {jobs: {}, failed: {consume: false}}}')
    topology = Topology(section)
    assert topology.dead_letters_of('jobs') == 'failed'
    assert topology.dead_letters_of('failed') is None
    assert list(topology.further_queues()) == []
