"""How far streams have been read: the broker does not keep that for a consumer of AMQP 0-9-1."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.amqp.message import Message

MOST = 10_000
"""messages of a stream whose offsets are kept; of those behind them none is"""


class Positions:
    """Where to read on in each stream after a reconnection: behind all that is settled."""

    def __init__(self) -> None:
        self._unsettled: dict[str, deque[tuple[int, int]]] = {}  # delivery tags, and offsets
        self._next: dict[str, int] = {}

    def note(self, message: Message, lowest: int) -> None:
        """A message has arrived, of a stream or of the queue beside it.

        :param lowest: the delivery tag below which all messages are settled.
        """
        offset = message.stream_offset
        if offset is None:
            return
        found = self._unsettled.setdefault(message.queue, deque())
        while found and found[0][0] < lowest:
            found.popleft()
        if len(found) < MOST:
            found.append((message.delivery.delivery_tag, offset))
        self._next[message.queue] = offset + 1

    def lost(self, lowest: int) -> Iterator[tuple[str, int]]:
        """The connection is: for each stream its label, and the offset to read on from."""
        for queue, found in self._unsettled.items():
            rest = [offset for tag, offset in found if tag >= lowest]
            if len(found) == MOST and not rest:
                rest = [found[-1][1]]
            yield queue, rest[0] if rest else self._next[queue]
        self._unsettled.clear()
