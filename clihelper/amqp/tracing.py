"""Spans of OpenTelemetry for ``AMQP.tracing``: one for each run of a handler, one for each message
that is published.

They follow its semantic conventions for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/). Where the spans go is set up by the
program. What a sampler or a processor of the program raises is logged once, and concerns nothing
else. Nothing imports this module unless the configuration asks for it.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from clihelper.amqp import context, exception_text
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.settlement import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from opentelemetry.context import Context

    from clihelper.amqp.message import Message

    T = TypeVar('T')

LOGGER = logging.getLogger('clihelper.amqp')

ANONYMOUS = ('amq.gen-', 'amq.rabbitmq.reply-to')
"""how names of queues begin that are not told apart in the names of spans"""

_outer: ContextVar[Context | None] = ContextVar('outer', default=None)
_is_told = False


def begin(host: Any) -> None:
    """Have what is published continue the current span, where the configuration says so."""
    context.trace_by(lambda: host.config.amqp['tracing'], _headers)


def _headers() -> dict[str, Any]:
    """The headers that continue the current span."""
    carrier: dict[str, Any] = {}
    propagate.inject(carrier)
    return carrier


class Run:
    """The span of a run of a handler.

    :param span: it.
    :param outer: the context that it continues.
    :ivar error: what the handler has raised.
    :ivar ended: when it has ended, in nanoseconds since the epoch; None: not yet.
    """

    def __init__(self, span: Span, outer: Context) -> None:
        self.span = span
        self.context = trace.set_span_in_context(span, outer)
        self.error: BaseException | None = None
        self.ended: int | None = None

    def note(self, error: BaseException | None) -> None:
        """Note that the handler has ended."""
        self.ended = self.ended or time.time_ns()
        self.error = self.error or error

    def hold(self) -> None:
        """Make it the current one of this thread or task until :meth:`release`."""
        _outer.set(contexts.get_current())
        contexts.attach(self.context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """A context in which it is the current one."""
        token = contexts.attach(self.context)
        try:
            yield
        finally:
            contexts.detach(token)

    def finish(self, outcome: Outcome | None) -> None:
        """End the span.

        :param outcome: what becomes of its message; None: it is delivered again, or several
            messages have different ones.
        """
        _guarded(lambda: self._finish(outcome), None)

    def _finish(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.span.set_attribute('clihelper.outcome', outcome.name.lower())
        if self.error is not None and outcome is not Outcome.REQUEUE:
            _record(self.span, self.error)
        self.span.end(self.ended)


def release() -> None:
    """Make the span of a :class:`Run` that is held here no longer the current one."""
    outer = _outer.get()
    if outer is not None:
        _outer.set(None)
        contexts.attach(outer)


class Spans:
    """Makes spans.

    :param section: ``AMQP``.
    """

    def __init__(self, section: Mapping[str, Any]) -> None:
        url = section['url'] if isinstance(section['url'], str) else section['url'][0]
        scheme = url.partition(':')[0]
        system = 'rabbitmq' if scheme in ('amqp', 'amqps') else scheme
        self._common = {'messaging.system': system}
        # The program may set up its provider later: this one finds it then.
        self._tracer = trace.get_tracer('clihelper')

    def begin_run(self, queue: str, messages: Sequence[Message], *, is_batch: bool) -> Run:
        """Begin the span of a run.

        With one message it is a child of the span that has published it, with several it is
        linked to each of those.
        """
        attributes: dict[str, Any] = {
            **self._common, 'messaging.operation.type': 'process',
            'messaging.operation.name': 'process',
        }
        if is_batch:
            attributes['messaging.batch.message_count'] = len(messages)
        origins = [_origin(each) for each in messages]
        if len(messages) == 1:
            attributes |= _of_message(messages[0], queue)
            outer, links = origins[0], []
        else:
            attributes['messaging.destination.name'] = queue
            outer = contexts.Context()
            found = [trace.get_current_span(each).get_span_context() for each in origins]
            links = [Link(each) for each in found if each.is_valid]
        span = self._start(f'process {_shown(queue)}', outer, SpanKind.CONSUMER, attributes, links)
        return Run(span, outer)

    def begin_send(
        self,
        exchange: str,
        routing_key: str,
        properties: Mapping[str, Any],
        outer: Context | None = None,
    ) -> Span:
        """Begin the span of a message that is published.

        :param outer: the context that it continues; None: the current one.
        """
        parts = [each for each in (exchange, routing_key) if each]
        attributes: dict[str, Any] = {
            **self._common, 'messaging.operation.type': 'send', 'messaging.operation.name': 'send',
            'messaging.destination.name': ':'.join(parts) or 'amq.default',
        }
        if routing_key:
            attributes['messaging.rabbitmq.destination.routing_key'] = routing_key
        attributes |= _identifiers(properties)
        name = f'send {_shown(exchange or routing_key or "amq.default")}'
        return self._start(name, outer, SpanKind.PRODUCER, attributes, [])

    def reply(self, run: Run, queue: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The properties of a reply, which continue a span of its own; that does not wait."""
        span = self.begin_send('', queue, properties, run.context)
        carrier: dict[str, Any] = {}
        propagate.inject(carrier, trace.set_span_in_context(span, run.context))
        end_send(span, None)
        return {**properties, 'headers': {**properties.get('headers', {}), **carrier}}

    def _start(self, name: str, outer: Context | None, kind: SpanKind,
               attributes: dict[str, Any], links: list[Link]) -> Span:
        return _guarded(
            lambda: self._tracer.start_span(name, outer, kind, attributes, links),
            trace.get_current_span(outer) if outer is not None else trace.INVALID_SPAN)


