"""A message as a handler sees it, and the decoding of its body."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache

from clihelper.amqp import properties as packing
from clihelper.amqp.compression import TooLarge, compression, decompress
from clihelper.amqp.escaping import escaped
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.settlement import (
    ATTEMPTS,
    EXCHANGE,
    REASON,
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
    from typing import Any, Generic

    from typing_extensions import TypeVar

    from clihelper.amqp.bodies import BodyType

    B = TypeVar('B', default=Any)

    class OfBody(Generic[B]):
        """What has a body of a certain type."""

else:
    from types import GenericAlias

    B = object

    class OfBody:
        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

LOGGER = logging.getLogger('clihelper.amqp')

ALL = ('json', 'text', 'binary')
"""The kinds of bodies that ``AMQP.accept`` may list."""

COPIED = ('priority', 'correlation_id', 'reply_to', 'message_id', 'timestamp', 'type', 'app_id')
"""The basic properties that a copy of a message keeps, besides those of its body."""

NOT_COPIED = ('delivery_mode', 'expiration', 'user_id', 'cluster_id')
"""The others. With them the copy would expire, be refused, or not be persistent."""

NOT_RENEWED = ('user_id', 'cluster_id')
"""The properties that even an unchanged, republished message loses: it would be refused."""

PERSISTENT = 2
"""The ``delivery_mode`` of a message that a durable queue keeps over a restart."""

OWN = b'x-clihelper-'
"""the prefix of clihelper's headers"""

PROPERTIES = 'x-clihelper-properties'
"""the header with the properties of a message that cannot even be separated from each other"""

NO_CHARSETS = frozenset(('idna', 'punycode', 'raw-unicode-escape', 'unicode-escape'))
"""Python encodings that are not character sets: decoding some megabytes from ``punycode`` takes
hours (https://docs.python.org/3/library/codecs.html#python-specific-encodings)"""

UTF_8 = frozenset(('utf-8', 'utf8'))
"""names of the charset that JSON is read in straight from its bytes"""

LONGEST_NAME = 255
"""the most characters of an exchange's name or a routing key; longer values are ignored"""

CARBON_COPIES = (b'CC', b'BCC')
"""headers that make RabbitMQ route a message to further queues, which already have it"""


