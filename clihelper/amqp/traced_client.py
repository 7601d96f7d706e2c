"""Publishing with a span of OpenTelemetry for each message, for ``AMQP.tracing``.

A span lasts until the broker has confirmed its message.
"""

from __future__ import annotations

from functools import partial

from clihelper.amqp import tracing
from clihelper.amqp.publisher import PublishError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from typing import Any, Self

    from opentelemetry.trace import Span


class TracedClient:
    """A client, with spans.

    :param host: the life cycle.
    :param client: a :class:`~clihelper.amqp.client.Client`, which does the rest.
    """

    def __init__(self, host: Any, client: Any) -> None:
        tracing.begin(host)
        self._spans = tracing.Spans(host.config.amqp)
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def publish(
        self, body: Any, exchange: str, routing_key: str, properties: Mapping[str, Any],
        **options: Any,
    ) -> Any:
        """Publish one message."""
        span = self._spans.begin_send(exchange, routing_key, properties)
        with tracing.sending(span):
            self._client.publish(body, exchange, routing_key, properties, **options)
        tracing.end_send(span, None)

    def call(
        self, body: Any, exchange: str, routing_key: str, timeout: float,
        properties: Mapping[str, Any],
    ) -> Any:
        """Publish a request; the span lasts until the reply."""
        span = self._spans.begin_send(exchange, routing_key, properties)
        with tracing.sending(span):
            answer = self._client.call(body, exchange, routing_key, timeout, properties)
        tracing.end_send(span, None)
        return answer

    def pipeline(self) -> Any:
        """A pipeline, with spans."""
        return TracedPipeline(self._spans, self._client.pipeline())


class TracedAsyncClient(TracedClient):
    """The same on an event loop.

    :param client: a :class:`~clihelper.amqp.async_client.AsyncClient`.
    """

    def publish(
        self, body: Any, exchange: str, routing_key: str, properties: Mapping[str, Any],
        **options: Any,
    ) -> Any:
        span = self._spans.begin_send(exchange, routing_key, properties)
        with tracing.sending(span):
            future = self._client.publish(body, exchange, routing_key, properties, **options)
        if hasattr(future, 'add_done_callback'):
            future.add_done_callback(partial(_end, span))
        else:
            tracing.end_send(span, None)
        return future

    async def call(
        self, body: Any, exchange: str, routing_key: str, timeout: float,
        properties: Mapping[str, Any],
    ) -> Any:
        span = self._spans.begin_send(exchange, routing_key, properties)
        with tracing.sending(span):
            answer = await self._client.call(body, exchange, routing_key, timeout, properties)
        tracing.end_send(span, None)
        return answer

    def pipeline(self) -> Any:
        return TracedAsyncPipeline(self._spans, self._client.pipeline())


def _end(span: Span, future: asyncio.Future[None]) -> None:
    if future.cancelled():
        tracing.end_send(span, 'cancelled')
    else:
        tracing.end_send(span, future.exception())


class TracedPipeline:
    """A pipeline, with spans.

    :param pipeline: what does the rest.
    """

    def __init__(self, spans: tracing.Spans, pipeline: Any) -> None:
        self._spans = spans
        self._pipeline = pipeline
        self._sent: list[Span] = []

    def publish(
        self, body: Any, exchange: str = '', routing_key: str = '', **options: Any
    ) -> None:
        """Publish a message without waiting."""
        span = self._spans.begin_send(exchange, routing_key, options)
        with tracing.sending(span):
            self._pipeline.publish(body, exchange, routing_key, **options)
        self._sent.append(span)

    def flush(self) -> None:
        """Wait for the confirmations."""
        try:
            self._pipeline.flush()
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.flush()
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """End the spans; each has failed if its message has, or if it is not known which."""
        sent, self._sent = self._sent, []
        known = dict(error.failed) if isinstance(error, PublishError) else {}
        for number, span in enumerate(sent):
            tracing.end_send(span, known.get(number) if known else error)


class TracedAsyncPipeline(TracedPipeline):
    """The same on an event loop."""

    async def publish(  # type: ignore[override]
        self, body: Any, exchange: str = '', routing_key: str = '', **options: Any
    ) -> None:
        span = self._spans.begin_send(exchange, routing_key, options)
        with tracing.sending(span):
            await self._pipeline.publish(body, exchange, routing_key, **options)
        self._sent.append(span)

    async def flush(self) -> None:  # type: ignore[override]
        try:
            await self._pipeline.flush()
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if error is None:
            await self.flush()
        self._end(error)