@contextmanager
def sending(span: Span) -> Iterator[None]:
    """A context in which the span is the current one; it has failed if something is raised."""
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as error:
        end_send(span, error)
        raise


def end_send(span: Span, error: BaseException | str | None) -> None:
    """End the span of a message that was published.

    :param error: why it was not, or None.
    """
    def end() -> None:
        if isinstance(error, str):
            span.set_attribute('error.type', 'PublishError')
            span.set_status(Status(StatusCode.ERROR, error))
        elif error is not None:
            _record(span, error)
        span.end()

    _guarded(end, None)


def _record(span: Span, error: BaseException) -> None:
    """Note what was raised, whatever it is; see :mod:`clihelper.amqp.exception_text`."""
    import traceback

    name = exception_text.name(error)
    text = exception_text.text(error)[: exception_text.SHOWN]
    stack = ''.join(traceback.format_exception(exception_text.loggable(error)))
    span.set_attribute('error.type', name)
    span.set_status(Status(StatusCode.ERROR, f'{name}: {text}'))
    span.add_event('exception', {
        'exception.type': name, 'exception.message': text, 'exception.stacktrace': stack})


def _guarded(work: Callable[[], T], otherwise: T) -> T:
    """Return what *work* returns, or *otherwise*: what the program has set up may raise."""
    global _is_told
    try:
        return work()
    except Exception as error:
        if not _is_told:
            _is_told = True
            LOGGER.warning('a span cannot be made, nor perhaps others; this is said once',
                           exc_info=exception_text.loggable(error))
        return otherwise


def _origin(message: Message) -> Context:
    """The context that a message says it was published in."""
    try:
        headers = {name: value for name, value in message.headers.items()
                   if isinstance(value, str)}
    except (InvalidProperties, UnicodeDecodeError):
        headers = {}
    empty = contexts.Context()
    return _guarded(lambda: propagate.extract(headers, empty), empty)


def _of_message(message: Message, queue: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {'messaging.destination.name': queue}
    try:
        exchange, routing_key = message.exchange, message.routing_key
        parts = dict.fromkeys(each for each in (exchange, routing_key, queue) if each)
        attributes['messaging.destination.name'] = ':'.join(parts)
        if routing_key:
            attributes['messaging.rabbitmq.destination.routing_key'] = routing_key
        attributes |= _identifiers(message.properties)
    except (InvalidProperties, UnicodeDecodeError):
        pass
    tag = getattr(message.delivery, 'delivery_tag', None)
    if isinstance(tag, int):
        attributes['messaging.rabbitmq.message.delivery_tag'] = tag
    attributes['clihelper.attempt'] = message.attempts
    return attributes


def _identifiers(properties: Mapping[str, Any]) -> dict[str, str]:
    names = {'message_id': 'messaging.message.id',
             'correlation_id': 'messaging.message.conversation_id'}
    return {attribute: str(properties[name]) for name, attribute in names.items()
            if properties.get(name)}


def _shown(destination: str) -> str:
    return '(anonymous)' if destination.startswith(ANONYMOUS) else destination
