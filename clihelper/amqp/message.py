"""A message as a handler sees it, and its body decoded."""

from __future__ import annotations

import sys
from functools import lru_cache

from clihelper.amqp.settlement import (
    EXCHANGE,
    ROUTING_KEY,
    Outcome,
    Oversize,
    Unaccepted,
    Undecodable,
    runs_before,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any


ALL = ('json', 'text', 'binary')
"""The kinds of bodies, all that ``AMQP.accept`` may list."""

COPIED = ('priority', 'correlation_id', 'reply_to', 'message_id', 'timestamp', 'type', 'app_id')
"""The basic properties that a copy of a message keeps."""


class Message:
    """One delivery. Its handler may settle it; otherwise what the handler does settles it.

    :ivar str queue: the queue that it came from: the key that it stands under in ``AMQP.queues``.
    :ivar bytes raw: the body as it came.
    :ivar delivery: kombu's message, or what is like it.
    :ivar outcome: what the handler itself made of it, or None.
    """

    __slots__ = ('_runs', '_settle', 'delivery', 'outcome', 'queue', 'raw')

    def __init__(
        self, delivery: Any, queue: str, settle: Callable[[Message, Outcome], None]
    ) -> None:
        body = delivery.body
        self.raw: bytes = body if type(body) is bytes else _as_bytes(body)
        self.queue = queue
        self.outcome: Outcome | None = None
        self.delivery = delivery
        self._settle = settle
        self._runs = 0

    @property
    def body(self) -> Any:
        """The body, decoded: an object for JSON, ``str`` for ``text/*``, else ``bytes``.

        :raises clihelper.amqp.settlement.Undecodable: it is not what its content type says.
        :raises clihelper.amqp.settlement.Unaccepted: the content type is another.
        """
        return decode(self, ALL, sys.maxsize)

    @property
    def attempts(self) -> int:
        """How often it has been run, this time included: 1 for the first."""
        return self._runs + runs_before(self.headers) + 1

    def has_run(self, runs: int) -> None:
        """It has been run so many times more often than its headers know."""
        self._runs += runs

    def run_again(self) -> None:
        """It has been run and failed, and is still here to be run once more."""
        self._runs += 1
        self.outcome = None

    @property
    def properties(self) -> dict[str, Any]:
        """AMQP's basic properties (``correlation_id``, ``priority``, ``message_id``, ...)."""
        return self.delivery.properties  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, Any]:
        """The application's headers."""
        return self.delivery.headers or {}

    @property
    def content_type(self) -> str | None:
        """The MIME type of the body."""
        return self.delivery.content_type  # type: ignore[no-any-return]

    @property
    def content_encoding(self) -> str | None:
        """The body's character set, as publishers use this property."""
        return self.delivery.content_encoding  # type: ignore[no-any-return]

    @property
    def exchange(self) -> str:
        """The exchange that it was published to, before its first run."""
        return self._origin(EXCHANGE, 'exchange')

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with, before its first run."""
        return self._origin(ROUTING_KEY, 'routing_key')

    def _origin(self, header: str, name: str) -> str:
        value = self.headers.get(header)
        return value if isinstance(value, str) else self.delivery.delivery_info.get(name, '')

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""
        try:
            return self.delivery.redelivered  # type: ignore[no-any-return]
        except AttributeError:  # kombu has it among other things
            return bool(self.delivery.delivery_info.get('redelivered'))

    @property
    def reply_to(self) -> str | None:
        """The queue in which an answer is awaited."""
        return self.properties.get('reply_to')

    @property
    def correlation_id(self) -> str | None:
        """What an answer repeats."""
        return self.properties.get('correlation_id')

    def copy(self, headers: dict[str, Any]) -> dict[str, Any]:
        """The properties with which to publish it again, with more *headers*.

        Left out are those that would make the copy expire, be refused (``user_id``), or be
        routed to the further queues that ``CC`` names.
        """
        properties = {key: self.properties[key] for key in COPIED if key in self.properties}
        own = {
            key: value
            for key, value in self.headers.items()
            if key not in ('CC', 'BCC') and not key.startswith('x-clihelper-')
        }
        return {
            **properties,
            'content_type': self.content_type,
            'content_encoding': self.content_encoding,
            'headers': {**own, **headers},
        }

    def ack(self) -> None:
        """Acknowledge it now."""
        self._settle(self, Outcome.ACK)

    def reject(self) -> None:
        """Reject it now, as AMQP has it: its queue's dead-letter exchange gets it, if any."""
        self._settle(self, Outcome.DEAD_LETTER)

    def requeue(self) -> None:
        """Put it back in its queue now."""
        self._settle(self, Outcome.REQUEUE)


def settle_at_once(delivery: Any, outcome: Outcome) -> None:
    """Settle a delivery by itself, as AMQP has it."""
    if outcome is Outcome.ACK:
        delivery.ack()
    elif outcome is Outcome.REQUEUE:
        delivery.requeue()
    else:
        delivery.reject()


def decode(message: Message, accept: Collection[str], max_body: int) -> Any:
    """The body as an object for JSON, ``str`` for ``text/*``, else ``bytes``.

    :param accept: which of ``json``, ``text`` and ``binary`` are taken.
    :param max_body: bytes.
    :raises Oversize, Unaccepted, Undecodable: it is to be dead-lettered. None of them quotes it.
    """
    size = len(message.raw)
    if size > max_body:
        raise Oversize(f'{size} bytes; AMQP.max_body is {max_body}')
    content_type, kind = _kind(message.content_type)
    if kind not in accept:
        raise Unaccepted(f'content type {content_type or "none"!r}; AMQP.accept has it not')
    if kind == 'binary':
        return message.raw
    charset = 'utf-8' if kind == 'json' else (message.content_encoding or 'utf-8')
    try:
        text = message.raw.decode(charset)
        return _from_json(text) if kind == 'json' else text
    except (ValueError, LookupError, RecursionError) as error:
        raise Undecodable(f'not {content_type}: {_bounded(error)}') from None


def _as_bytes(body: Any) -> bytes:
    """The body as other transports than AMQP have it."""
    return body.encode() if isinstance(body, str) else bytes(body or b'')


@lru_cache(maxsize=256)
def _kind(content_type: str | None) -> tuple[str, str]:
    """The bare type, and which of what ``AMQP.accept`` lists it is, or is not."""
    bare = (content_type or '').partition(';')[0].strip().lower()
    if bare == 'application/json' or bare.endswith('+json'):
        return bare, 'json'
    if bare.startswith('text/'):
        return bare, 'text'
    if bare in ('', 'application/octet-stream', 'application/data'):
        return bare, 'binary'
    return bare, bare


def _from_json(text: str) -> Any:
    import json

    return json.loads(text)


def _bounded(error: Exception) -> str:
    """What is wrong and where, but nothing of the body."""
    if isinstance(error, UnicodeDecodeError):
        return f'invalid {error.encoding} at byte {error.start}'
    position = getattr(error, 'pos', None)
    return f'{type(error).__name__}' + ('' if position is None else f' at character {position}')
