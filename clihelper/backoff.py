"""How long to wait before something that failed is tried again, and how limits are spread."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Uniform = Callable[[float, float], float]

JITTER = 0.2
"""by which part of itself a limit may be lower, so that workers are not replaced all at once"""


class Backoff:
    """Delays that double up to a cap, with jitter.

    :param first: seconds that the first delay does not exceed.
    :param cap: seconds that no delay exceeds.
    :param least: the part of a delay that is not random: with 0 it has full jitter.
    :param uniform: the source of the jitter; by default :func:`uniformly`.
    """

    def __init__(
        self,
        first: float = 0.1,
        cap: float = 1.0,
        *,
        least: float = 0.5,
        uniform: Uniform | None = None,
    ) -> None:
        self._first = first
        self._cap = cap
        self._least = least
        self._uniform = uniform or uniformly
        self._count = 0

    def reset(self) -> None:
        """What failed has succeeded."""
        self._count = 0

    def next(self, cap: float | None = None) -> float:
        """The seconds to wait.

        :param cap: instead of that of all delays.
        """
        longest = min(self._first * 2.0**self._count, self._cap if cap is None else cap)
        self._count = min(self._count + 1, 30)
        return self._uniform(longest * self._least, longest)


def jittered(limit: float | None, uniform: Uniform | None = None) -> float | None:
    """*limit*, or up to :data:`JITTER` of it less; None stays None."""
    if limit is None:
        return None
    return (uniform or uniformly)(limit * (1 - JITTER), limit)


def uniformly(low: float, high: float) -> float:
    """A random number between the two. Importing ``random`` would take a descriptor, and time."""
    return low + (high - low) * int.from_bytes(os.urandom(4), 'big') / 2**32
