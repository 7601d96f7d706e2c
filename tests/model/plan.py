"""What the handler does in each run of each message: a pure function of a seed.

The program that handles the messages and the test that judges it both ask :func:`plan`.
"""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

PROGRAMS = ('bare', 'ledger', 'crew')
"""A process without a state directory, one with it, and workers under a supervisor"""

TYPES = ('classic', 'quorum')

QUEUES = tuple(f'{program}-{kind}' for program in PROGRAMS for kind in TYPES)
"""Each program consumes one queue of each type"""

ATTEMPTS = 4
DELAY, FACTOR = 0.05, 2
"""``AMQP.retry`` of all programs"""

DELAYS = (None, 0.0, 0.03, 0.2)
"""seconds, of ``Retry``; None is for what the configuration says"""

HANDLED = ('return', 'ack', 'ack_in_thread', 'ack_beside', 'ack_and_raise')
"""The message is handled"""

REJECTED = ('raise_reject',)
"""The message becomes a dead letter"""

REJECTED_BY_HAND = ('reject', 'reject_in_thread')
"""The message goes to the dead-letter exchange of its queue"""

FAILED = ('raise_error', 'raise_retry', 'leave')
"""The run counts, and the message is run again unless its attempts are used up"""

REQUEUED = ('raise_requeue', 'requeue', 'requeue_in_thread')
"""The message is run again, and the run is not counted"""

KILLED = ('kill', 'exit')
"""The process ends under the message"""

EXIT_STATUS = 7
"""The status with which ``exit`` ends a process"""

WORK = (0.0, 0.0, 0.0, 0.001, 0.003, 0.01, 0.02)
"""seconds that a run takes before its outcome"""

STUBBORN = 25
"""how often a stubborn message is requeued: more than a quorum queue's delivery limit"""


class Step(NamedTuple):
    """One run of one message.

    :ivar what: the outcome: a word of those above.
    :ivar work: seconds before it.
    :ivar delay: of a ``Retry``.
    """

    what: str
    work: float = 0.0
    delay: float | None = None


class Script(NamedTuple):
    """All runs of one message: the first ones, and what each further one does."""

    first: tuple[Step, ...]
    last: Step


def queue_of(number: int) -> str:
    """The queue that a message is published to."""
    return QUEUES[number % len(QUEUES)]


def program_of(number: int) -> str:
    """The program that consumes it."""
    return queue_of(number).partition('-')[0]


def plan(seed: int, number: int, run: int) -> Step:
    """What the handler does.

    :param number: of the message.
    :param run: 1 for the first run of the message in any process.
    """
    first, last = script(seed, number)
    return first[run - 1] if run <= len(first) else last


@cache
def script(seed: int, number: int) -> Script:
    """All runs of a message.

    The first messages of each queue use each delay once, so that the queues in which messages wait
    exist before the faults begin.
    """
    if number < len(QUEUES) * len(DELAYS):
        delay = DELAYS[number // len(QUEUES)]
        return Script((Step('raise_retry', delay=delay),) * (3 if delay is None else 1),
                      Step('return'))
    chance = random.Random(seed * 1_000_003 + number)
    noted = program_of(number) != 'bare'
    words = _first(chance, noted)
    last = _last(chance, noted)
    work = 0.4 if chance.random() < 0.003 else chance.choice(WORK)
    return Script(tuple(_step(chance, word, work) for word in words), _step(chance, last, work))


def _first(chance: random.Random, noted: bool) -> list[str]:
    """What precedes the end of a message.

    Those that count leave one attempt for the end and one for a process that is killed from
    outside, so that the end is reached.
    """
    words: list[str] = []
    if chance.random() < 0.4:
        return words
    for _ in range(chance.randrange(ATTEMPTS - 1)):
        words.append(chance.choice(FAILED))
    for _ in range(chance.randrange(3)):
        words.append(chance.choice(REQUEUED))
    dice = chance.random()
    if dice < 0.01:
        if noted:
            words = [word for word in words if word not in FAILED]
        # Without a record of who was in hand no number of deaths is held against a message.
        words += [chance.choice(KILLED)] * chance.randint(1, ATTEMPTS - 2 if noted else 6)
    elif dice < 0.03:
        words += [chance.choice(REQUEUED) for _ in range(STUBBORN)]
    chance.shuffle(words)
    return words


def _last(chance: random.Random, noted: bool) -> str:
    dice = chance.random()
    if dice < 0.06:
        return chance.choice(FAILED)
    if dice < 0.12:
        return chance.choice(REJECTED)
    if dice < 0.18:
        return chance.choice(REJECTED_BY_HAND)
    if dice < 0.185 and noted:
        return chance.choice(KILLED)
    return 'return' if dice < 0.8 else chance.choice(HANDLED)


def _step(chance: random.Random, word: str, work: float) -> Step:
    return Step(word, work, chance.choice(DELAYS) if word == 'raise_retry' else None)
