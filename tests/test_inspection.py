"""``--check --broker``, and what is known to lose messages, on RabbitMQ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import amqp
import kombu
import pytest

from clihelper import config
from clihelper.amqp import risks
from clihelper.amqp.topology import Topology
from clihelper.testing import Program

PROGRAMS = Path(__file__).parent / 'programs'
CONSUMER = str(PROGRAMS / 'consumer.py')

KEPT = {'durable': True, 'auto_delete': False}


@pytest.fixture
def check(tmp_path, broker, queue_name):
    """Runs ``--check --broker``; returns the status, and the lines of stdout and stderr.

    NAME in the configuration is the test's own; so it is in what comes back.
    """

    def run(section, url=None, program=CONSUMER):
        text = f'AMQP:\n  url: {url or broker.url()}\n{section}' if section is not None else '{}\n'
        (tmp_path / 'app.yml').write_text(text.replace('NAME', queue_name))
        done = subprocess.run(
            [sys.executable, program, '-c', 'app.yml', '--check', '--broker'],
            env={'NAME': queue_name, 'PYTHONPATH': str(PROGRAMS.parent.parent)},
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        output = [
            text.replace(queue_name, 'NAME').splitlines() for text in (done.stdout, done.stderr)
        ]
        return done.returncode, *output

    return run


@pytest.fixture
def channel(broker):
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        yield channel


SHOP = """\
  exchanges: {NAME: {type: topic}}
  queues:
    NAME: {exchange: NAME, routing_keys: a}
    NAME.here: {name: '', exchange: NAME}
"""


def test_what_does_not_exist_yet_is_said_and_not_created(check, channel, queue_name):
    assert check(SHOP) == (0, [
        'app.yml:3:15: AMQP.exchanges.NAME: does not exist yet, and will be declared',
        'app.yml:5:5: AMQP.queues.NAME: does not exist yet, and will be declared',
        'app.yml:1:1: AMQP.dead_letter: NAME.dead: does not exist yet, and will be declared',
        'app.yml:1:1: AMQP.dead_letter: NAME.here.dead: does not exist yet, and will be declared',
        'app.yml: ok',
    ], [])  # fmt: skip
    for name in (queue_name, f'{queue_name}.dead'):
        with pytest.raises(amqp.NotFound):
            channel.queue_declare(name, passive=True)


def test_what_exists_as_declared_is_not_worth_a_word(check, channel, queue_name):
    channel.exchange_declare(queue_name, 'topic', **KEPT)
    for name in (queue_name, f'{queue_name}.dead', f'{queue_name}.here.dead'):
        channel.queue_declare(name, arguments={'x-queue-type': 'quorum'}, **KEPT)
    assert check(SHOP) == (0, ['app.yml: ok'], [])


def test_all_that_is_not_as_declared_is_said_at_once(check, channel, queue_name):
    channel.exchange_declare(queue_name, 'direct', **KEPT)
    channel.queue_declare(queue_name, arguments={'x-max-length': 5}, **KEPT)
    channel.queue_declare(f'{queue_name}.dead', durable=False, auto_delete=False)
    status, _, said = check(SHOP + '    a: {name: amq.a, exchange: amq.nowhere}\n')
    assert status == 69
    assert said == [
        "app.yml:3:15: AMQP.exchanges.NAME: type is topic here, but direct in the exchange 'NAME'"
        ' that exists',
        "app.yml:5:5: AMQP.queues.NAME: x-max-length is not set here, but 5 in the queue 'NAME'"
        ' that exists',
        "app.yml:7:5: AMQP.queues.a: no exchange 'amq.nowhere' in vhost '/'",
        'app.yml:1:1: AMQP.dead_letter: durable is true here, but false in the queue'
        " 'NAME.dead' that exists",
    ]


def test_each_broker_is_asked(check, broker):
    wrong = broker.url().replace('guest:guest', 'guest:secret')
    status, out, said = check('  queues: {NAME: }\n',
                              f'[{wrong}, "{broker.url("nowhere")}", {broker.url()},'
                              ' "amqp://127.0.0.1:1"]')  # fmt: skip
    assert status == 69
    assert [line.partition(': ')[2].replace(str(broker.port), 'PORT') for line in said] == [
        'AMQP.url: amqp://guest:**@127.0.0.1:PORT/%2F refuses the credentials',
        'AMQP.url: amqp://guest:**@127.0.0.1:PORT/nowhere: no such vhost, or no permission for it',
        'AMQP.url: amqp://127.0.0.1:1: [Errno 111] Connection refused',
    ]
    assert all(line.startswith('app.yml:2:') for line in said)
    assert 'AMQP.queues.NAME: does not exist yet, and will be declared' in out[0]
    assert 'app.yml: ok' not in out


RISKY = """\
  dead_letter: false
  queues:
    NAME:
      arguments:
        x-queue-type: quorum
        x-delivery-limit: 5
        x-max-length: 3
    NAME.there:
      arguments:
        x-dead-letter-exchange: NAME.nowhere
