"""Decides what becomes of a message: policies without side effects.

:func:`judge` determines the :class:`Outcome` of what a handler did;
:class:`~clihelper.amqp.processing.Processor` is the one place that acts on it.
"""

from __future__ import annotations

import enum
import os
import time

from clihelper.amqp import exception_text
from clihelper.amqp.properties import InvalidProperties
from clihelper.errors import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST_TEXT = 1024
"""the most bytes of an exception's text that a dead letter contains"""

LONGEST_NAME = 255
"""the most bytes of an exception's class name that a dead letter contains"""

MOST_RUNS = 2**31 - 1
"""the most runs of a message that are counted"""

DELIVERY_LIMIT = 20
"""how often a quorum queue of RabbitMQ 4 returns a message before it drops it, by default"""

LONGEST_DELAY = 30 * 24 * 3600
"""the most seconds by which the next run of a message can be delayed"""

ATTEMPTS = 'x-clihelper-attempts'
REASON = 'x-clihelper-reason'
EXCHANGE = 'x-clihelper-exchange'
ROUTING_KEY = 'x-clihelper-routing-key'
EXCEPTION = 'x-clihelper-exception'
MESSAGE = 'x-clihelper-message'
QUEUE = 'x-clihelper-queue'
TIME = 'x-clihelper-time'
HOST = 'x-clihelper-host'
APPLICATION = 'x-clihelper-application'


class Outcome(enum.Enum):
    """What becomes of a message."""

    ACK = 'acknowledged'
    RETRY = 'put aside for its next run'
    DEAD_LETTER = 'dead-lettered'
    REQUEUE = 'returned to its queue'


class StoppableError(Exception):
    """A call that waits for the broker has given up.

    :ivar bool stopped: whether a stop was the reason.
    """

    stopped = False


class Retry(Exception):
    """Raised in ``on_message``: run this message again later. The run counts as a failed one.

    :param delay: seconds, up to 30 days; by default what ``AMQP.retry`` says.
    """

    def __init__(self, *reason: object, delay: float | None = None) -> None:
        super().__init__(*reason)
        if delay is not None and not 0 <= delay <= LONGEST_DELAY:
            raise ValueError(f'a delay is from 0 to {LONGEST_DELAY} seconds, not {delay!r}')
        self.delay = delay


class Reject(Exception):
    """Raised in ``on_message``: dead-letter this message, and do not run it again."""


class Requeue(Exception):
    """Raised in ``on_message``: return this message to its queue at once."""


class Pause(Exception):
    """Raised in ``on_message``: consume this queue no more for some time.

    The message goes back to its queue; the run is not counted. When the time is over, one message
    is tried first.

    :param seconds: for how long, up to 30 days.
    """

    def __init__(self, seconds: float, *reason: object) -> None:
        super().__init__(*(reason or (f'for {seconds!r} s',)))
        if not 0 <= seconds <= LONGEST_DELAY:
            raise ValueError(f'a pause takes from 0 to {LONGEST_DELAY} seconds, not {seconds!r}')
        self.seconds = seconds


class Undecodable(Exception):
    """The body is not what the message's content type says."""


class Unaccepted(Exception):
    """The content type is not one of those that ``AMQP.accept`` lists."""


class Oversize(Exception):
    """The body is larger than ``AMQP.max_body``."""


class Invalid(Exception):
    """The body does not fit the annotation of its handler."""


class Unrouted(Exception):
    """There is no handler for the message."""


class Crashed(Exception):
    """The process that ran the message has ended during each run.

    :ivar int runs: how often.
    """

    def __init__(self, runs: int) -> None:
        each = 'then' if runs == 1 else 'each time'
        super().__init__(f'run {counted(runs, "time")}, and the process ended {each}')
        self.runs = runs


class TimedOut(Crashed):
    """Like :class:`Crashed`; the last time, the handler exceeded ``AMQP.handler_timeout``."""


class HandlerTimeout(TimeoutError):
    """A coroutine was cancelled because it exceeded ``AMQP.handler_timeout``."""


REASONS: dict[type[Exception], str] = {
    Reject: 'rejected',
    Undecodable: 'undecodable',
    InvalidProperties: 'undecodable',
    Unaccepted: 'unaccepted',
    Oversize: 'oversize',
    Invalid: 'invalid',
    Unrouted: 'unrouted',
    TimedOut: 'timeout',
    Crashed: 'crashed',
    HandlerTimeout: 'timeout',
}
"""The ``x-clihelper-reason`` of a dead letter by what was raised; otherwise ``exception``."""


FINAL = tuple(each for each in REASONS if each is not HandlerTimeout)
"""The exceptions after which a message is not run again."""

