"""The message that is being handled, for code that is not given it: logging and publishing.

There is one for each thread and each task. Where messages are handled one after another in the
main thread, the processor has it, so that it costs nothing.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

from clihelper.amqp.properties import InvalidProperties
from clihelper.logs import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from clihelper.amqp.message import Message

in_hand: ContextVar[Message | None] = ContextVar('in_hand', default=None)
"""the message of this thread or task"""

_current: Callable[[], Message | None] | None = None


def begin(worker: int, current: Callable[[], Message | None] | None = None) -> None:
    """Begin to handle messages in this process.

    :param worker: the number of this process among the workers.
    :param current: returns the message that is being handled in the main thread; None: none is
        handled there without :data:`in_hand`.
    """
    global _current
    _current = current or _current
    records.describe_by(lambda: _fields(worker))


def message() -> Message | None:
    """Return the message that is being handled in this thread or task, or None."""
    found = in_hand.get()
    if found is not None or _current is None:
        return found
    return _current() if threading.current_thread() is threading.main_thread() else None


def _trace_of_message() -> dict[str, Any]:
    found = message()
    return {} if found is None else found.trace


trace: Callable[[], dict[str, Any]] = _trace_of_message
"""returns the tracing headers of what is published now: those of the message in hand, or others"""


def trace_by(is_wanted: Callable[[], bool], headers: Callable[[], dict[str, Any]]) -> None:
    """Have what is published now continue something else than the message in hand.

    :param is_wanted: returns whether *headers* is to be asked.
    :param headers: returns the tracing headers; empty: those of the message in hand.
    """
    global trace
    trace = lambda: (is_wanted() and headers()) or _trace_of_message()  # noqa: E731


def _fields(worker: int) -> dict[str, Any]:
    found = message()
    if found is None:
        return {}
    fields: dict[str, Any] = {'queue': found.queue, 'worker': worker, 'attempt': found.attempts}
    try:
        for name in ('message_id', 'correlation_id'):
            fields[name] = found.properties.get(name) or ''
        fields['trace_id'] = trace_id(trace().get('traceparent'))
    except (InvalidProperties, UnicodeDecodeError):
        pass
    return fields


def trace_id(traceparent: Any) -> str:
    """Return the trace ID in a ``traceparent`` (W3C Trace Context, section 3.2.2.3), or ''."""
    parts = traceparent.split('-') if isinstance(traceparent, str) else ()
    if len(parts) < 4 or len(parts[1]) != 32 or not parts[1].strip('0'):
        return ''
    return parts[1]
