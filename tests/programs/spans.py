"""A consumer whose spans go to a file, a line for each: KIND says how messages are handled."""

import asyncio
import json
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

import clihelper

KIND = os.environ['KIND']


class ToFile(SpanExporter):
    def __init__(self, path):
        self.path = path

    def export(self, spans):
        with open(self.path, 'a') as file:
            for span in spans:
                file.write(json.dumps(described(span)) + '\n')
        return SpanExportResult.SUCCESS


def described(span):
    return {
        'name': span.name, 'kind': span.kind.name, 'pid': os.getpid(),
        'trace': span.context.trace_id, 'id': span.context.span_id,
        'parent': span.parent.span_id if span.parent else None,
        'links': [each.context.span_id for each in span.links],
        'status': span.status.status_code.name, 'attributes': dict(span.attributes),
        'events': [dict(each.attributes) for each in span.events],
    }


class Exporting:
    def _setup(self):
        super()._setup()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ToFile(self.application_config['spans'])))
        trace.set_tracer_provider(provider)

    def within(self, message):
        """Make a span of the program's own, as its database would."""
        with trace.get_tracer('program').start_as_current_span(f'own {message.body}'):
            if message.body == 'fail':
                raise ValueError('not today')
            if message.body == 'reject':
                raise clihelper.Reject('not ours')


class Plain(Exporting, clihelper.ConsumerController):
    def on_message(self, body, message):
        self.within(message)
        if body == 'publish':
            self.publish('told', routing_key='told', message_id='7')
        return 'done'


class Coroutines(Exporting, clihelper.AsyncConsumerController):
    async def on_message(self, body, message):
        await asyncio.sleep(0.01)
        self.within(message)
        if body == 'publish':
            await self.publish('told', routing_key='told', message_id='7')
        return 'done'


class Batches(Exporting, clihelper.ConsumerController):
    def on_messages(self, messages):
        for message in messages:
            self.within(message)
            if message.body == 'publish':
                self.publish('told', routing_key='told', message_id='7')


class Loop(Exporting, clihelper.Controller):
    def _loop(self):
        for message in self.messages(self.application_config['queue']):
            try:
                self.within(message)
            except clihelper.Reject:
                message.reject()
                continue
            except ValueError:
                message.reject()
                continue
            if message.body == 'publish':
                self.publish('told', routing_key='told', message_id='7')


class AsyncLoop(Exporting, clihelper.IOLoopController):
    def _setup(self):
        super()._setup()
        self.task = asyncio.get_event_loop_policy().get_event_loop().create_task(self.consume())

    async def consume(self):
        async for message in self.messages(self.application_config['queue']):
            self.within(message)
            if message.body == 'publish':
                await self.publish('told', routing_key='told', message_id='7')


KINDS = {'one': Plain, 'threads': Plain, 'coroutines': Coroutines, 'batches': Batches,
         'loop': Loop, 'async loop': AsyncLoop}

clihelper.setup('spans', 'Makes spans.', '1.0.0')
clihelper.run(KINDS[KIND])
