"""Handling messages with a span of OpenTelemetry for each run, for ``AMQP.tracing``."""

from __future__ import annotations

from functools import lru_cache

from clihelper.amqp import tracing
from clihelper.amqp.concurrency import ConcurrentProcessor
from clihelper.amqp.iteration import IterationProcessor
from clihelper.amqp.processing import Processor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.amqp.processing import Reply
    from clihelper.amqp.settlement import Outcome


class TracedProcessor(Processor):
    """Handles one message at a time."""

    def __init__(self, host: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(host, *arguments, **options)
        tracing.begin(host)
        self._spans = tracing.Spans(host.config.amqp)
        self._runs: dict[Any, tracing.Run] = {}

    def _begin_run(self, unit: Any) -> tracing.Run:
        """Begin the span of a message, or of a batch."""
        messages = getattr(unit, 'messages', None)
        run = self._runs[unit] = self._spans.begin_run(
            unit.queue, messages or [unit], is_batch=messages is not None)
        return run

    def _end_run(self, unit: Any) -> None:
        """End its span, if that has not ended."""
        run = self._runs.pop(unit, None)
        if run is not None:
            run.finish(_outcome_of(unit))

    def handle(self, message: Message) -> None:
        with self._begin_run(message).current():
            try:
                super().handle(message)
            finally:
                self._end_run(message)

    def _finish(self, message: Message, error: BaseException | None, reply: Reply | None) -> None:
        if (run := self._runs.get(message)) is not None:
            run.note(error)
        super()._finish(message, error, reply)

    def _settle(self, message: Message, error: BaseException | None, reply: Reply | None) -> None:
        if (run := self._runs.get(message)) is not None:
            run.note(error)  # that of a message that is not run, too
        super()._settle(message, error, reply)

    def _send_reply(self, message: Message, reply: Reply) -> None:
        if (run := self._runs.get(message)) is not None:
            body, queue, properties = reply
            reply = body, queue, self._spans.reply(run, queue, properties)
        super()._send_reply(message, reply)


class TracedConcurrentProcessor(TracedProcessor, ConcurrentProcessor):
    """Handles several at a time, or batches."""

    def execute(self, message: Any) -> tuple[BaseException | None, Reply | None]:
        run = self._begin_run(message)
        with run.current():
            error, reply = super().execute(message)
        run.note(error)
        return error, reply

    async def run(
        self,
        message: Any,
        on_end: Callable[[Any, BaseException | None, Reply | None], None],
    ) -> None:
        with self._begin_run(message).current():
            try:
                await super().run(message, on_end)
            finally:
                self._end_run(message)

    def end(self, message: Any, error: BaseException | None, reply: Reply | None) -> None:
        if (run := self._runs.get(message)) is not None:
            run.note(error)
        try:
            super().end(message, error, reply)
        finally:
            self._end_run(message)

    def give_up(self, message: Any) -> None:
        super().give_up(message)
        self._end_run(message)


class TracedIterationProcessor(TracedProcessor, IterationProcessor):
    """Settles messages that the body of a loop handles."""

    def start(self, message: Message) -> bool:
        self._begin_run(message)
        is_started = False
        try:
            is_started = super().start(message)
        finally:
            if not is_started:
                self._end_run(message)
        return is_started

    def hold(self, message: Message) -> None:
        super().hold(message)
        if (run := self._runs.get(message)) is not None:
            run.hold()

    def release(self) -> None:
        super().release()
        tracing.release()

    def end(self, message: Message, error: BaseException | None) -> None:
        try:
            super().end(message, error)
        finally:
            self._end_run(message)

    def reset(self) -> None:
        super().reset()
        for message in [*self._runs]:
            self._end_run(message)


@lru_cache
def traced(kind: type[Processor]) -> Any:
    """Return a kind of processor that does the same, with spans."""
    own = TracedConcurrentProcessor if issubclass(kind, ConcurrentProcessor) else TracedProcessor
    if kind in own.__mro__:
        return own
    # Its methods first: they decide what is run, and when.
    return type(f'Traced{kind.__name__}', (kind, own), {})


def _outcome_of(unit: Any) -> Outcome | None:
    """What becomes of a message, or of all messages of a batch."""
    outcomes = {each.outcome for each in getattr(unit, 'messages', None) or [unit]}
    return outcomes.pop() if len(outcomes) == 1 else None
