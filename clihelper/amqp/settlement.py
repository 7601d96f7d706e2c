"""What becomes of a message: policies without side effects.

:func:`judge` says which :class:`Outcome` what a handler did has;
:class:`~clihelper.loops.consumer.ConsumerLoop` is the one place that acts on it.
"""

from __future__ import annotations

import enum
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST_TEXT = 1024
"""characters of an exception's text that a dead letter carries"""


class Outcome(enum.Enum):
    """What becomes of a message."""

    ACK = 'acknowledged'
    DEAD_LETTER = 'dead-lettered'
    REQUEUE = 'back to its queue'


class Reject(Exception):
    """Raised in ``on_message``: dead-letter this message, do not try it again."""


class Requeue(Exception):
    """Raised in ``on_message``: put this message back in its queue at once."""


class Undecodable(Exception):
    """The body is not what the message's content type says."""


class Unaccepted(Exception):
    """The content type is none of those that ``AMQP.accept`` lists."""


class Oversize(Exception):
    """The body is larger than ``AMQP.max_body``."""


REASONS: dict[type[Exception], str] = {
    Reject: 'rejected',
    Undecodable: 'undecodable',
    Unaccepted: 'unaccepted',
    Oversize: 'oversize',
}
"""The ``x-clihelper-reason`` of a dead letter, by what was raised; else it is ``exception``."""


def judge(error: BaseException | None) -> Outcome:
    """The outcome of a message whose handling raised *error*, or returned (None)."""
    if error is None:
        return Outcome.ACK
    if isinstance(error, Requeue):
        return Outcome.REQUEUE
    return Outcome.DEAD_LETTER


def reason(error: BaseException) -> str:
    """Why a message is dead-lettered, in one word."""
    return next(
        (word for kind, word in REASONS.items() if isinstance(error, kind)), 'exception'
    )


def dead_letter_headers(error: BaseException, queue: str, appname: str) -> dict[str, Any]:
    """The headers that a dead letter gets besides its own.

    :param queue: the queue that the message came from.
    """
    return {
        'x-clihelper-reason': reason(error),
        'x-clihelper-exception': type(error).__qualname__,
        'x-clihelper-message': str(error)[:LONGEST_TEXT],
        'x-clihelper-queue': queue,
        'x-clihelper-attempts': 1,
        'x-clihelper-time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'x-clihelper-host': os.uname().nodename,
        'x-clihelper-application': appname,
    }
