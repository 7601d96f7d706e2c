"""Dead letters by group: how many have the same queue, reason and exception, and since when."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.amqp.dead_letters import DeadLetter

MOST_GROUPS = 10_000
"""The most groups that are kept, so that memory is bounded whatever the letters contain."""

LONGEST_TEXT = 255
"""The most characters that are kept of each text."""


class Group:
    """Letters with the same queue, reason and exception.

    :param letter: the first of them, which is the example.
    """

    def __init__(self, letter: DeadLetter) -> None:
        row = letter.row()
        self._row: dict[str, Any] = {
            name: cut(row[name]) for name in ('queue', 'reason', 'exception')
        }
        self._name = letter.group
        self._example, self._message = letter.id, cut(row['message'])
        self._first = self._last = ''
        self.count = 0

    def add(self, time: str) -> None:
        """Count one more letter.

        :param time: when it was dead-lettered, in ISO 8601; empty if that is not known.
        """
        self.count += 1
        if time:
            self._first = min(self._first or time, time)
            self._last = max(self._last, time)

    def row(self) -> dict[str, Any]:
        """The facts about the group by name."""
        return {
            'group': self._name,
            'count': self.count,
            **self._row,
            'first': self._first,
            'last': self._last,
            'example': self._example,
            'message': self._message,
        }


class Groups:
    """All groups, in the order of their first letters.

    :ivar int rest: the number of letters of further groups, beyond :data:`MOST_GROUPS`.
    """

    def __init__(self) -> None:
        self.rest = 0
        self._groups: dict[str, Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Count one letter."""
        name = letter.group
        group = self._groups.get(name)
        if group is None:
            if len(self._groups) == MOST_GROUPS:
                self.rest += 1
                return
            group = self._groups[name] = Group(letter)
        group.add(cut(letter.time))

    @property
    def count(self) -> int:
        """The number of letters."""
        return self.rest + sum(group.count for group in self._groups.values())

    def rows(self) -> list[dict[str, Any]]:
        """The facts about each group, the largest first."""
        groups = sorted(self._groups.values(), key=lambda group: -group.count)
        return [group.row() for group in groups]


def cut(text: str) -> str:
    """*text*, shortened if it is longer than :data:`LONGEST_TEXT`."""
    return text if len(text) <= LONGEST_TEXT else f'{text[: LONGEST_TEXT - 3]}...'