class Message(OfBody[B]):
    """One delivery. The handler may settle it itself; otherwise the handler's result settles it.

    :ivar str queue: the queue that it came from, by its key in ``AMQP.queues``.
    :ivar bytes raw: the body as received.
    :ivar bool redelivered: whether it may have been delivered before.
    :ivar delivery: kombu's message, or an equivalent object.
    :ivar outcome: how the handler itself has settled it, or None.

    ``str(message)`` names it in the log: its queue, ``message_id`` and ``correlation_id``.
    ``Message[Order]`` in the annotation of ``on_messages`` is one whose body becomes an ``Order``.
    """

    __slots__ = (
        '_body', '_runs', '_settle', 'began', 'delivery', 'kept', 'outcome', 'queue', 'raw',
        'redelivered', 'seconds',
    )  # fmt: skip

    largest = sys.maxsize
    """The most bytes that :attr:`body` decompresses, where :meth:`check_body` was not called."""

    began: float  # when it was started among others, by the monotonic clock
    seconds: float  # how long its handler took, if it was started among others

    def __init__(
        self, delivery: Any, queue: str, settle: Callable[[Message, Outcome], None]
    ) -> None:
        body = delivery.body
        self.raw: bytes = body if type(body) is bytes else _as_bytes(body)
        self.queue = queue
        self.outcome: Outcome | None = None
        self.delivery = delivery
        try:
            self.redelivered: bool = delivery.redelivered
        except AttributeError:  # kombu has it in delivery_info
            self.redelivered = bool(delivery.delivery_info.get('redelivered'))
        self._settle = settle
        self._runs = 0
        self.kept = False  # whether it stays unsettled while later ones are acknowledged

    @property
    def body(self) -> B:
        """The decoded body: an object for JSON, ``str`` for ``text/*``, otherwise ``bytes``.

        :raises clihelper.amqp.settlement.Undecodable: it is not what its content type says.
        :raises clihelper.amqp.settlement.Unaccepted: the content type is not a known one.
        """
        try:
            return self._body  # type: ignore[no-any-return]
        except AttributeError:
            body: B = decode(self, ALL, max(self.largest, len(self.raw)))
            return body

    def check_body(self, accept: Collection[str], max_body: int) -> None:
        """Decode the body, and keep it as :attr:`body`; see :func:`decode`."""
        self._body: Any = decode(self, accept, max_body)

    @property
    def attempts(self) -> int:
        """The number of times it has been run, including the current run: 1 for the first."""
        before = runs_before(self._header(ATTEMPTS), self._header(REASON))
        return self._runs + before + 1

    @property
    def returns(self) -> int:
        """How often it has been returned to its queue; 0 unless that is a quorum queue, which
        counts this."""
        count = self._header('x-delivery-count')
        return count if isinstance(count, int) else 0

    @property
    def stream_offset(self) -> int | None:
        """Its offset in a stream, or None if its queue is not a stream."""
        offset = self._header('x-stream-offset')
        return offset if isinstance(offset, int) else None

    def _header(self, name: str) -> Any:
        """One header, whatever the others are; None if it is absent or cannot be read."""
        packed = getattr(self.delivery, 'packed', None)
        if packed is None:
            return self.headers.get(name)
        if name.encode() not in packed:
            return None  # without a look at each header
        try:
            return packing.header(packed, name)
        except InvalidProperties:
            return None

    @property
    def trace(self) -> dict[str, Any]:
        """Its headers ``traceparent`` and ``tracestate`` (W3C Trace Context), if it has them."""
        trace = {}
        if (parent := self._header('traceparent')) is not None:
            trace['traceparent'] = parent
            if (state := self._header('tracestate')) is not None:
                trace['tracestate'] = state
        return trace

    def has_run(self, runs: int) -> None:
        """Add *runs* to the number of runs that its headers say."""
        self._runs += runs

    @property
    def has_run_here(self) -> bool:
        """Whether it has been run more often than its headers say: returned, that is lost."""
        return self._runs > 0

    def run_again(self) -> None:
        """Prepare it for another run in this process, after a run that failed."""
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
        """How the body is compressed, ``gzip`` or ``deflate``; or its character set: many
        publishers use this property for that."""
        return self.delivery.content_encoding  # type: ignore[no-any-return]

    @property
    def type(self) -> str | None:
        """What kind of message it is, in words of the application: the property ``type``.

        :raises clihelper.amqp.properties.InvalidProperties: it cannot be decoded.
        """
        packed = getattr(self.delivery, 'packed', None)
        if packed is None:
            return self.properties.get('type')
        return packing.type_of(packed)

    @property
    def exchange(self) -> str:
        """The exchange that it was published to, before its first run.

        :raises clihelper.amqp.properties.InvalidProperties: its name is not UTF-8.
        """
        return _decoded(self._published_to(EXCHANGE, 'exchange'), 'exchange')

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with, before its first run.

        :raises clihelper.amqp.properties.InvalidProperties: it is not UTF-8.
        """
        return _decoded(self._published_to(ROUTING_KEY, 'routing_key'), 'routing key')

    def _published_to(self, header: str, name: str) -> str | bytes:
        """The exchange or the routing key; ``bytes`` if it cannot be decoded."""
        value = self._header(header)
        if isinstance(value, (str, bytes)) and len(value) <= LONGEST_NAME:
            return value
        try:
            return self.delivery.delivery_info.get(name, '')  # type: ignore[no-any-return]
        except InvalidProperties:
            return getattr(self.delivery, name)  # type: ignore[no-any-return]

    @property
    def origin(self) -> dict[str, Any]:
        """Both as headers for a copy, since a copy is published to a queue by name."""
        return {
            EXCHANGE: self._published_to(EXCHANGE, 'exchange'),
            ROUTING_KEY: self._published_to(ROUTING_KEY, 'routing_key'),
        }

    @property
    def reply_to(self) -> str | None:
        """The queue in which the sender expects a reply."""
        return self.properties.get('reply_to')

    @property
    def correlation_id(self) -> str | None:
        """An identifier that a reply repeats."""
        return self.properties.get('correlation_id')

    @property
    def is_cut(self) -> bool:
        """Whether its body was too large to be kept."""
        return len(self.raw) < getattr(self.delivery, 'announced', 0)

    def check(self) -> None:
        """Check that all its properties can be read.

        :raises clihelper.amqp.properties.InvalidProperties: one of them cannot be decoded.
        """
        _ = self.headers, self.properties, self.content_type, self.delivery.delivery_info

    def copy(self, headers: dict[str, Any], *, own_headers: bool = True) -> Any:
        """The properties with which to publish it again, with more *headers*.

        Properties and headers are omitted that would make the copy expire, be refused
        (``user_id``), or be routed to the further queues that ``CC`` names. The broker's own
        headers are omitted, too: because of them it could conclude that it has dead-lettered or
        returned the copy too often.

        :param own_headers: whether its other headers are kept.
        :returns: packed properties if it was delivered with packed ones: then nothing is decoded,
            and everything that is kept stays the same byte for byte.
        """
        return self._again(NOT_COPIED, _is_not_copied if own_headers else _is_any, headers)

    def renewal(self) -> Any:
        """The properties with which to republish it, as if it had never been delivered."""
        kept = {name: value for name, value in self.origin.items() if self._header(name) is None}
        return self._again(NOT_RENEWED, _is_not_renewed, kept)

    def _again(
        self,
        without: Collection[str],
        without_headers: Callable[[bytes], bool],
        headers: dict[str, Any],
    ) -> Any:
        packed = getattr(self.delivery, 'packed', None)
        if packed is not None:
            return _packed_again(packed, without, without_headers, headers)
        own = {
            key: value
            for key, value in self.headers.items()
            if not without_headers(key.encode('utf-8', 'surrogatepass'))
        }
        return {
            **{key: self.properties[key] for key in COPIED if key in self.properties},
            'content_type': self.content_type,
            'content_encoding': self.content_encoding,
            'delivery_mode': PERSISTENT,
            'headers': {**own, **headers},
        }

    def __str__(self) -> str:
        """Its queue and identifiers, for the log; at DEBUG also the delivery tag."""
        known = []
        for name in ('message_id', 'correlation_id'):
            try:
                value = self.properties.get(name)
            except (InvalidProperties, UnicodeDecodeError):
                break
            if value:
                known.append(f'{name} {escaped(str(value))}')
        if LOGGER.isEnabledFor(logging.DEBUG):
            known.append(f'delivery_tag {getattr(self.delivery, "delivery_tag", None)}')
        return f'queue {self.queue} ({", ".join(known)})' if known else f'queue {self.queue}'

    def ack(self) -> None:
        """Acknowledge it now."""
        self._settle(self, Outcome.ACK)

    def reject(self) -> None:
        """Reject it now, as in AMQP: its queue's dead-letter exchange gets it, if any."""
        self._settle(self, Outcome.DEAD_LETTER)

    def requeue(self) -> None:
        """Return it to its queue now."""
        self._settle(self, Outcome.REQUEUE)


