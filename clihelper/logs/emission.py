"""Whether code runs inside logging at this moment."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_PACKAGES = ('logging', __name__.rpartition('.')[0])


def is_emitting(frame: FrameType | None) -> bool:
    """Say whether a frame, or one that called it, belongs to logging.

    Code that interrupted such a frame must not log: a handler's stream and a queue's lock are
    not reentrant (``RuntimeError: reentrant call inside <_io.BufferedWriter>``, or a deadlock).

    :param frame: where to begin, as a Python signal handler gets it.
    """
    while frame is not None:
        module = frame.f_globals.get('__name__') or ''
        for package in _PACKAGES:
            if module == package or module.startswith(package + '.'):
                return True
        frame = frame.f_back
    return False
