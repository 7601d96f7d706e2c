"""The clock: whether it is synchronised, and not before the configuration was written."""

from __future__ import annotations

import os
import time

from clihelper.doctor.findings import ok, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.doctor.findings import Finding

TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised"""

_ROOM = 512  # bytes; struct timex has 208

AHEAD = 2.0
"""seconds by which a file may be newer than now: another machine's clock wrote it"""

EFFECT = 'times of messages, dead letters and certificates are wrong by as much'


def check_clock(state: int | None) -> Iterator[Finding]:
    """Whether the clock is synchronised.

    :param state: of adjtimex(2); None: unknown.
    """
    if state is None:
        yield ok('clock', 'clock', 'it is not known whether it is synchronised')
    elif state == TIME_ERROR:
        yield warning('clock', 'clock', f'is not synchronised: {EFFECT}',
                      'run chrony, or systemd-timesyncd; in a container, on its host')
    else:
        yield ok('clock', 'clock', 'is synchronised')


def check_age(path: str, now: float) -> Iterator[Finding]:
    """Whether the configuration was written before now.

    :param now: the time, as by :func:`time.time`.
    """
    written = os.stat(path).st_mtime
    if written > now + AHEAD:
        day = time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(written))
        yield warning('clock', path, f'was written in the future, at {day} UTC: this clock is'
                      " slow, or the one of the file's machine is fast", 'set the clock')


def state_of_clock() -> int | None:
    """The state of the clock by adjtimex(2), which changes nothing; None if that is not known."""
    try:
        import ctypes

        state = int(ctypes.CDLL(None).adjtimex((ctypes.c_char * _ROOM)()))
    except (ImportError, OSError, AttributeError):
        return None
    return state if state >= 0 else None
