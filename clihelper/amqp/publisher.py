"""Publishing with confirmations and ``mandatory``: done when the message is in a queue.

A message and its confirmation are separate on the wire: :meth:`Publisher.send` writes a message;
:meth:`Publisher.wait_for_confirms` waits for the confirmations of all messages sent so far.
"""

from __future__ import annotations

import time
from itertools import takewhile

from clihelper.amqp.composing import compose
from clihelper.amqp.connection import Lost
from clihelper.amqp.settlement import StoppableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from clihelper.amqp.connection import Connection

CONFIRM_TIMEOUT = 30.0
"""seconds to wait for the broker's confirmation, also under a memory alarm"""

CHUNK = 64 * 1024
"""bytes of a pipeline that are collected before they are sent"""

WINDOW = 1000
"""messages of a pipeline that may be unconfirmed before the next one waits"""

UNROUTABLE, NACKED = 'no queue gets it', 'the broker refuses it'

PUBLISH = (60, 40)
"""The numbers of the method basic.publish in AMQP 0-9-1."""


class PublishError(StoppableError):
    """The broker has refused a message, or has not confirmed it.

    :ivar bool unroutable: whether the message could not be routed to any queue.
    :ivar bool unknown: whether it may still arrive: no confirmation came in time.
    :ivar bool refused: whether the broker will never accept it, for example because it is too
        large.
    :ivar bool stopped: whether waiting ended because of a stop.
    :ivar list failed: the unconfirmed messages of a pipeline: for each its number, counted from
        0, and the reason.
    """

    def __init__(
        self,
        text: str,
        *,
        unroutable: bool = False,
        unknown: bool = False,
        refused: bool = False,
        stopped: bool = False,
        failed: list[tuple[int, str]] | None = None,
    ) -> None:
        super().__init__(text)
        self.unroutable = unroutable
        self.unknown = unknown
        self.refused = refused
        self.stopped = stopped
        self.failed = failed or []


class PendingPublish:
    """A message in flight.

    :ivar int number: its number among those that are confirmed together, from 0.
    :ivar bool mandatory: whether the broker returns it if no queue gets it.
    :ivar str failure: why the broker has not put it into a queue; empty if nothing is known.
    """

    __slots__ = ('body', 'exchange', 'failure', 'mandatory', 'number', 'routing_key')

    def __init__(
        self, number: int, exchange: str, routing_key: str, body: bytes, mandatory: bool = True
    ) -> None:
        self.number = number
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.mandatory = mandatory
        self.failure = ''

    def __str__(self) -> str:
        return f'exchange {self.exchange!r}, routing key {self.routing_key!r}'


