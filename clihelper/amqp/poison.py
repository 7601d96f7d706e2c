"""Which message is in hand, for who survives this process; and how often one has killed one."""

from __future__ import annotations

import time
from zlib import crc32

from clihelper.amqp.settlement import Crashed, TimedOut
from clihelper.process.scoreboard import TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.process.scoreboard import Slot


class PoisonGuard:
    """Notes each message in shared memory before it is run.

    :param hand: where.
    :param section: ``AMQP``.
    :ivar note: called with the checksum of a message's body, begun with that of its queue
        (:attr:`seeds`), before it is run: all that a first delivery costs.
    :ivar bool timed: whether it is noted, too, since when it runs.
    :ivar int suspect: the checksum of the message in hand, if a process has died under it.
    """

    def __init__(self, slot: Slot, section: Mapping[str, Any]) -> None:
        self.slot = slot
        self.timed: bool = section['handler_timeout'] is not None
        self.note = self._note_time if self.timed else slot.note
        self.seeds = QueueChecksums()
        self.suspect = 0
        self._attempts: int = section['retry']['attempts']

    def look_up(self, message: Message) -> Crashed | None:
        """Find out about a message that was delivered before; *message* is told its runs.

        :returns: why it is not to be run any more.
        """
        mark = crc32(message.raw, self.seeds[message.queue])
        deaths, reason = self.slot.scoreboard.deaths(mark)
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
        return message.attempts + self.slot.scoreboard.deaths(mark)[0] > self._attempts

    def settled(self) -> None:
        """It is acknowledged, or on its way to be run again, with its runs in its headers."""
        self.slot.scoreboard.forget(self.suspect)

    def end_message(self) -> None:
        """Nothing is in hand."""
        self.slot.end_message()

    def _note_time(self, mark: int) -> None:
        self.slot.take(time.monotonic(), mark)


class QueueChecksums(dict[str, int]):
    """The checksum of each queue's name."""

    def __missing__(self, queue: str) -> int:
        seed = self[queue] = crc32(queue.encode())
        return seed
