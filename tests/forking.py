"""A forked child of a test: it ends here, whatever happens, and never goes on as a test."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def fork(work: Callable[[], object]) -> int:
    """Do *work* in a child, which ends with status 0, or 1 if it raises; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # SystemExit, and what pytest raises, would go on in the test's frames
        traceback.print_exc()
    finally:
        os._exit(status)


def status_of(pid: int) -> int:
    """Wait for a child; return its exit status, or ``-n`` if signal n killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
