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

_current: Callable[[], Message | None] = lambda: None  # noqa: E731


def begin(current: Callable[[], Message | None], worker: int) -> None:
    """Begin to handle messages in this process.

    :param current: returns the message that is being handled in the main thread.
    :param worker: the number of this process among the workers.
    """
    global _current
    _current = current
    records.describe_by(lambda: _fields(worker))


def message() -> Message | None:
    """Return the message that is being handled in this thread or task, or None."""
    found = in_hand.get()
    if found is None and threading.current_thread() is threading.main_thread():
        found = _current()
    return found


def trace() -> dict[str, Any]:
    """Return the tracing headers of the message in hand: what is published now continues it."""
    found = message()
    return {} if found is None else found.trace


def _fields(worker: int) -> dict[str, Any]:
    found = message()
    if found is None:
        return {}
    fields: dict[str, Any] = {'queue': found.queue, 'worker': worker, 'attempt': found.attempts}
    try:
        for name in ('message_id', 'correlation_id'):
            fields[name] = found.properties.get(name) or ''
        fields['trace_id'] = trace_id(found.trace.get('traceparent'))
    except (InvalidProperties, UnicodeDecodeError):
        pass
    return fields


def trace_id(traceparent: Any) -> str:
    """Return the trace ID in a ``traceparent`` (W3C Trace Context, section 3.2.2.3), or ''."""
    parts = traceparent.split('-') if isinstance(traceparent, str) else ()
    if len(parts) < 4 or len(parts[1]) != 32 or not parts[1].strip('0'):
        return ''
    return parts[1]
