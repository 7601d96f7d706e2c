"""What queues hold: asked of the broker from time to time, and without an effect on consuming."""

from __future__ import annotations

import json
import socket
import time

import pytest

from clihelper.amqp.kombu_transport import KombuTransport
from clihelper.process.statistics import OTHERS, QUEUES, Statistics
from tests.proxy import Proxy
from tests.test_control import clihelper
from tests.test_metrics import KINDS, get, samples, start, wait
from tests.test_workers_amqp import Work, names

AGE = 7.0
"""seconds that a figure is old at most while the broker answers"""


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def status(work):
    return json.loads(clihelper('status', '--json', '--pidfile',
                                work.folder / 'gang.pid').stdout)


def queue(work):
    return status(work)['queues'].get(work.queue, {})


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('kind', KINDS)
def test_what_a_queue_holds_is_shown_everywhere(work, port, kind, workers):
    name, section = KINDS[kind]
    amqp = f'prefetch: {5 if section else 1}\n  {section}retry: {{attempts: 1}}'
    work.channel.queue_declare(work.queue, durable=True, auto_delete=False,
                               arguments={'x-queue-type': 'classic'})
    work.send(*(f'nap {each}' for each in names(60 if section else 12)))
    with start(work, port, f'workers: {workers}', amqp, KIND=name) as daemon:
        found = wait(lambda: (found := queue(work)).get('consumers') == workers and found)
        assert 0 <= found['ready'] < 60
        assert 0 <= found['asked_ago'] < AGE
        work.wait_runs(60 if section else 12, 20, 'done')
        work.send('fail bad')
        found = wait(lambda: (found := queue(work))['dead_letters'] == 1 and found)
        assert found['ready'] == 0
        assert found['asked_ago'] < AGE
        assert found['dead_letters_asked_ago'] < AGE
        shown = clihelper('status', '--pidfile', work.folder / 'gang.pid').stdout
        assert f'{work.queue}  0      ' in shown
        metrics = samples(get(port)[1])
        assert metrics['clihelper_queue_messages', work.queue] == 0
        assert metrics['clihelper_queue_consumers', work.queue] == workers
        assert metrics['clihelper_queue_dead_letters', work.queue] == 1
        assert metrics['clihelper_queue_age_seconds', work.queue] < AGE
        assert metrics['clihelper_dead_letters_total', work.queue, 'exception', 'ValueError'] == 1
        assert status(work)['dead_letter_groups'] == [
            {'queue': work.queue, 'reason': 'exception', 'exception': 'ValueError', 'count': 1}]
        daemon.stop()


def test_a_figure_ages_while_the_broker_is_away(work, port, broker):
    with Proxy(broker.port) as proxy:
        work._url = proxy.url
        with start(work, port) as daemon:
            wait(lambda: queue(work).get('consumers') == 2)
            proxy.swallow()
            proxy.cut()
            before = queue(work)
            found = wait(lambda: (found := queue(work))['asked_ago'] > AGE and found)
            assert (found['ready'], found['consumers']) == (before['ready'], before['consumers'])
            proxy.cut()
            proxy.resume()
            wait(lambda: queue(work)['asked_ago'] < AGE, 40)
            daemon.stop()


def test_a_queue_that_is_gone_has_no_effect_on_consuming_others(work, port):
    with start(work, port) as daemon:
        wait(lambda: queue(work).get('consumers') == 2)
        wait(lambda: queue(work)['dead_letters'] == 0)
        work.channel.queue_delete(f'{work.queue}.dead')
        wait(lambda: queue(work)['dead_letters_asked_ago'] > AGE)
        work.send(*names(10))
        work.wait_done(names(10))
        found = status(work)
        assert found['queues'][work.queue]['asked_ago'] < AGE
        assert found['counted']['reconnects'] == 0
        daemon.stop()


def test_queues_may_share_one_for_their_dead_letters(work, port):
    amqp = f'dead_letter: {work.queue}.all\n  retry: {{attempts: 1}}'
    with start(work, port, amqp=amqp) as daemon:
        wait(lambda: queue(work).get('dead_letters') == 0)
        assert queue(work)['dead_letter_queue'] is None
        work.file.write_text(work.file.read_text() + f'    {work.queue}-2: {{}}\n')
        daemon.signal('HUP')
        work.send('fail bad')

        def told():
            found = [*status(work)['queues'].values()]
            return {(each['dead_letter_queue'], each['dead_letters']) for each in found}

        wait(lambda: len(status(work)['queues']) == 2)
        wait(lambda: told() == {(f'{work.queue}.all', 1)})
        daemon.stop()
    for name in (f'{work.queue}-2', f'{work.queue}.all'):
        work.channel.queue_delete(name)


def test_one_process_asks_at_a_time():
    statistics = Statistics.make(2)
    first, second = statistics.slot(0), statistics.slot(1)
    assert first.claims_question(0.05)
    assert not second.claims_question(0.05)
    assert not first.claims_question(0.05)
    time.sleep(0.06)
    assert second.claims_question(0.05)


def test_the_newest_figure_counts_also_if_its_process_has_ended():
    statistics = Statistics.make(2)
    first, second = statistics.slot(0), statistics.slot(1)
    for number, each in enumerate((first, second)):
        each.begin(number + 1)
        assert each.read().queues == {}
        each.set_depth('orders', 10 + number, None if number else 3)
        each.set_dead('orders', 5)
    statistics.end(1)
    _, (left,), ended = statistics.read()
    assert left.queues['orders'].depth[:2] == (10, 3)
    assert ended.queues['orders'].depth[:2] == (11, None)
    assert (left.queues['orders'] + ended.queues['orders']).depth[:2] == (11, None)
    assert (ended.queues['orders'] + left.queues['orders']).dead[0] == 5
    assert time.monotonic() - ended.queues['orders'].depth[2] < 60


def test_queues_that_are_counted_together_have_no_figure():
    statistics = Statistics.make(1)
    process = statistics.slot(0)
    process.begin(1)
    for number in range(QUEUES + 5):
        process.set_depth(f'q{number}', number, 1)
        process.set_dead(f'q{number}', number)
        process.count_dead_letter(f'q{number}', 'rejected', '')
    found = process.read()
    assert found.queues[f'q{QUEUES - 2}'].depth[0] == QUEUES - 2
    assert found.queues[OTHERS].depth is None
    assert found.queues[OTHERS].dead is None
    counts = {dict(labels)['queue']: numbers[0]
              for (_, _, labels), numbers in found.dead_letters.items()}
    assert counts['q0'] == 1
    assert counts[OTHERS] == 6


def test_transports_of_kombu_know_how_many_but_no_consumers():
    transport = KombuTransport('memory://', 0, 1.0, 'test')
    transport.connect()
    channel = transport.channel()
    channel.queue_declare('there')
    channel.basic_publish(channel.prepare_message('x'), '', 'there')
    answers, refused = [], []
    transport.ask_depths(['there', 'gone', 'there'], lambda *each: answers.append(each),
                         refused.append)
    assert answers == [('there', 1, None)] * 2
    assert refused == ['gone']
    transport.collect()
