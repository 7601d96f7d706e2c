"""The time that a test waits by default, and the error when a wait fails."""

from __future__ import annotations

TIMEOUT = 10.0
"""The default of every timeout here, in seconds: far longer than anything takes."""


class WaitError(AssertionError):
    """The awaited event did not happen in time, or can no longer happen.

    The text says which it was, and contains the output of the program so far.
    """
