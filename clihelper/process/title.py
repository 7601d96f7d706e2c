"""The title of a process in ps(1).

The title is written over the command line that the process was started with, where the kernel
reads it (proc_pid_cmdline(5)), and never beyond it, where the environment begins. Without spaces,
its first 15 characters also become the name of the process (``PR_SET_NAME``, prctl(2)).
"""

from __future__ import annotations

_ARG_START, _ARG_END = 48, 49  # fields of proc_pid_stat(5), from 1
_COMM_FIELDS = 2  # those up to the end of the name, which may contain spaces
_PR_SET_NAME = 15


def set_title(title: str) -> None:
    """Make ps(1) show *title*, cut to the room available. If that fails, do nothing."""
    text = title.encode(errors='replace')
    try:
        import ctypes

        with open('/proc/self/stat', 'rb') as file:
            fields = file.read().rpartition(b')')[2].split()
        start, end = (int(fields[n - _COMM_FIELDS - 1]) for n in (_ARG_START, _ARG_END))
        if end > start > 0:
            # The last byte stays NUL: with any other, the kernel would read further.
            ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b'\0'), end - start)
        # Without spaces: on a fork, Python splits proc_pid_stat(5) at spaces, and would mistake
        # the niceness for the number of threads and warn about them.
        ctypes.CDLL(None).prctl(_PR_SET_NAME, text.replace(b' ', b''), 0, 0, 0)
    except (ImportError, OSError, ValueError, IndexError, AttributeError):
        pass
