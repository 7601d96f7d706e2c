"""The controller that the process runs."""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_running: Callable[[], Any] | None = None


def set_running(controller: object) -> None:
    """Record the controller that the process runs, by a weak reference."""
    global _running
    _running = weakref.ref(controller)


def running() -> Any:
    """Return the controller that runs, or None."""
    return _running() if _running is not None else None
