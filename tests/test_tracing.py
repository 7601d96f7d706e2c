"""Spans of OpenTelemetry: one for each run of a handler, one for each message published."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import kombu
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import clihelper
from clihelper.testing import Harness, Outcome, Program

PROGRAM = str(Path(__file__).parent / 'programs' / 'spans.py')
CONFIG = ('AMQP: {url: "memory://", queues: {q: }, retry: {attempts: 2, delay: 3}, tracing: true,'
          ' %s}')
PARENT, TRACE = 0x1234567890abcdef, 0x1234567890abcdef1234567890abcdef
TRACEPARENT = f'00-{TRACE:032x}-{PARENT:016x}-01'

# In this process, with the exporter of the SDK.


@pytest.fixture(scope='session')
def exporter():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter):
    exporter.clear()
    return exporter.get_finished_spans


class Plain(clihelper.ConsumerController):
    def on_message(self, body, message):
        if body == 'hostile':
            raise Hostile
        with trace.get_tracer('program').start_as_current_span('own'):
            self.act(body)
        return 'done'

    def act(self, body):
        if body == 'publish':
            self.publish('told', 'news', 'a.b', message_id='7', correlation_id='8')
        elif body == 'own header':
            self.publish('told', 'news', 'a.b', headers={'traceparent': 'mine'})
        elif body == 'pipeline':
            with self.pipeline() as pipeline:
                pipeline.publish('first', routing_key='told')
                pipeline.publish('second', routing_key='told')
        elif body == 'unencodable':
            self.publish(object(), routing_key='told')
        elif isinstance(body, str) and hasattr(clihelper, body):
            raise getattr(clihelper, body)
        elif body == 'fail':
            raise ValueError('not today')


class Hostile(Exception):
    def __str__(self):
        raise ValueError('no text')


class Coroutines(Plain, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        if body == 'hostile':
            raise Hostile
        with trace.get_tracer('program').start_as_current_span('own'):
            if body == 'publish':
                await self.publish('told', 'news', 'a.b', message_id='7', correlation_id='8')
            elif body == 'pipeline':
                async with self.pipeline() as pipeline:
                    await pipeline.publish('first', routing_key='told')
                    await pipeline.publish('second', routing_key='told')
            else:
                self.act(body)
        return 'done'


class Ordered(Plain):
    def order_key(self, message):
        return 'same'


CLASSES = {'one': (Plain, ''), 'threads': (Plain, 'threads: 3'), 'coroutines': (Coroutines, ''),
           'in order': (Ordered, ''), 'threads in order': (Ordered, 'threads: 3')}


@pytest.fixture(params=CLASSES)
def harness(request):
    kind, keys = CLASSES[request.param]
    with Harness(kind, CONFIG % keys) as harness:
        yield harness


def test_a_run_has_a_span_by_the_conventions(harness, spans):
    done = harness.deliver('x', message_id='5', correlation_id='6', routing_key='r.k',
                           exchange='shop', headers={'traceparent': TRACEPARENT})
    assert done.outcome is Outcome.ACK
    own, run = spans()
    assert (run.name, run.kind) == ('process q', SpanKind.CONSUMER)
    assert (run.parent.span_id, run.context.trace_id) == (PARENT, TRACE)
    assert own.parent.span_id == run.context.span_id
    assert run.status.status_code is StatusCode.UNSET
    attributes = dict(run.attributes)
    attributes.pop('messaging.rabbitmq.message.delivery_tag')
    assert attributes == {
        'messaging.system': 'memory', 'messaging.operation.type': 'process',
        'messaging.operation.name': 'process', 'messaging.destination.name': 'shop:r.k:q',
        'messaging.rabbitmq.destination.routing_key': 'r.k', 'messaging.message.id': '5',
        'messaging.message.conversation_id': '6', 'clihelper.outcome': 'ack',
        'clihelper.attempt': 1,
    }


@pytest.mark.parametrize(('body', 'outcome', 'error'), [
    ('fail', 'retry', 'ValueError'), ('Reject', 'dead_letter', 'Reject'),
    ('Retry', 'retry', 'Retry'), ('Requeue', 'requeue', None), ('hostile', 'retry', 'Hostile'),
    ('unencodable', 'retry', 'TypeError'),
])
def test_what_becomes_of_it_is_in_the_span(harness, spans, body, outcome, error):
    harness.deliver(body)
    run = spans()[-1]
    assert run.attributes['clihelper.outcome'] == outcome
    assert run.attributes.get('error.type') == error
    if error is None:
        assert run.status.status_code is StatusCode.UNSET
        assert not run.events
    else:
        assert run.status.status_code is StatusCode.ERROR
        (event,) = run.events
        assert event.attributes['exception.type'] == error


def test_a_body_that_cannot_be_read_is_an_error_and_is_not_shown(harness, spans):
    harness.deliver(b'{secret', content_type='application/json')
    (run,) = spans()
    assert run.attributes['error.type'] == 'Undecodable'
    assert run.attributes['clihelper.outcome'] == 'dead_letter'
    assert 'secret' not in run.to_json()


@pytest.mark.parametrize('traceparent', ['', 'x', '00-0-0-0', 5, {'a': 1}, None])
def test_a_foreign_header_begins_a_trace(harness, spans, traceparent):
    harness.deliver('x', headers={'traceparent': traceparent})
    assert spans()[-1].parent is None


def test_what_is_published_continues_a_span_of_its_own(harness, spans):
    harness.deliver('publish', headers={'traceparent': TRACEPARENT})
    send, own, run = sorted(spans(), key=lambda span: -span.start_time)
    assert (send.name, send.kind) == ('send news', SpanKind.PRODUCER)
    assert send.parent.span_id == own.context.span_id
    assert own.parent.span_id == run.context.span_id
    assert dict(send.attributes) == {
        'messaging.system': 'memory', 'messaging.operation.type': 'send',
        'messaging.operation.name': 'send', 'messaging.destination.name': 'news:a.b',
        'messaging.rabbitmq.destination.routing_key': 'a.b', 'messaging.message.id': '7',
        'messaging.message.conversation_id': '8',
    }
    (told,) = harness.published
    assert told.headers['traceparent'] == f'00-{TRACE:032x}-{send.context.span_id:016x}-01'


def test_each_message_of_a_pipeline_has_its_own(harness, spans):
    harness.deliver('pipeline')
    _, _, first, second = sorted(spans(), key=lambda span: span.start_time)
    assert [each.name for each in (first, second)] == ['send told', 'send told']
    assert [each.headers['traceparent'].split('-')[2] for each in harness.published] == [
        f'{each.context.span_id:016x}' for each in (first, second)]


def test_a_reply_continues_the_run(harness, spans):
    harness.deliver('x', reply_to='amq.rabbitmq.reply-to.g1h2')
    own, send, run = spans()
    assert (own.name, send.name) == ('own', 'send (anonymous)')
    assert send.parent.span_id == run.context.span_id


def test_a_header_of_the_programs_own_wins(spans):
    with Harness(Plain, CONFIG % '') as harness:
        harness.deliver('own header')
        (told,) = harness.published
    assert told.headers == {'traceparent': 'mine'}


def test_what_fails_in_publishing_is_in_its_span(spans):
    with Harness(Plain, CONFIG % '') as harness:
        harness.deliver('unencodable')
    send = spans()[0]
    assert send.name == 'send told'
    assert send.status.status_code is StatusCode.ERROR
    assert send.attributes['error.type'] == 'TypeError'


class Batches(clihelper.ConsumerController):
    def on_messages(self, messages):
        self.logger.info('here')
        if any(each.body == 'fail' for each in messages):
            raise ValueError('not today')


@pytest.mark.parametrize('keys', ['batch: {size: 4}', 'batch: {size: 4}, threads: 2'])
def test_a_batch_is_linked_to_what_published_its_messages(spans, keys):
    with Harness(Batches, CONFIG % keys) as harness:
        harness.deliver_batch(['a', 'b', 'c'])
    (run,) = spans()
    assert run.name == 'process q'
    assert run.attributes['messaging.batch.message_count'] == 3
    assert run.attributes['messaging.destination.name'] == 'q'
    assert run.attributes['clihelper.outcome'] == 'ack'
    assert run.parent is None


def test_each_half_of_a_batch_that_failed_has_a_span(spans):
    with Harness(Batches, CONFIG % 'batch: {size: 4}') as harness:
        harness.deliver_batch(['a', 'fail'])
    assert [each.attributes['messaging.batch.message_count'] for each in spans()] == [2, 1, 1]
    assert [each.attributes.get('error.type') for each in spans()] == [
        'ValueError', None, 'ValueError']


def test_a_processor_that_raises_concerns_nothing_else(exporter, spans, caplog, monkeypatch):
    def refuse(self, *arguments, **options):
        raise OSError('no room')

    monkeypatch.setattr(SimpleSpanProcessor, 'on_end', refuse)
    monkeypatch.setattr(SpanProcessor, 'on_start', refuse)
    with Harness(Plain, CONFIG % '') as harness:
        assert harness.deliver('x').error is not None  # that of the program's own span
        assert harness.deliver('x').message is not None
    assert caplog.text.count('a span cannot be made') <= 1


def test_log_records_have_the_trace_that_begins_here(spans):
    from clihelper.amqp import context

    found = []

    class Noting(Plain):
        def act(self, body):
            found.append(context.trace_id(context.trace()['traceparent']))

    with Harness(Noting, CONFIG % '') as harness:
        harness.deliver('x')
    assert found == [f'{spans()[0].context.trace_id:032x}']


# As programs.

@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('kind', ['one', 'threads', 'coroutines', 'batches', 'loop', 'async loop'])
def test_it_holds_on_a_real_broker_and_in_workers(tmp_path, broker, queue_name, kind, workers):
    if workers == 2 and 'loop' in kind:
        workers = 1
    keys = {'threads': 'threads: 4,', 'batches': 'batch: {size: 3, wait: 0.5},'}.get(kind, '')
    file = tmp_path / 'traced.yml'
    file.write_text(
        f'Application: {{spans: {tmp_path}/spans, queue: {queue_name}}}\n'
        f'Daemon: {{workers: {workers}}}\n'
        f'AMQP: {{url: "{broker.url()}", tracing: true, {keys}\n'
        f'       retry: {{attempts: 2, delay: 0}}, queues: {{{queue_name}: }}}}\n')
    with kombu.Connection(broker.url()) as connection:
        channel = connection.channel()
        channel.queue_declare('told', durable=True, auto_delete=False)
        channel.queue_purge('told')
        if 'loop' in kind:
            channel.queue_declare(queue_name, durable=True, auto_delete=False)
        with Program([sys.executable, PROGRAM, '-c', str(file), '-f'],
                     env={'KIND': kind}) as program:
            program.wait_ready(30)
            producer = kombu.Producer(channel)
            bodies = ['a', 'publish'] + (['fail'] if kind != 'async loop' else [])
            for body in bodies:
                producer.publish(body, routing_key=queue_name, content_type='text/plain',
                                 headers={'traceparent': TRACEPARENT})
            found = wait_spans(tmp_path / 'spans', kind)
            assert program.stop() == 0
        message = channel.basic_get('told', no_ack=True)
        headers = message.headers
        channel.queue_delete(queue_name)
    sends = [each for each in found if each['kind'] == 'PRODUCER']
    runs = [each for each in found if each['kind'] == 'CONSUMER']
    assert {each['attributes']['messaging.system'] for each in runs} == {'rabbitmq'}
    assert headers['traceparent'].split('-')[2] in {f'{each["id"]:016x}' for each in sends}
    owns = [each for each in found if each['name'].startswith('own')]
    ids = {each['id'] for each in runs}
    assert owns
    assert all(each['parent'] in ids for each in owns)
    if kind == 'batches':
        assert all(each['parent'] == PARENT or set(each['links']) == {PARENT} for each in runs)
    else:
        assert {each['parent'] for each in runs} == {PARENT}
        assert {each['trace'] for each in runs} == {TRACE}


def wait_spans(path, kind):
    """The spans, once there are those of each message."""
    end = time.monotonic() + 20
    while True:
        found = [json.loads(line) for line in path.read_text().splitlines()] if (
            path.exists()) else []
        outcomes = [each['attributes'].get('clihelper.outcome') for each in found]
        sent = any(each['kind'] == 'PRODUCER' for each in found)
        if sent and (kind == 'async loop' or 'dead_letter' in outcomes):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_without_it_nothing_is_imported(tmp_path):
    program = tmp_path / 'plain.py'
    program.write_text(
        'import sys, clihelper\n'
        'from clihelper.testing import Harness\n'
        'class C(clihelper.ConsumerController):\n'
        '    def on_message(self, body, message):\n'
        '        self.publish(1, routing_key="q")\n'
        'with Harness(C, \'AMQP: {url: "memory://", queues: {q: }}\') as harness:\n'
        '    harness.deliver("x")\n'
        'print([name for name in sys.modules if "opentelemetry" in name or ".trac" in name])\n')
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


def test_where_the_package_is_missing_that_is_one_line_and_status_78(tmp_path):
    (tmp_path / 'opentelemetry.py').write_text('raise ImportError\n')
    file = tmp_path / 'c.yml'
    file.write_text('AMQP:\n  tracing: true\n')
    program = tmp_path / 'program.py'
    program.write_text('import clihelper\n'
                       'class C(clihelper.Controller):\n'
                       '    def _process(self): pass\n'
                       'clihelper.setup("c", "c", "1")\nclihelper.run(C)\n')
    for more in ('--check', '-f'):
        done = subprocess.run([sys.executable, str(program), '-c', str(file), more],
                              capture_output=True, text=True)
        assert done.returncode == 78
        assert done.stderr == (f'{file}:2:12: AMQP.tracing: needs the package'
                               ' opentelemetry-api, which is not installed\n')
