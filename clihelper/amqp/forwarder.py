"""What a consumer publishes on account of a message: its copy, its dead letter, its reply.

The broker confirms each before the message itself is settled. That takes a moment as a rule, for
which the consumer waits; a broker that is slow, or takes nothing for now, is not waited for: then
what became of the copy is known later, and other messages are handled meanwhile.

The connection is one of its own, used by the main thread alone: a broker that runs out of memory
or disk stops reading from connections that publish, and neither the consumer's acknowledgements
nor what the program itself publishes may stand behind that
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
"""seconds for which a confirmation is waited for before other messages are handled"""

LAST = 0.15
"""seconds for which confirmations are waited for at a stop"""


class Forwarder(Publisher):
    """Publishes to queues by name, and says of each message what became of it.

    :param connection: for nothing else.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._callbacks: dict[PendingPublish, OnSettled] = {}
        self._outcomes: deque[tuple[OnSettled, PublishError | None]] = deque()
        self._alone = False
        self._blocked = ''
        self._tell_blocked = connection.on_blocked
        connection.on_blocked = self._on_blocked

    def submit(
        self,
        body: bytes,
        queue: str,
        properties: dict[str, Any] | bytes,
        on_settled: OnSettled,
    ) -> None:
        """Publish one message, and wait for its confirmation for a moment.

        :param properties: all of them, by name or packed.
        :param on_settled: called once, soon or later: with None when the broker has the message,
            else with why not.
        :raises TypeError, ValueError: something cannot be encoded; nothing is published then.
        """
        if self._unconfirmed and (self._alone or self.is_full):
            on_settled(PublishError('another message is not confirmed yet'))
            return
        waits = not self._unconfirmed
        self._publish(body, queue, properties, on_settled)
        if waits:
            self._wait()
        self._tell()

    def submit_all(
        self, messages: Sequence[tuple[bytes, str, dict[str, Any] | bytes, OnSettled]]
    ) -> None:
        """Publish several, as :meth:`submit` does, and wait for all of them together.

        What cannot be encoded is refused, and the others are published.
        """
        for message in messages:
            try:
                self._publish(*message)
            except (TypeError, ValueError) as error:
                self._outcomes.append((message[-1], PublishError(str(error), refused=True)))
        self._wait()
        self._tell()

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
        """Have an open connection; raises as :meth:`Connection.open_any` does."""
        self._drain()
        if not self._connection.is_open:
            self._connection.open_any()

    # What the broker says.

    def fileno(self) -> int | None:
        """The descriptor that is readable when there is a reason to :meth:`look`; None: none."""
        return self._connection.fileno() if self._connection.is_open else None

    def poll(self) -> None:
        """Take in what the broker has said, without waiting."""
        self._drain()
        self._tell()

    def _drain(self) -> None:
        try:
            while self._connection.is_open and self._connection.drain():
                pass
        except Lost as lost:
            self._end(lost)

    def _wait(self, seconds: float = USUAL) -> None:
        """Until all is settled, or the broker takes nothing, or so long."""
        deadline = time.monotonic() + seconds
        try:
            while self._callbacks and not self._blocked:
                if not self._connection.drain():
                    self._connection.wait(deadline)
        except Lost as lost:
            if not isinstance(lost.__cause__, BrokerTimeout):
                self._end(lost)

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
        """The channel is closed, or the connection lost: settle what was not confirmed."""
        self._connection.drop_unless_refused(lost)
        self._channel = None
        self._forget()
        refused = is_refusal(lost)
        if refused:
            # One of several: each is published again by itself, to know which, until it is found.
            self._alone = len(self._callbacks) > 1
            refused = not self._alone
        self._end_all(PublishError(str(lost), unknown=not refused, refused=refused))

    def _end_all(self, error: PublishError | None) -> None:
        self._outcomes.extend((each, error) for each in self._callbacks.values())
        self._callbacks.clear()

    def _tell(self) -> None:
        """Call who waits for an outcome; not in the midst of reading, as the call may raise."""
        while self._outcomes:
            on_settled, error = self._outcomes.popleft()
            on_settled(error)

    def _on_blocked(self, reason: str) -> None:
        self._blocked = reason
        self._tell_blocked(reason)

    def finish(self) -> None:
        """Wait for what is on its way, if it is confirmed soon: nothing more is submitted.

        What is not confirmed by then is not settled, and so its original goes back.
        """
        self._wait(LAST)
        self._tell()

    def close(self, *, politely: bool = True) -> None:
        """Close the connection."""
        self._callbacks.clear()
        self._outcomes.clear()
        self._forget()
        if politely:
            self._connection.close()
        else:
            self._connection.drop()
