"""What ps(1) shows of a process.

The title is written over the command line that the process was started with, where the kernel
reads it (proc_pid_cmdline(5)), and no further: what follows it is the environment. The first 15
characters but spaces are the name of the process, too (``PR_SET_NAME``, prctl(2)).
"""

from __future__ import annotations

_ARG_START, _ARG_END = 48, 49  # fields of proc_pid_stat(5), from 1
_COMM_FIELDS = 2  # those before the end of the name, which may hold spaces
_PR_SET_NAME = 15


def set_title(title: str) -> None:
    """Have ps(1) show *title*, as much of it as fits. Where that cannot be, nothing happens."""
    text = title.encode(errors='replace')
    try:
        import ctypes

        with open('/proc/self/stat', 'rb') as file:
            fields = file.read().rpartition(b')')[2].split()
        start, end = (int(fields[n - _COMM_FIELDS - 1]) for n in (_ARG_START, _ARG_END))
        if end > start > 0:
            # The last byte stays NUL: by another the kernel would take it to be longer.
            ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b'\0'), end - start)
        # Without spaces: by them Python counts the fields of proc_pid_stat(5) when it forks, and
        # would take the niceness for a number of threads, and warn of them.
        ctypes.CDLL(None).prctl(_PR_SET_NAME, text.replace(b' ', b''), 0, 0, 0)
    except (ImportError, OSError, ValueError, IndexError, AttributeError):
        pass
