"""Keeps track of how far streams have been read; the broker does not, for AMQP 0-9-1 consumers."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.amqp.message import Message

MOST = 10_000
"""the most messages of a stream whose offsets are kept; those of later messages are not"""


class Positions:
    """Where to resume each stream after a reconnection: after all settled messages."""

    def __init__(self) -> None:
        self._unsettled: dict[str, deque[tuple[int, int]]] = {}  # delivery tags and offsets
        self._next: dict[str, int] = {}

    def note(self, message: Message, lowest: int) -> None:
        """Note a message that has arrived from a stream or from its retry queue.

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
        """Yield the label of each stream and the offset to resume from; the connection is lost."""
        for queue, found in self._unsettled.items():
            rest = [offset for tag, offset in found if tag >= lowest]
            if len(found) == MOST and not rest:
                rest = [found[-1][1]]
            yield queue, rest[0] if rest else self._next[queue]
        self._unsettled.clear()
