"""What log records say of the message in hand, and what of it goes on with what is published."""

from __future__ import annotations

import json
import logging

import pytest

from clihelper.amqp.context import trace_id
from clihelper.logs import records
from clihelper.logs.formatters import FIELDS, JSONFormatter
from clihelper.testing import Program
from tests.test_workers_amqp import Work

PARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'

PROGRAM = '''
import asyncio, logging, sys
import clihelper

log = logging.getLogger('elsewhere')

class Plain(clihelper.ConsumerController):
    def on_message(self, body, message):
        if body == 'fail' and message.attempts == 1:
            raise ValueError('not today')
        log.info('handling', extra={'own': 1})
        self.publish('meanwhile', routing_key=self.application_config['out'])
        if message.reply_to:
            return 'answer'

class Coroutines(clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        if body == 'fail' and message.attempts == 1:
            raise ValueError('not today')
        await asyncio.sleep(0.05)
        log.info('handling', extra={'own': 1})
        await self.publish('meanwhile', routing_key=self.application_config['out'])
        if message.reply_to:
            return 'answer'

clihelper.setup('traced')
clihelper.run(Coroutines if sys.argv.pop() == 'coroutines' else Plain)
'''

LOGGING = '''
Logging:
  formatters: {json: {(): clihelper.logs.JSONFormatter}}
  handlers: {out: {class: logging.StreamHandler, formatter: json}}
  root: {level: INFO, handlers: [out]}
'''


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture
def out(work):
    """A queue for what is published meanwhile."""
    return work.channel.queue_declare('', exclusive=True).queue


def take(work, queue):
    end = 100
    while (found := work.channel.basic_get(queue, no_ack=True)) is None:
        end -= 1
        assert end, queue
        work._connection.ensure_connection()
        __import__('time').sleep(0.05)
    return work.channel.message_to_python(found)


def publish(work, body, **properties):
    import kombu

    kombu.Producer(work.channel).publish(
        body, routing_key=work.queue, content_type='text/plain', **properties)


@pytest.fixture
def run(work, out):
    import contextlib
    import sys

    @contextlib.contextmanager
    def run(kind):
        work.configure(daemon='workers: 2', amqp={
            'one': '', 'threads': 'threads: 5', 'coroutines': 'concurrency: 5'}[kind]
            + '\n  retry: {attempts: 2, delay: 0}', more=f'out: {out}')
        work.file.write_text(work.file.read_text() + LOGGING)
        program = work.folder / 'traced.py'
        program.write_text(PROGRAM)
        argv = [sys.executable, str(program), '-c', str(work.file), '-f', kind]
        with Program(argv) as running:
            running.wait_ready(30)
            yield running
            assert running.stop() == 0

    return run


@pytest.mark.parametrize('kind', ['one', 'threads', 'coroutines'])
def test_records_have_the_fields_of_their_message_and_its_trace_goes_on(work, out, run, kind):
    answers = work.channel.queue_declare('', exclusive=True).queue
    with run(kind) as program:
        for number in range(10):
            publish(work, 'x', message_id=f'm{number}', correlation_id=f'c{number}',
                    headers={'traceparent': PARENT, 'tracestate': f's={number}'})
        publish(work, 'fail', message_id='failing', reply_to=answers,
                headers={'traceparent': PARENT})
        publish(work, 'plain')
        found = [take(work, out) for _ in range(12)]
        answer = take(work, answers)
    assert answer.headers['traceparent'] == PARENT
    states = {message.headers.get('tracestate') for message in found}
    assert states == {None, *(f's={number}' for number in range(10))}
    assert sum('traceparent' in message.headers for message in found) == 11
    lines = [json.loads(line) for line in program.lines if line.startswith('{')]
    lines = [line for line in lines if line['logger'] == 'elsewhere']
    by_id = {line.get('message_id'): line for line in lines}
    assert len(by_id) == len(lines) == 12
    for number in range(10):
        line = by_id[f'm{number}']
        assert line['correlation_id'] == f'c{number}'
        assert line['queue'] == work.queue
        assert line['trace_id'] == PARENT.split('-')[1]
        assert (line['attempt'], line['own']) == (1, 1)
        assert line['worker'] in (1, 2)
    assert by_id['failing']['attempt'] == 2
    assert 'trace_id' not in by_id[None]
    outside = [json.loads(line) for line in program.lines
               if line.startswith('{') and 'consuming' in line]
    assert outside
    assert not any(set(FIELDS) & line.keys() for line in outside)


def test_a_message_with_a_trace_of_its_own_keeps_it(work, out, run):
    text = PROGRAM.replace("self.application_config['out'])", "self.application_config['out'],"
                           " headers={'traceparent': 'own'})", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), 'PROGRAM', text)
        with run('one'):
            publish(work, 'x', headers={'traceparent': PARENT, 'tracestate': 'a=1'})
            assert take(work, out).headers == {'traceparent': 'own'}


@pytest.mark.parametrize(('traceparent', 'expected'), [
    (PARENT, '4bf92f3577b34da6a3ce929d0e0e4736'), (None, ''), (7, ''), ('', ''), ('00-x-y-z', ''),
    ('00-' + '0' * 32 + '-00f067aa0ba902b7-01', ''),
])
def test_the_trace_id_of_a_traceparent(traceparent, expected):
    assert trace_id(traceparent) == expected


def test_handlers_whose_formatters_ask_for_nothing_have_no_filter():
    plain, json_handler = logging.NullHandler(), logging.NullHandler()
    plain.setFormatter(logging.Formatter('%(message)s'))
    records.attach([plain])
    assert not plain.filters
    json_handler.setFormatter(JSONFormatter())
    records.attach([plain, json_handler])
    assert plain.filters == json_handler.filters != []


def test_what_the_caller_gives_is_not_overwritten():
    handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter('%(queue)s %(attempt)s'))
    records.attach([handler])
    record = logging.makeLogRecord({'queue': 'mine'})
    assert handler.filter(record)
    assert handler.format(record) == 'mine '
