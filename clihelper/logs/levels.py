"""Levels of loggers that hold for a while: until a time, or until logging is configured anew."""

from __future__ import annotations

import logging

NEVER = float('inf')

_changed: dict[str, tuple[int, float]] = {}  # the level before, and when it is restored


def change(name: str, level: str, due: float = NEVER) -> None:
    """Change the level of a logger.

    :param due: until when, in seconds of ``time.monotonic``.
    """
    logger = logging.getLogger(name)
    before = _changed[name][0] if name in _changed else logger.level
    # In this order: if another thread restores all of them meanwhile, this one is still known.
    logger.setLevel(level)
    _changed[name] = before, due


def due() -> float:
    """Return when the next one is to be restored, in seconds of ``time.monotonic``."""
    return min((when for _, when in list(_changed.values())), default=NEVER)


def restore(now: float = NEVER) -> None:
    """Restore those that were changed until *now* or earlier; by default, all."""
    for name, (before, when) in list(_changed.items()):
        if when <= now:
            _changed.pop(name, None)
            logging.getLogger(name).setLevel(before)
