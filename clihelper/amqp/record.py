"""Which message is in hand, for who survives this process; and how often one has killed one."""

from __future__ import annotations

import time
from zlib import crc32

from clihelper.amqp.settlement import Crashed, TimedOut
from clihelper.ledger import TIMEOUT, fingerprint

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
    """

    def __init__(self, hand: Hand, section: Mapping[str, Any]) -> None:
        self._hand = hand
        self._attempts = section['retry']['attempts']
        self._timed = section['handler_timeout'] is not None
        self._seeds: dict[str, int] = {}
        self._suspect = 0

    @property
    def is_full(self) -> bool:
        """Whether this process has handled ``Daemon.max_messages``."""
        return self._hand.handled >= self._hand.limit

    def begin(self, message: Message) -> bool:
        """It is about to be run.

        :returns: whether a process has died under it before.
        :raises Crashed, TimedOut: it is not to be run any more.
        """
        seed = self._seeds.get(message.queue)
        if seed is None:
            seed = self._seeds[message.queue] = crc32(message.queue.encode())
        mark = fingerprint(message.raw, seed)
        self._suspect = 0
        if message.redelivered:
            deaths, reason = self._hand.ledger.deaths(mark)
            if deaths:
                self._suspect = mark
                message.has_run(deaths)
                if message.attempts > self._attempts:
                    kind = TimedOut if reason == TIMEOUT else Crashed
                    raise kind(message.attempts - 1)
        self._hand.take(time.monotonic() if self._timed else 0.0, mark)
        return bool(self._suspect)

    def end(self) -> None:
        """It has been run."""
        self._hand.handled += 1
        if self._timed:
            # What becomes of it now is the broker's time, not the handler's.
            self._hand.rest()

    def settled(self) -> None:
        """It is acknowledged, or on its way to be run again, with its runs in its headers."""
        if self._suspect:
            self._hand.ledger.forget(self._suspect)

    def rest(self) -> None:
        """Nothing is in hand."""
        self._hand.rest()
