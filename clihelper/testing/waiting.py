"""How long a test waits, and what it says when it has waited in vain."""

from __future__ import annotations

TIMEOUT = 10.0
"""seconds; how long everything here waits by default: far longer than it takes"""


class WaitError(AssertionError):
    """What was waited for has not come in time, or cannot come any more.

    The text says what it was, and has the output of the program so far.
    """