"""


def test_what_can_lose_messages_is_a_warning_with_its_place(check):
    status, _, said = check(RISKY)
    assert status == 0
    assert said == [
        'app.yml:8:9: warning: AMQP.queues.NAME: x-delivery-limit is 5: messages are published'
        ' anew after 2 returns, and the queue drops one that is returned 6 times, by stops and'
        ' lost connections, before its turn; set 20 or more',
        'app.yml:9:9: warning: AMQP.queues.NAME: x-max-length is 3: the oldest messages are'
        ' dropped when the queue is full; x-overflow: reject-publish, or x-dead-letter-exchange,'
        ' would keep them',
        'app.yml:3:3: warning: AMQP.queues.NAME: AMQP.dead_letter is false and the queue has no'
        ' x-dead-letter-exchange: what cannot be handled is dropped',
        "app.yml:12:9: warning: AMQP.queues.NAME.there: there is no exchange 'NAME.nowhere': what"
        ' the queue dead-letters is dropped',
    ]


def test_where_nothing_is_declared_what_there_is_is_looked_at(check, channel, queue_name):
    channel.queue_declare(
        queue_name, arguments={'x-queue-type': 'quorum', 'x-delivery-limit': 0}, **KEPT
    )
    channel.queue_declare(f'{queue_name}.dead', **KEPT)
    channel.queue_declare(f'{queue_name}.retry.1s', **KEPT, arguments={
        'x-message-ttl': 1000, 'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': queue_name})  # fmt: skip
    status, _, said = check(
        '  declare: false\n  retry: {attempts: 2}\n  queues:\n    NAME:\n    NAME.no:\n'
    )
    assert status == 69
    assert said == [
        'app.yml:6:5: warning: AMQP.queues.NAME: x-delivery-limit is 0: the queue drops all that'
        ' is prefetched at each stop; set 20 or more',
        'app.yml:4:3: warning: AMQP.retry: NAME.retry.1s is not declared with x-queue-type:'
        ' quorum, x-dead-letter-strategy: at-least-once, x-overflow: reject-publish: a message'
        ' that comes back for its next run is lost if there is no room for it in its queue',
        "app.yml:7:5: AMQP.queues.NAME.no: no queue 'NAME.no' in vhost '/'",
        "app.yml:1:1: AMQP.dead_letter: no queue 'NAME.no.dead' in vhost '/'",
        "app.yml:4:3: AMQP.retry, with declare: false: no queue 'NAME.no.retry.1s' in vhost '/'",
    ]


def test_what_a_program_declares_with_the_classes_of_kombu_is_looked_at(
    check, channel, queue_name
):
    channel.queue_declare(f'{queue_name}.orders', **KEPT)
    status, out, said = check('', program=str(PROGRAMS / 'declaring.py'))
    assert status == 69
    assert 'app.yml: Declaring.queues: NAME.both: does not exist yet, and will be declared' in out
    assert said[-1].startswith('app.yml: Declaring.queues: NAME.orders: x-message-ttl is 60000')


def test_other_transports_are_connected_to(check):
    assert check('  queues: {NAME: {arguments: {x-max-length: 1}}}\n', 'memory://') == (
        0, ['app.yml: ok'], [])  # fmt: skip


def test_a_program_that_consumes_nothing_needs_no_broker(check, broker):
    ticker = str(PROGRAMS / 'ticker.py')
    assert check(None, program=ticker) == (
        0, ['app.yml: no broker is used: there is no section AMQP', 'app.yml: ok'], []
    )  # fmt: skip
    assert check('  queues: {NAME: }\n', program=ticker) == (0, ['app.yml: ok'], [])
    assert check('', 'amqp://127.0.0.1:1', program=ticker)[0] == 69


def topology(text):
    return Topology(config.parse(f'AMQP: {text}'.encode(), '/', appname='x', shown='x').amqp)


@pytest.mark.parametrize(
    ('queue', 'found'),
    [
        ('{}', []),
        ('{arguments: {x-delivery-limit: 20}}', []),
        ('{arguments: {x-delivery-limit: -1}}', []),
        ('{arguments: {x-delivery-limit: 0}}', ['!drops all that is prefetched at each stop']),
        ('{arguments: {x-delivery-limit: 0, x-dead-letter-exchange: x}}', ['!dead-letters all']),
        ('{arguments: {x-delivery-limit: 19}}', ['!anew after 9 returns']),
        ('{arguments: {x-max-length: 3}}', ['x-max-length is 3']),
        ('{arguments: {x-max-length-bytes: 3, x-overflow: drop-head}}',
         ['x-max-length-bytes is 3']),
        ('{arguments: {x-max-length: 3, x-dead-letter-exchange: x}}', []),
        ('{arguments: {x-max-length: 3, x-overflow: reject-publish}}',
         ['!when the broker starts']),
        ('{arguments: {x-max-length: 3, x-overflow: reject-publish, x-queue-type: quorum}}', []),
        ('{arguments: {x-max-length: 3, x-overflow: reject-publish, x-dead-letter-exchange: x}}',
         []),
        ('{exclusive: true, arguments: {x-max-length: 3, x-overflow: reject-publish}}',
         ['!x-overflow is reject-publish: a message that comes back']),
        ('{arguments: {x-message-ttl: 60000}}', ['x-message-ttl is 60000']),
        ('{arguments: {x-message-ttl: 60000, x-dead-letter-exchange: x}}', []),
        ('{arguments: {x-expires: 60000}}', ['x-expires is 60000']),
        ('{auto_delete: true}', ['auto_delete is true']),
        ('{durable: false}', ['durable is false']),
        ("{name: '', arguments: {x-expires: 5}}", []),
        ('{arguments: {x-queue-type: stream}}', ['x-stream-offset']),
        ('{arguments: {x-queue-type: stream}, consumer_arguments: {x-stream-offset: first}}', []),
    ],
)
def test_the_arguments_of_a_queue_tell_what_can_lose_messages(queue, found):
    """Those that nobody has chosen are logged at a start, too."""
    declared = topology(f'{{queues: {{q: {queue}}}}}')
    options = declared.entities.queues['q']
    told = list(risks.risks_of(options, declared.is_own('q')))
    assert len(told) == len(found)
    for risk, words in zip(told, found, strict=True):
        assert words.lstrip('!') in risk.text
        assert risk.chosen != words.startswith('!')
    assert risks.warnings(declared) == [
        f'AMQP.queues.q: {risk.text}' for risk in told if not risk.chosen
    ]


def test_what_nobody_has_chosen_is_logged_at_the_start(tmp_path, broker, queue_name):
    (tmp_path / 'app.yml').write_text(
        f'AMQP:\n  url: {broker.url()}\n' + RISKY.replace('NAME', queue_name)
    )
    with Program([sys.executable, CONSUMER, '-c', str(tmp_path / 'app.yml'), '-f']) as program:
        program.wait_line('WARNING .*x-delivery-limit is 5')
        program.wait_ready(30)
        assert program.stop() == 0
        assert not [line for line in program.lines if 'x-max-length' in line]
