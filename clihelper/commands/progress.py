"""A progress bar on the last line of a terminal."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

INTERVAL = 0.1
"""the fewest seconds between two drawings"""

BAR = 20
"""the characters of the bar itself"""

_CLEAR_LINE = '\r\x1b[K'


class Progress:
    """Shows on standard error how much is done; draws nothing if that is not a terminal.

    A context manager, which removes the line when it ends.

    :param total: how much there is; what exceeds it is shown, too.
    :param noun: what is counted, in the plural.
    """

    def __init__(self, total: int, noun: str) -> None:
        self._total = total
        self._noun = noun
        self._done = 0
        self._began = time.monotonic()
        self._due = self._began + INTERVAL
        self._is_shown = sys.stderr.isatty()
        self._is_drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def advance(self) -> None:
        """Count one more."""
        self._done += 1
        if self._is_shown and (now := time.monotonic()) >= self._due:
            self._due = now + INTERVAL
            self._draw(now - self._began)

    def clear(self) -> None:
        """Remove the line, if it was drawn."""
        if self._is_drawn:
            self._is_drawn = False
            clear_line()

    def _draw(self, seconds: float) -> None:
        total = max(self._total, self._done)
        full = BAR * self._done // total
        text = (
            f'[{"#" * full}{"." * (BAR - full)}] {self._done:,} of {total:,} {self._noun},'
            f' {self._done / seconds:,.0f}/s'
        )
        self._is_drawn = True
        sys.stderr.write(f'{_CLEAR_LINE}{text[: os.get_terminal_size(2).columns - 1]}')
        sys.stderr.flush()


def clear_line() -> None:
    """Clear the last line of the terminal, for others to be printed; no effect elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(_CLEAR_LINE)
        sys.stderr.flush()
