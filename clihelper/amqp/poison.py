"""Notes which message is being handled, and how many processes a message has killed.

The notes are in shared memory: they survive this process.
"""

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

    :param slot: this process's slot in the shared memory.
    :param section: ``AMQP``.
    :ivar note: called before a message is run, with the checksum of its body, which starts from
        that of its queue (:attr:`seeds`). A first delivery costs no more than this call.
    :ivar bool timed: whether the start time of a run is noted, too.
    :ivar int suspect: the checksum of the current message if a process has died while running it.
    """

    def __init__(self, slot: Slot, section: Mapping[str, Any]) -> None:
        self.slot = slot
        self.timed: bool = section['handler_timeout'] is not None
        self.note = self._note = self._note_time if self.timed else slot.note
        self._is_kept = False
        self.seeds = QueueChecksums()
        self.suspect = 0
        self._attempts: int = section['retry']['attempts']

    def look_up(self, message: Message) -> Crashed | None:
        """Look up a message that was delivered before, and update its number of runs.

        :returns: why it must not be run any more, or None.
        """
        if self.slot.scoreboard.is_copied:
            self.note = self._note_in_file
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
        """Whether it has killed so many processes that it will not be run any more."""
        mark = crc32(message.raw, self.seeds[message.queue])
        return message.attempts + self.slot.scoreboard.deaths(mark)[0] > self._attempts

    def settled(self) -> None:
        """Forget the deaths: the message is acknowledged, or its copy's headers count its runs."""
        self.slot.scoreboard.forget(self.suspect)

    def forget(self, message: Message) -> None:
        """Forget the deaths of a message that has been settled later than others."""
        self.slot.scoreboard.forget(crc32(message.raw, self.seeds[message.queue]))

    def end_message(self) -> None:
        """Note that no message is being handled."""
        self.slot.end_message()
        self._release()

    def _note_in_file(self, mark: int) -> None:
        """Note a message that comes again in the file as well: it may kill all processes at once.

        That takes a system call, so first deliveries do without it.
        """
        self.slot.keep(mark)
        self._is_kept = True
        self._note(mark)
        self.note = self._note_next

    def _note_next(self, mark: int) -> None:
        self._release()
        self.note(mark)

    def _release(self) -> None:
        if self._is_kept:
            self._is_kept = False
            self.note = self._note
            self.slot.release()

    def _note_time(self, mark: int) -> None:
        self.slot.take(time.monotonic(), mark)


class ConcurrentPoisonGuard(PoisonGuard):
    """The same where several messages are handled at a time.

    If the process dies, they are suspects, and each is run alone when it is delivered again. Only
    a message that was run alone is accused.
    """

    def __init__(self, slot: Slot, section: Mapping[str, Any]) -> None:
        super().__init__(slot, section)
        self.note = slot.note
        self.timed = False  # the loop notes for how long handlers have been running
        in_hand = slot.scoreboard.in_hand
        self._places = None if in_hand is None else in_hand.places(slot.index)
        self._held: dict[Message, int] = {}

    def is_suspect(self, message: Message) -> bool:
        """Whether a process has died while it handled the message, alone or among others."""
        mark = crc32(message.raw, self.seeds[message.queue])
        scoreboard = self.slot.scoreboard
        return scoreboard.is_suspect(mark) or bool(scoreboard.deaths(mark)[0])

    def look_up(self, message: Message) -> Crashed | None:
        mark = crc32(message.raw, self.seeds[message.queue])
        if self.slot.scoreboard.deaths(mark)[0] and self.slot.scoreboard.is_suspect(mark):
            message.has_run(1)  # the run among others was the first of those that killed
        return super().look_up(message)

    def begin_alone(self, message: Message) -> None:
        """Note a suspect that is run while no other message is."""
        self.suspect = crc32(message.raw, self.seeds[message.queue])
        self.note(self.suspect)

    def begin(self, message: Message) -> None:
        """Note a message that is run among others."""
        if self._places is not None:
            mark = crc32(message.raw, self.seeds[message.queue])
            self._held[message] = self._places.take(mark)

    def end(self, message: Message) -> None:
        """Note that its handler has ended."""
        place = self._held.pop(message, None)
        if place is None:
            self.note(0)
        elif self._places is not None:
            self._places.give_back(place)

    def end_message(self) -> None:
        """Record how many messages have been handled."""
        self.slot.heartbeat()


class QueueChecksums(dict[str, int]):
    """The checksum of each queue's name."""

    def __missing__(self, queue: str) -> int:
        seed = self[queue] = crc32(queue.encode())
        return seed