class Publisher:
    """Publishes on a channel of its own.

    :param connection: an open connection.
    :param prepare: called with each new channel.
    :ivar bool waits: whether the answers to opening a channel are awaited.
    """

    waits = True

    def __init__(
        self, connection: Connection, prepare: Callable[[Any], None] | None = None
    ) -> None:
        self._connection = connection
        self._prepare = prepare
        self._channel: Any = None
        self._confirms = False
        self._delivery_tag = 0
        self._forget()

    def prepare(self) -> None:
        """Make sure that the channel is open.

        :raises PublishError: the connection is lost.
        """
        try:
            self._open_channel()
        except Lost as lost:
            raise self._lost(lost, unknown=True) from lost

    def send(
        self,
        body: Any,
        exchange: str,
        routing_key: str,
        properties: Mapping[str, Any],
        *,
        mandatory: bool = True,
        compress: bool = False,
    ) -> None:
        """Send one message; :meth:`wait_for_confirms` reports what became of it.

        :param body: see :func:`clihelper.amqp.encoding.encode`.
        :raises TypeError, ValueError: the body, or a property, cannot be encoded.
        :raises PublishError: the connection is lost.
        """
        payload, full = compose(body, properties, compress)
        self.forward(payload, exchange, routing_key, full, mandatory)

    def forward(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any] | bytes,
        mandatory: bool = True,
    ) -> PendingPublish:
        """Send one message unchanged; see :meth:`send`.

        :param properties: all properties, by name or packed.
        :param mandatory: whether it is a failure if no queue gets it.
        """
        pending = PendingPublish(self._count, exchange, routing_key, body, mandatory)
        self._count += 1
        try:
            self._open_channel()
            with self._connection.guard():
                frames = self._connection.transport.encode_or_publish(
                    self._channel, body, exchange, routing_key, properties, mandatory
                )
        except Lost as lost:
            raise self._lost(lost, pending, unknown=bool(self._unconfirmed)) from lost
        if self._confirms:
            self._delivery_tag += 1
            self._unconfirmed[self._delivery_tag] = pending
            self._unsent.append(frames)
            self._unsent_size += len(frames)
        else:
            self._settle([pending])
        return pending

    @property
    def is_full(self) -> bool:
        """Whether so much is in flight, or still unwritten, that the next message should wait."""
        return self._unsent_size > CHUNK or len(self._unconfirmed) > WINDOW

    def make_room(self) -> None:
        """Write, and wait until more may be sent; raises as :meth:`wait_for_confirms` does."""
        self._wait_for_confirmations(WINDOW // 2)

    def wait_for_confirms(self) -> None:
        """Wait until the broker has confirmed or refused everything that has been sent.

        :raises PublishError: it has not confirmed everything; the remaining messages are given up.
        """
        self._wait_for_confirmations(0)
        if self._failed:
            raise self._given_up('')
        self._count = 0

    def _wait_for_confirmations(self, most: int) -> None:
        """Wait until at most *most* confirmations are missing."""
        deadline = time.monotonic() + CONFIRM_TIMEOUT
        try:
            self._write()
            while len(self._unconfirmed) > most:
                if not self._connection.drain():
                    self._connection.wait(deadline)
        except Lost as lost:
            if self._unconfirmed:
                raise self._lost(lost, unknown=True) from lost
            self._connection.drop_unless_refused(lost)  # lost after the last confirmation

    def _write(self) -> None:
        if self._unsent:
            data = b''.join(self._unsent)
            self._unsent.clear()
            self._unsent_size = 0
            with self._connection.guard():
                self._connection.transport.write(data)

    def _open_channel(self) -> None:
        if self._channel is not None and self._connection.has(self._channel):
            return
        if self._unconfirmed:
            raise Lost('the connection was lost')
        self._channel, self._delivery_tag = self._new_channel(), 0
        with self._connection.guard():
            self._confirms = self._connection.transport.confirm(
                self._channel, self._on_ack, self._on_nack, self._on_return, waits=self.waits
            )
        if self._prepare is not None:
            self._prepare(self._channel)

    def _new_channel(self) -> Any:
        if self.waits:
            return self._connection.channel()
        with self._connection.guard():
            return self._connection.transport.open_channel()

    def _forget(self) -> None:
        """Forget everything that is in flight."""
        self._count = 0
        self._unconfirmed: dict[int, PendingPublish] = {}
        self._failed: list[tuple[PendingPublish, str]] = []
        self._unsent: list[bytes] = []
        self._unsent_size = 0

    # What the broker says.

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._settle(self._taken(delivery_tag, multiple))

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        # For example, a full queue with reject-publish.
        taken = self._taken(delivery_tag, multiple)
        for pending in taken:
            pending.failure = NACKED
        self._settle(taken)

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        # A returned message does not identify itself, but messages are returned in the order of
        # publishing, each before its confirmation.
        body = bytes(message.body)
        for pending in self._unconfirmed.values():
            if (
                pending.mandatory
                and not pending.failure
                and (pending.exchange, pending.routing_key) == (exchange, routing_key)
                and pending.body == body
            ):
                pending.failure = UNROUTABLE
                return

    def _settle(self, taken: list[PendingPublish]) -> None:
        for pending in taken:
            self._settled(pending)
        failures = sum(1 for pending in taken if pending.failure)
        self._tally('publish_failures', failures)
        self._tally('published', len(taken) - failures)

    def _tally(self, name: str, amount: int) -> None:
        """Count messages of the program, for whoever asks."""
        if amount:
            self._connection.on_published(name, amount)

    def _settled(self, pending: PendingPublish) -> None:
        """Note a message whose fate the broker has reported."""
        if pending.failure:
            self._failed.append((pending, pending.failure))

    def _taken(self, delivery_tag: int, multiple: bool) -> list[PendingPublish]:
        if not multiple:
            pending = self._unconfirmed.pop(delivery_tag, None)
            return [] if pending is None else [pending]
        tags = takewhile(delivery_tag.__ge__, self._unconfirmed)  # they are in ascending order
        return [self._unconfirmed.pop(tag) for tag in list(tags)]

    def _lost(self, lost: Lost, *letters: PendingPublish, unknown: bool) -> PublishError:
        # A late confirmation must not be mistaken for that of another message.
        self._connection.drop_unless_refused(lost)
        self._channel = None
        refused = len(self._unconfirmed) == 1 and is_refusal(lost)
        return self._given_up(
            str(lost),
            *letters,
            unknown=unknown and not refused,
            refused=refused,
            stopped=lost.stopped,
        )

    def _given_up(
        self,
        why: str,
        *letters: PendingPublish,
        unknown: bool = False,
        refused: bool = False,
        stopped: bool = False,
    ) -> PublishError:
        """The error for all messages that were refused or not confirmed; they are forgotten.

        :param letters: messages that have not been sent.
        """
        if unknown:
            why += '; it is unknown whether it arrives'
        missing = [(pending, why) for pending in (*self._unconfirmed.values(), *letters)]
        self._tally('publish_failures', len(missing))
        failed = sorted([*self._failed, *missing], key=lambda each: each[0].number)
        self._forget()
        if not failed:
            return PublishError(why, unknown=unknown, refused=refused, stopped=stopped)
        pending, reason = failed[0]
        more = f' (and {len(failed) - 1} more)' if len(failed) > 1 else ''
        return PublishError(
            f'{pending}: {reason}{more}',
            unroutable=all(reason == UNROUTABLE for _, reason in failed),
            unknown=unknown,
            refused=refused,
            stopped=stopped,
            failed=[(pending.number, reason) for pending, reason in failed],
        )


HARD_ERRORS = (501, 502, 503, 504, 505, 530, 540, 541)
"""Reply codes with which a broker ends a connection because of what the client has sent."""


def is_refusal(lost: Lost) -> bool:
    """Whether the broker has ended the channel or connection because of what was published."""
    cause: Any = lost.__cause__
    method = getattr(cause, 'method_sig', None)  # None: the broker has not given a reason
    code = getattr(cause, 'reply_code', None)
    return method is not None and (tuple(method) == PUBLISH or code in HARD_ERRORS)