UNRUN = (Undecodable, Unaccepted, Oversize, Invalid, Unrouted, Crashed)
"""The exceptions that are raised before a handler is called."""


BLAMELESS = (Reject, Requeue, InvalidProperties, *UNRUN)
"""The exceptions that are about one message, and say nothing of what its handler works with."""


def judge(error: BaseException, runs: int, attempts: int) -> Outcome:
    """The outcome of a message that has failed. If its handler returns, it is acknowledged.

    :param error: what handling it raised.
    :param runs: how often it has been run, including this run.
    :param attempts: how often it may be run.
    """
    if exception_text.is_a(error, (Requeue, Pause)) or _is_stopped(error):
        return Outcome.REQUEUE
    if exception_text.is_a(error, FINAL) or runs >= attempts:
        return Outcome.DEAD_LETTER
    return Outcome.RETRY


def _is_stopped(error: BaseException) -> bool:
    """Whether a stop ended the handler's wait for the broker: then it has not failed."""
    if not exception_text.is_a(error, StoppableError):
        return False
    return exception_text.attempt(lambda: error.stopped, False) is True  # type: ignore[attr-defined]


def pause_of(error: BaseException) -> float:
    """The seconds of a :class:`Pause`; 1.0 if a subclass of it has none that is valid."""
    wanted = exception_text.attempt(lambda: float(error.seconds), -1.0)  # type: ignore[attr-defined]
    return wanted if 0 <= wanted <= LONGEST_DELAY else 1.0


def delay(error: BaseException, runs: int, schedule: Mapping[str, float]) -> float:
    """The seconds from a run that failed to the next one.

    :param error: what the run raised: a :class:`Retry` may specify the delay; an invalid one is
        ignored.
    :param runs: how often the message has been run.
    :param schedule: ``AMQP.retry``.
    """
    if exception_text.is_a(error, Retry):
        wanted = exception_text.attempt(lambda: float(error.delay), -1.0)  # type: ignore[attr-defined]
        if 0 <= wanted <= LONGEST_DELAY:
            return wanted
    try:
        seconds = schedule['delay'] * float(schedule['factor']) ** (runs - 1)
    except OverflowError:
        seconds = float('inf')
    return min(seconds, schedule['max_delay'])


def runs_before(attempts: Any, reason: Any) -> int:
    """How often a message has been run and failed, according to its headers.

    A dead letter that was moved back to its queue starts again from 0.

    :param attempts: its header :data:`ATTEMPTS`, of any type.
    :param reason: its header :data:`REASON`.
    """
    if reason is not None or isinstance(attempts, bool) or not isinstance(attempts, int):
        return 0
    return max(attempts, 0)


def renewal_threshold(limit: Any) -> int:
    """The number of returns from which a message is republished, so that no queue drops it.

    RabbitMQ's quorum queues count each return of a message to its queue, even if it was never run,
    and drop it when there are more than ``x-delivery-limit``
    (https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling). Half the limit is left
    for the returns that happen before the message can be republished.

    :param limit: ``x-delivery-limit`` from the queue's arguments. None, a negative number and any
        other value that is not a limit are replaced by the default, as a policy may set one.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        limit = DELIVERY_LIMIT
    return max(int(min(limit, DELIVERY_LIMIT)) // 2, 1)


def reason(error: BaseException) -> str:
    """Why a message is dead-lettered, in one word."""
    return next(
        (word for kind, word in REASONS.items() if exception_text.is_a(error, kind)), 'exception'
    )


def run_headers(runs: int, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The headers of a copy of a message: how often it was run, and where it was published to.

    :param origin: :attr:`clihelper.Message.origin`.
    """
    return {ATTEMPTS: min(runs, MOST_RUNS), **origin}


def dead_letter_headers(error: BaseException, queue: str, appname: str) -> dict[str, Any]:
    """The headers that a dead letter gets in addition to :func:`run_headers`.

    :param queue: the queue that it came from.
    """
    return {
        REASON: reason(error),
        EXCEPTION: cut(exception_text.name(error), LONGEST_NAME),
        MESSAGE: cut(exception_text.text(error), LONGEST_TEXT),
        QUEUE: queue,
        TIME: time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        HOST: os.uname().nodename,
        APPLICATION: appname,
    }


def shortest_dead_letter_headers(error: BaseException, queue: str) -> dict[str, Any]:
    """The headers for a dead letter if the message's own headers leave no room for more."""
    return {REASON: reason(error), QUEUE: queue}


def cut(text: str, size: int) -> str:
    """The first *size* bytes of a text in UTF-8; what UTF-8 cannot encode is escaped."""
    encoded = text[:size].encode('utf-8', 'backslashreplace')
    return encoded[:size].decode('utf-8', 'ignore')
