"""Which message is in hand, for who survives this process; and how often one has killed one."""

from __future__ import annotations

import time
from zlib import crc32

from clihelper.amqp.settlement import Crashed, TimedOut
from clihelper.ledger import TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.ledger import Hand


class Record:
    """Notes each message in shared memory before it is run.

    :param hand: where.
    :param section: ``AMQP``.
    :ivar note: called with the checksum of a message's body, begun with that of its queue
        (:attr:`seeds`), before it is run: all that a first delivery costs.
    :ivar bool timed: whether it is noted, too, since when it runs.
    :ivar int suspect: the checksum of the message in hand, if a process has died under it.
    """

    def __init__(self, hand: Hand, section: Mapping[str, Any]) -> None:
        self.hand = hand
        self.timed: bool = section['handler_timeout'] is not None
        self.note = self._note_time if self.timed else hand.note
        self.seeds = Seeds()
        self.suspect = 0
        self._attempts: int = section['retry']['attempts']

    def look_up(self, message: Message) -> Crashed | None:
        """Find out about a message that was delivered before; *message* is told its runs.

        :returns: why it is not to be run any more.
        """
        mark = crc32(message.raw, self.seeds[message.queue])
        deaths, reason = self.hand.ledger.deaths(mark)
        if not deaths:
            return None
        self.suspect = mark
        message.has_run(deaths)
        if message.attempts <= self._attempts:
            return None
        return (TimedOut if reason == TIMEOUT else Crashed)(message.attempts - 1)

    def is_fatal(self, message: Message) -> bool:
        """Whether it has killed so many processes that it is not run any more."""
        mark = crc32(message.raw, self.seeds[message.queue])
        return message.attempts + self.hand.ledger.deaths(mark)[0] > self._attempts

    def settled(self) -> None:
        """It is acknowledged, or on its way to be run again, with its runs in its headers."""
        self.hand.ledger.forget(self.suspect)

    def rest(self) -> None:
        """Nothing is in hand."""
        self.hand.rest()

    def _note_time(self, mark: int) -> None:
        self.hand.take(time.monotonic(), mark)


class Seeds(dict[str, int]):
    """The checksum of each queue's name."""

    def __missing__(self, queue: str) -> int:
        seed = self[queue] = crc32(queue.encode())
        return seed
