"""What proc(5) says of another process."""

from __future__ import annotations

import os


def fields(pid: int | str) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) behind the name: the first is the state.

    :raises OSError: the process has ended.
    """
    with open(f'/proc/{pid}/stat', 'rb') as file:
        return file.read().rpartition(b')')[2].split()


def resident(pid: int) -> int:
    """Return the bytes in its resident set, shared memory included; 0 if it has ended."""
    try:
        with open(f'/proc/{pid}/statm', 'rb') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except (OSError, IndexError):
        return 0
