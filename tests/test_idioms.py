"""The idioms of messaging, on RabbitMQ: the programs of ``docs/idioms.rst``, and what lies below.

What else AMQP does that a program relies on is tested elsewhere: virtual hosts and passwords,
a queue deleted under its consumer, and stopping with messages prefetched in ``test_consumer.py``;
replies with the request's ``correlation_id`` there, too; queues that differ or belong to another
connection in ``test_topology.py``. ``basic.nack`` of several messages is nothing that a program on
clihelper can ask for.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import kombu
import pytest

from clihelper.testing import Program
from tests.test_docs import DOCS, DOCUMENTED_URL, ROOT, files_of

PAGE = DOCS / 'idioms.rst'
DOING = str(Path(__file__).parent / 'programs' / 'doing.py')


@pytest.fixture(scope='module')
def url(broker):
    """A virtual host in which the names of the documentation are free."""
    broker.ctl('add_vhost', 'idioms')
    broker.ctl('set_permissions', '-p', 'idioms', 'guest', '.*', '.*', '.*')
    return broker.url('idioms')


@pytest.fixture
def channel(url):
    options = {'confirm_publish': True}
    connecting = kombu.Connection(url, transport_options=options)
    with connecting as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def run(tmp_path, url):
    """Starts documented programs, each with the configuration of its name."""
    for name, text in files_of(PAGE).items():
        (tmp_path / name).write_text(text.replace(DOCUMENTED_URL, url))

    @contextlib.contextmanager
    def start(name, configuration='', **env):
        words = [f'{name}.py', '-c', configuration or f'{name}.yml', '-f']
        with Program(
            [sys.executable, *words], cwd=tmp_path, env={'PYTHONPATH': str(ROOT), **env}
        ) as program:
            yield program

    return start


@contextlib.contextmanager
def ready(running):
    """The program, ready; and stopped in the end."""
    with running as program:
        program.wait_ready(30)
        yield program
        assert program.stop() == 0, str(program)


def publish(channel, body, exchange='', routing_key='', **properties):
    kombu.Producer(channel).publish(
        body, exchange=exchange, routing_key=routing_key, **properties
    )


def count(channel, queue):
    return channel.queue_declare(queue, passive=True).message_count


def found(program, pattern):
    """What the group of *pattern* is in each line that has it."""
    return [match[1] for line in program.lines if (match := re.search(pattern, line))]


# What is documented.

def test_a_broadcast_reaches_all_who_run(run):
    with ready(run('listener')) as one, ready(run('listener')) as two, ready(run('announcer')):
        one.wait_line('heard tea is in')
        two.wait_line('heard tea is in')


def test_a_broadcast_to_nobody_is_lost_and_told(run, channel):
    with ready(run('listener')):
        pass  # the exchange exists from now on
    with ready(run('announcer')) as announcer:
        announcer.wait_line('nobody listens: .*no queue gets it')
    with ready(run('listener')) as late:
        publish(channel, {'news': 'last'}, 'news')
        late.wait_line('heard last')
        assert found(late, 'heard (.*)') == ['last']


def test_a_subscriber_is_notified_of_what_came_while_it_was_away(run, channel):
    subscribers = [run('subscriber', INBOX=f'bills.{who}') for who in ('sales', 'audit')]
    for subscriber in subscribers:
        with ready(subscriber):
            pass  # its queue exists from now on
    for number in range(3):
        publish(channel, {'bill': number}, 'bills', delivery_mode=2)
    with ready(run('subscriber', INBOX='bills.sales')) as sales:
        for number in range(3):
            sales.wait_line(f'bill {number}')
    assert (count(channel, 'bills.sales'), count(channel, 'bills.audit')) == (0, 3)


def test_a_request_has_its_response(run):
    with ready(run('prices')), ready(run('asking')) as asking:
        asking.wait_line('tea is 3')


def test_a_request_that_nobody_responds_to_times_out(run, channel):
    with ready(run('prices')):
        pass  # its queue exists from now on
    with ready(run('asking')) as asking:
        asking.wait_line('no reply: ')
    channel.queue_purge('prices')


def test_work_is_shared(run, channel):
    with ready(run('worker')) as one, ready(run('worker')) as two:
        for number in range(6):
            publish(channel, {'job': number, 'seconds': 0.5}, routing_key='jobs')
        done = []
        for worker in (one, two):
            for _ in range(3):
                worker.wait_line('done: ')
            done += found(worker, r'done: (\d)')
        assert sorted(done) == ['0', '1', '2', '3', '4', '5']


def test_work_is_shared_fairly(run, channel):
    """While one has a long job, the other does the rest."""
    with ready(run('worker')) as one, ready(run('worker')) as two:
        for number, seconds in enumerate([3, 0, 0, 0, 0, 0, 0]):
            publish(channel, {'job': number, 'seconds': seconds}, routing_key='jobs')
        for number in range(1, 7):
            two.wait_line(f'done: {number}')
        one.wait_line('done: 0')


def test_topics_are_routed_by_their_words(run, channel):
    with ready(run('monitor')) as monitor:
        for key in ('log', 'log.error', 'log.error.db', 'other', 'log.info'):
            publish(channel, 'x', 'events', key)
        for queue in ('errors', 'one word', 'all'):
            publish(channel, 'last', routing_key=queue)
        for _ in range(3):
            monitor.wait_line('last$')
        got = {
            queue: found(monitor, rf'{queue}: (\S+) x$') for queue in ('errors', 'one word', 'all')
        }
    assert got == {
        'errors': ['log.error', 'log.error.db'],
        'one word': ['log.error', 'log.info'],
        'all': ['log', 'log.error', 'log.error.db', 'log.info'],
    }


def test_dead_letters_are_replayed(run, channel, tmp_path):
    with ready(run('strict')) as strict:
        for quantity in (11, 12):
            publish(channel, {'quantity': quantity}, routing_key='parcels')
            strict.wait_line('dead-lettered a message')
    assert count(channel, 'parcels.dead') == 2
    with run('replay') as replay:
        assert replay.wait() == 0
        assert found(replay, 'again: (.*)') == ['too many'] * 2
    assert (count(channel, 'parcels'), count(channel, 'parcels.dead')) == (2, 0)
    strict = tmp_path / 'strict.yml'
    strict.write_text(strict.read_text().replace('limit: 10', 'limit: 11'))
    with ready(run('strict')) as strict:
        strict.wait_line('shipped 11')
        strict.wait_line('dead-lettered a message')
    assert count(channel, 'parcels.dead') == 1


def test_the_dead_letters_of_the_broker_tell_their_story(run, channel):
    with ready(run('deaths')) as deaths:
        publish(channel, 'x', routing_key='letters')
        deaths.wait_line('rejected 1 x from letters')


def test_a_queue_is_polled(run, channel):
    with ready(run('nightly')) as nightly:
        nightly.wait_line("there is no queue 'reports'")
    channel.queue_declare('reports', durable=True, auto_delete=False)
    for number in range(3):
        publish(channel, {'report': number}, routing_key='reports')
    with ready(run('nightly')) as nightly:
        for number in range(3):
            nightly.wait_line(f'printing {number}')
    assert count(channel, 'reports') == 0


def test_the_depth_of_a_queue_is_read(run, channel):
    channel.queue_declare('stock', durable=True, auto_delete=False)
    for _ in range(4):
        publish(channel, 'x', routing_key='stock')
    assert channel.basic_get('stock') is not None  # not settled, and so not counted
    with ready(run('gauge')) as gauge:
        gauge.wait_line('stock: 3 wait')
        gauge.wait_line("there is no queue 'stock.dead'")


def test_the_progress_of_a_task_is_followed(run):
    with ready(run('baker')), ready(run('customer')) as customer:
        for state in ('mixing', 'baking', 'done'):
            customer.wait_line(f'cake.lemon is {state}')


# What lies below.

@pytest.fixture
def doing(tmp_path, url, queue_name):
    """Starts a program that does what it is asked to by messages in its queue."""

    @contextlib.contextmanager
    def start(queue='{}', more=''):
        path = tmp_path / 'doing.yml'
        path.write_text(f'AMQP:\n  url: {url}\n  queues: {{{queue_name}: {queue}}}\n{more}')
        with Program([sys.executable, DOING, '-c', str(path), '-f']) as program:
            program.wait_ready(30)
            yield program

    return start


@pytest.fixture
def ask(channel, queue_name):
    def ask(program, method, *arguments, **keywords):
        publish(channel, [method, arguments, keywords], routing_key=queue_name)
        return program.wait_line(f'{method} (returned|raised) (.*)')[2]

    return ask


def test_messages_go_round_the_consumers_of_a_queue(doing, channel, queue_name):
    with doing() as one, doing() as two:
        for number in range(6):
            publish(channel, f'm{number}', routing_key=queue_name)
        for number in range(6):
            (two if number % 2 else one).wait_line(f"got 'm{number}'")
        assert one.stop() == two.stop() == 0


def test_what_a_dead_consumer_had_goes_to_another(doing, channel, queue_name):
    with doing() as one:
        publish(channel, 'hold', routing_key=queue_name)
        one.wait_line("got 'hold' redelivered=False")
        with doing() as two:
            one.signal('KILL')
            one.wait()
            two.wait_line("got 'hold' redelivered=True")
            two.signal('QUIT')
            two.wait()
    channel.queue_purge(queue_name)


def test_what_is_not_settled_is_recovered(doing, ask, channel, queue_name):
    with doing(more='  prefetch: 10\n') as program:
        publish(channel, ['recover', [], {}], routing_key=queue_name)
        program.wait_line('recover returned None')
        program.wait_line('recover returned None')  # it is in hand, and comes again as well
        program.signal('QUIT')
        program.wait()
    channel.queue_purge(queue_name)


def test_the_depth_counts_what_is_ready(doing, ask, channel, queue_name):
    channel.queue_declare(f'{queue_name}.x', durable=True, auto_delete=False)
    with doing() as program:
        assert ask(program, 'queue_depth', f'{queue_name}.x') == '0'
        publish(channel, 'x', routing_key=f'{queue_name}.x')
        publish(channel, 'x', routing_key=f'{queue_name}.x')
        assert ask(program, 'queue_depth', f'{queue_name}.x') == '2'
        assert channel.basic_get(f'{queue_name}.x')
        assert ask(program, 'queue_depth', f'{queue_name}.x') == '1'
        assert ask(program, 'queue_depth', 'nowhere').startswith('LookupError')
        assert ask(program, 'queue_depth', f'{queue_name}.x') == '1'
        assert program.stop() == 0


def test_one_message_is_got_without_a_subscription(doing, ask, channel, queue_name):
    channel.queue_declare(f'{queue_name}.x', durable=True, auto_delete=False)
    publish(channel, {'a': 1}, routing_key=f'{queue_name}.x')
    publish(channel, 'two', routing_key=f'{queue_name}.x')
    with doing() as program:
        assert ask(program, 'get', f'{queue_name}.x') == "{'a': 1}"
        assert ask(program, 'queue_depth', f'{queue_name}.x') == '1'
        assert ask(program, 'get', f'{queue_name}.x') == "'two'"
        assert ask(program, 'get', f'{queue_name}.x') == 'None'
        assert ask(program, 'get', 'nowhere').startswith('LookupError')
        assert program.stop() == 0


@pytest.mark.parametrize(
    ('target', 'why'),
    [
        ({'routing_key': 'nowhere'}, 'no queue gets it'),
        ({'exchange': 'nowhere'}, "no exchange 'nowhere'"),
        ({'routing_key': 'NAME.full'}, ''),
        ({'routing_key': 'NAME.x', 'user_id': 'somebody'}, 'user_id'),
    ],
)
def test_publishing_raises_where_the_broker_has_not_the_message(
    doing, ask, channel, queue_name, target, why
):
    """All four are errors: an unroutable message would be confirmed if it were not mandatory."""
    channel.queue_declare(
        f'{queue_name}.full', durable=True, auto_delete=False,
        arguments={'x-max-length': 1, 'x-overflow': 'reject-publish'},
    )
    publish(channel, 'x', routing_key=f'{queue_name}.full')
    channel.queue_declare(f'{queue_name}.x', durable=True, auto_delete=False)
    target = {key: value.replace('NAME', queue_name) for key, value in target.items()}
    with doing() as program:
        said = ask(program, 'publish', 'x', **target)
        assert said.startswith('PublishError')
        assert why in said
        # And the next one is published all the same.
        assert ask(program, 'publish', 'x', routing_key=f'{queue_name}.x') == 'None'
        assert program.stop() == 0
    assert count(channel, f'{queue_name}.x') == 1
    assert count(channel, f'{queue_name}.full') == 1


def test_a_request_says_where_its_reply_is_awaited(doing, ask, channel, queue_name):
    replies = channel.queue_declare(exclusive=True).queue
    with doing() as program:
        answer = ask(program, 'call', 'x', routing_key='nowhere', timeout=1)
        assert answer.startswith('PublishError')
        answer = ask(program, 'call', 'x', routing_key=replies, timeout=0.2)
        assert answer.startswith(('TimeoutError', 'NoReply'))
        assert program.stop() == 0
    request = channel.message_to_python(channel.basic_get(replies, no_ack=True))
    assert request.properties['reply_to'].startswith('amq.rabbitmq.reply-to')
    assert request.properties['correlation_id']
