"""Publishes what a consumer's message leads to: a copy, a dead letter, or a reply.

The broker confirms each of them before the message itself is settled. Usually that takes a moment,
and the consumer waits. If the broker is slow, or accepts nothing at the moment, the consumer does
not wait: it handles other messages until the outcome is known.

The forwarder has a connection of its own, used only by the main thread: a broker that runs out of
memory or disk stops reading from connections that publish, and that must hold up neither the
consumer's acknowledgements nor what the program itself publishes
(https://www.rabbitmq.com/docs/alarms).
"""

from __future__ import annotations

import time
from collections import deque

from clihelper.amqp.connection import Lost, Unreachable
from clihelper.amqp.publisher import (
    UNROUTABLE,
    PendingPublish,
    Publisher,
    PublishError,
    is_refusal,
)
from clihelper.amqp.waiting import BrokerTimeout
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from clihelper.amqp.connection import Connection

    OnSettled = Callable[['PublishError | None'], None]

USUAL = 1.0
"""seconds to wait for a confirmation before other messages are handled"""

LAST = 0.15
"""seconds to wait for confirmations at a stop"""


class Forwarder(Publisher):
    """Publishes to queues by name, and reports the outcome of each message.

    :param connection: a connection used for nothing else.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._callbacks: dict[PendingPublish, OnSettled] = {}
        self._outcomes: deque[tuple[OnSettled, PublishError | None]] = deque()
        self._alone = False
        self._blocked = ''
        self._report_blocked = connection.on_blocked
        connection.on_blocked = self._on_blocked

    def submit(
        self,
        body: bytes,
        queue: str,
        properties: dict[str, Any] | bytes,
        on_settled: OnSettled,
    ) -> None:
        """Publish one message, and wait a moment for its confirmation.

        :param properties: all properties, by name or packed.
        :param on_settled: called once, now or later: with None if the broker has confirmed the
            message, otherwise with the reason why it has not.
        :raises TypeError, ValueError: something cannot be encoded; then nothing is published.
        """
        if self._unconfirmed and (self._alone or self.is_full):
            on_settled(PublishError('another message is not confirmed yet'))
            return
        waits = not self._unconfirmed
        self._publish(body, queue, properties, on_settled)
        if waits:
            self._wait()
        self._report()

    def submit_all(
        self, messages: Sequence[tuple[bytes, str, dict[str, Any] | bytes, OnSettled]]
    ) -> None:
        """Publish several messages, as :meth:`submit` does, and wait for all of them together.

        Messages that cannot be encoded are refused; the others are published.
        """
        for message in messages:
            try:
                self._publish(*message)
            except (TypeError, ValueError) as error:
                self._outcomes.append((message[-1], PublishError(str(error), refused=True)))
        self._wait()
        self._report()

    def _publish(
        self,
        body: bytes,
        queue: str,
        properties: dict[str, Any] | bytes,
        on_settled: OnSettled,
    ) -> None:
        """Write one message."""
        if self._blocked:
            self._outcomes.append((on_settled, PublishError('the broker takes no messages')))
            return
        try:
            self._open()
            self._callbacks[self.forward(body, '', queue, properties)] = on_settled
            if self._confirms:
                self._write()
            else:
                self._end_all(None)
        except (Unreachable, Error) as error:
            self._outcomes.append((on_settled, PublishError(str(error))))
        except PublishError as error:
            self._outcomes.append((on_settled, error))
        except Lost as lost:
            self._end(lost)

    def _open(self) -> None:
        """Make sure that the connection is open; raises as :meth:`Connection.open_any` does."""
        self._drain()
        if not self._connection.is_open:
            self._connection.open_any()

    # What the broker says.

    def fileno(self) -> int | None:
        """The descriptor that is readable when :meth:`poll` should be called, or None."""
        return self._connection.fileno() if self._connection.is_open else None

    def poll(self) -> None:
        """Process what the broker has sent, without waiting."""
        self._drain()
        self._report()

    def _drain(self) -> None:
        try:
            while self._connection.is_open and self._connection.drain():
                pass
        except Lost as lost:
            self._end(lost)

    def _wait(self, seconds: float = USUAL) -> None:
        """Wait until all is settled, the broker accepts nothing, or the time is over."""
        deadline = time.monotonic() + seconds
        try:
            while self._callbacks and not self._blocked:
                if not self._connection.drain():
                    self._connection.wait(deadline)
        except Lost as lost:
            if not isinstance(lost.__cause__, BrokerTimeout):
                self._end(lost)

    def _tally(self, name: str, amount: int) -> None:
        """Do nothing: these are no messages of the program's own."""

    def _settled(self, pending: PendingPublish) -> None:
        on_settled = self._callbacks.pop(pending, None)
        if on_settled is None:
            return
        error = None
        if pending.failure:
            unroutable = pending.failure == UNROUTABLE
            error = PublishError(f'{pending}: {pending.failure}', unroutable=unroutable)
        self._outcomes.append((on_settled, error))

    def _lost(self, lost: Lost, *letters: PendingPublish, unknown: bool) -> PublishError:
        self._end(lost)
        return PublishError(str(lost))

    def _end(self, lost: Lost) -> None:
        """Report unconfirmed messages after the channel was closed or the connection lost."""
        self._connection.drop_unless_refused(lost)
        self._channel = None
        self._forget()
        refused = is_refusal(lost)
        if refused:
            # One of several was refused: each is published again by itself, to find out which.
            self._alone = len(self._callbacks) > 1
            refused = not self._alone
        self._end_all(PublishError(str(lost), unknown=not refused, refused=refused))

    def _end_all(self, error: PublishError | None) -> None:
        self._outcomes.extend((each, error) for each in self._callbacks.values())
        self._callbacks.clear()

    def _report(self) -> None:
        """Call the callbacks of settled messages; not while reading, since they may raise."""
        while self._outcomes:
            on_settled, error = self._outcomes.popleft()
            on_settled(error)

    def _on_blocked(self, reason: str) -> None:
        self._blocked = reason
        self._report_blocked(reason)

    def finish(self) -> None:
        """Wait a moment for confirmations in flight: nothing more will be submitted.

        A copy that is not confirmed by then is not reported; its original returns to its queue.
        """
        self._wait(LAST)
        self._report()

    def close(self, *, politely: bool = True) -> None:
        """Close the connection."""
        self._callbacks.clear()
        self._outcomes.clear()
        self._forget()
        if politely:
            self._connection.close()
        else:
            self._connection.drop()