class Fetched(Message):
    """A message that a program has asked for: nothing has checked its body."""

    __slots__ = ('largest',)

    def __init__(
        self,
        delivery: Any,
        queue: str,
        settle: Callable[[Message, Outcome], None],
        max_body: int,
    ) -> None:
        super().__init__(delivery, queue, settle)
        self.largest = max_body or sys.maxsize


def _decoded(name: str | bytes, what: str) -> str:
    if isinstance(name, bytes):
        raise InvalidProperties(f'{what}: not UTF-8')
    return name


def settle_at_once(delivery: Any, outcome: Outcome) -> None:
    """Settle a delivery individually, with AMQP's own methods."""
    if outcome is Outcome.ACK:
        delivery.ack()
    elif outcome is Outcome.REQUEUE:
        delivery.requeue()
    else:
        delivery.reject()


def decode(
    message: Message,
    accept: Collection[str],
    max_body: int,
    kind_of: BodyKind | None = None,
    body_type: BodyType | None = None,
) -> Any:
    """Decode the body: an object for JSON, ``str`` for ``text/*``, otherwise ``bytes``.

    :param accept: which of ``json``, ``text`` and ``binary`` are accepted.
    :param max_body: the limit in bytes.
    :param kind_of: what :func:`body_kind` returns for the message, if it is known.
    :param body_type: what it is converted to, by the annotation of its handler.
    :raises Oversize, Unaccepted, Undecodable, Invalid: the message should be
        dead-lettered. The texts of the exceptions do not quote the body.

    A compressed body is decompressed, up to the same limit.
    """
    raw = message.raw
    size = len(raw)
    if size > max_body or (not size and message.is_cut):
        raise Oversize(f'{size or message.delivery.announced} bytes; AMQP.max_body is {max_body}')
    if kind_of is not None:
        content_type, kind, charset, compressed = kind_of
    else:  # as body_kind(), whose call would take time for each message
        compressed, delivery = None, message.delivery
        try:
            content_type, kind, charset = _kind(delivery.content_type)
            if (encoding := delivery.content_encoding) is not None:
                charset, compressed = _encoding(encoding, kind, charset)
        except InvalidProperties:
            content_type, kind, charset, compressed = body_kind(message)
    if kind not in accept:
        raise Unaccepted(f'content type {content_type or "none"!r} is not in AMQP.accept')
    if compressed is not None:
        raw = _decompressed(raw, compressed, max_body)
    if kind == 'binary':
        return raw if body_type is None else body_type.from_value(raw, content_type)
    if charset and not _is_charset(charset):
        raise Undecodable(f'not {content_type}: there is no such charset')
    try:
        if body_type is not None:
            return _converted(raw, kind, content_type, charset, body_type)
        text = raw.decode(charset or 'utf-8')
        return _from_json(text) if kind == 'json' else text
    except (ValueError, LookupError, RecursionError) as error:
        raise Undecodable(f'not {content_type}: {_bounded(error)}') from None


