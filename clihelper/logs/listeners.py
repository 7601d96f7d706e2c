"""The threads behind QueueHandlers: ``dictConfig`` makes them (3.12 on) but starts none."""

from __future__ import annotations

import atexit
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable
    from logging.handlers import QueueListener
    from typing import Any

_running: list[QueueListener] = []
_hooked = False


def start(handlers: Iterable[logging.Handler]) -> None:
    """Start the listener of each handler that has one which nobody started.

    It stops, its queue emptied, for each fork of this process and at the exit.
    """
    for handler in handlers:
        listener: Any = getattr(handler, 'listener', None)
        if hasattr(listener, 'start') and getattr(listener, '_thread', None) is None:
            listener.start()
            _running.append(listener)
    if _running:
        _hook()


def stop() -> None:
    """Stop what :func:`start` started, when every record that waits has been handled."""
    while _running:
        _running.pop().stop()


def _hook() -> None:
    """No thread may live across a fork: its locks would be held for ever in the child."""
    global _hooked
    if not _hooked:
        paused: list[QueueListener] = []

        def pause() -> None:
            paused[:] = _running
            for listener in paused:
                listener.stop()

        def resume() -> None:
            for listener in paused:
                listener.start()

        os.register_at_fork(before=pause, after_in_parent=resume, after_in_child=resume)
        atexit.register(stop)
        _hooked = True
