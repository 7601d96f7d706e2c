"""How long to wait before retrying what has failed, and how limits are spread."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Uniform = Callable[[float, float], float]

JITTER = 0.2
"""the fraction by which a limit may be lowered, so that workers are not all replaced at once"""


def when(delay: float) -> str:
    """Return when something is tried again, in words: ``at once``, or ``in 0.25 s``."""
    return f'in {delay:.2f} s' if delay >= 0.005 else 'at once'


class Backoff:
    """Delays that double up to a cap, with jitter.

    :param first: the upper limit of the first delay, in seconds.
    :param cap: the upper limit of every delay, in seconds.
    :param least: the fraction of a delay that is not random: 0 means full jitter.
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
        """Start again with the first delay, after a success."""
        self._count = 0

    def next(self, cap: float | None = None) -> float:
        """Return the seconds to wait.

        :param cap: the upper limit of this delay, instead of the general one.
        """
        longest = min(self._first * 2.0**self._count, self._cap if cap is None else cap)
        self._count = min(self._count + 1, 30)
        return self._uniform(longest * self._least, longest)


def jittered(limit: float | None, uniform: Uniform | None = None) -> float | None:
    """Return *limit* lowered at random by at most :data:`JITTER` of it; None stays None."""
    if limit is None:
        return None
    return (uniform or uniformly)(limit * (1 - JITTER), limit)


def uniformly(low: float, high: float) -> float:
    """Return a random number between the two.

    Importing ``random`` would take time and a descriptor.
    """
    return low + (high - low) * int.from_bytes(os.urandom(4), 'big') / 2**32