def _converted(
    raw: bytes, kind: str, content_type: str, charset: str | None, body_type: BodyType
) -> Any:
    """Convert a body: JSON straight from its bytes, if they are UTF-8."""
    if kind != 'json':
        return body_type.from_value(raw.decode(charset or 'utf-8'), content_type)
    if charset is None or charset.lower() in UTF_8:
        return body_type.from_json(raw, content_type)
    return body_type.from_json(raw.decode(charset), content_type)


BodyKind = tuple[str, str, 'str | None', 'str | None']
"""the bare content type; its kind as in ``AMQP.accept``, or the type again; the character set; and
the compression"""


def body_kind(message: Message) -> BodyKind:
    """What the message's properties say of its body.

    :raises Undecodable: they cannot be read.
    """
    encoding: str | None = None
    try:
        content_type, kind, charset = _kind(message.content_type)
        try:
            encoding = message.content_encoding
        except InvalidProperties:
            if kind == 'text' and charset is None:
                raise
    except InvalidProperties as error:
        raise Undecodable(str(error)) from None
    if encoding is None:
        return content_type, kind, charset, None
    return content_type, kind, *_encoding(encoding, kind, charset)


def _encoding(encoding: str, kind: str, charset: str | None) -> tuple[str | None, str | None]:
    """The character set and the compression, given the property ``content_encoding``."""
    found = compression(encoding)
    if found is None and kind == 'text' and charset is None:
        charset = encoding
    return charset, found


def _decompressed(raw: bytes, encoding: str, max_body: int) -> bytes:
    try:
        return decompress(raw, encoding, max_body)
    except TooLarge:
        raise Oversize(f'{encoding}: more than {max_body} bytes, AMQP.max_body') from None
    except ValueError as error:
        raise Undecodable(str(error)) from None


def _packed_again(
    packed: bytes,
    without: Collection[str],
    without_headers: Callable[[bytes], bool],
    headers: dict[str, Any],
) -> bytes:
    try:
        return packing.copied(
            packed,
            without=without,
            without_headers=without_headers,
            headers=headers,
            defaults={'delivery_mode': PERSISTENT},
        )
    except InvalidProperties:
        # They cannot even be separated from each other.
        whole = {**headers, PROPERTIES: bytearray(packed)}
        return packing.encode({'delivery_mode': PERSISTENT, packing.HEADERS: whole})


def _is_any(name: bytes) -> bool:
    return True


def _is_not_copied(name: bytes) -> bool:
    return name.startswith(OWN) or _is_not_renewed(name)


def _is_not_renewed(name: bytes) -> bool:
    return name in CARBON_COPIES or packing.is_broker_header(name)


def _as_bytes(body: Any) -> bytes:
    """The body as ``bytes``; transports other than AMQP may deliver other types."""
    return body.encode() if isinstance(body, str) else bytes(body or b'')


@lru_cache(maxsize=256)
def _kind(content_type: str | None) -> tuple[str, str, str | None]:
    """The bare type; its kind as in ``AMQP.accept``, or the bare type again; its charset."""
    bare, _, parameters = (content_type or '').partition(';')
    bare = bare.strip().lower()
    charset = _charset(parameters)
    if bare == 'application/json' or bare.endswith('+json'):
        return bare, 'json', charset
    if bare.startswith('text/'):
        return bare, 'text', charset
    if bare in ('', 'application/octet-stream', 'application/data'):
        return bare, 'binary', None
    return bare, bare, None


def _charset(parameters: str) -> str | None:
    """The parameter ``charset`` of a MIME type, :rfc:`2045`, section 5.1."""
    for parameter in parameters.split(';'):
        name, _, value = parameter.partition('=')
        if name.strip().lower() == 'charset':
            return value.strip().strip('"') or None
    return None


@lru_cache(maxsize=256)
def _is_charset(name: str) -> bool:
    """Whether it is the name of a character set, not of another codec of Python."""
    import codecs

    try:
        # Non-ASCII names are deprecated from Python 3.15 on; no charset has one.
        return name.isascii() and codecs.lookup(name).name not in NO_CHARSETS
    except (LookupError, ValueError):
        return False


def _from_json(text: str) -> Any:
    import json

    return json.loads(text)


def _bounded(error: Exception) -> str:
    """What is wrong and where, without quoting the body."""
    if isinstance(error, UnicodeDecodeError):
        return f'invalid {error.encoding} at byte {error.start}'
    position = getattr(error, 'pos', None)
    return f'{type(error).__name__}' + ('' if position is None else f' at character {position}')
