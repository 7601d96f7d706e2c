"""The properties of a message that is published, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - get_type_hints() needs them
from datetime import datetime  # noqa: TC003
from typing import Any, TypedDict


class CallProperties(TypedDict, total=False):
    """The properties of a request: ``reply_to`` is set by the call itself.

    ``None`` is the same as leaving one out, but for ``content_type`` and ``delivery_mode``, which
    have a default.
    """

    content_type: str | None
    """the MIME type of the body; by default, what suits the body"""

    content_encoding: str | None
    """``gzip`` or ``deflate``, or the character set of a text"""

    headers: Mapping[str, Any] | None
    """the application's own headers, by name"""

    delivery_mode: int | None
    """2, the default: a durable queue keeps the message over a restart of the broker; 1: it may be
    lost then"""

    priority: int | None
    """0 to 255; only queues with ``x-max-priority`` and quorum queues deliver by it"""

    correlation_id: str | None
    """an identifier that a reply repeats"""

    expiration: float | None
    """seconds after which a queue drops the message, or dead-letters it"""

    message_id: str | None
    """an identifier of this message"""

    timestamp: datetime | float | None
    """when it was written: a datetime with a time zone, or seconds since 1970; AMQP keeps whole
    seconds"""

    type: str | None
    """what kind of a message it is, such as ``order.created``"""

    user_id: str | None
    """the broker's user; the broker refuses any other than the one of the connection"""

    app_id: str | None
    """the application that wrote it"""

    partition_key: Any
    """of a queue in partitions: messages with the same key are in the same partition"""


class Properties(CallProperties, total=False):
    """What :meth:`clihelper.Controller.publish` takes besides its own parameters."""

    reply_to: str | None
    """the queue in which a reply is expected"""
