"""Whether a broker accepts messages, or blocks publishers because of an alarm."""

from __future__ import annotations

import time
import uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.amqp.connection import Connection

PATIENCE = 5.0
"""seconds for the broker to confirm a message; a healthy one takes milliseconds"""


def alarm_of(connection: Connection) -> str:
    """Return why the broker accepts no messages, such as ``low on disk``; empty if it does.

    A broker says so only to who publishes. What is published here has no queue, and is dropped.

    :param connection: an open connection.
    :raises clihelper.amqp.connection.Lost: the connection, or the channel, is lost.
    """
    reasons: list[str] = []
    confirmed: list[int] = []

    def on_answer(tag: int, multiple: bool) -> None:
        confirmed.append(tag)

    def on_return(error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        pass  # the message is not mandatory

    connection.on_blocked = reasons.append
    channel = connection.channel()
    transport = connection.transport
    with connection.guard():
        if not transport.confirm(channel, on_answer, on_answer, on_return):
            return ''
        nowhere = f'clihelper-doctor-{uuid.uuid4()}'
        transport.write(transport.encode_or_publish(channel, b'', '', nowhere, {}, False))
    deadline = time.monotonic() + PATIENCE
    while not confirmed and not reasons:
        if not connection.drain():
            connection.wait(deadline)
    return ' '.join(reasons)
