"""The record of each run: a file for each message, to which lines are only ever added.

Lines survive the process that writes them, whatever ends it. A run is two lines: one at its
beginning, one just before its outcome::

    run 4711 1764071000.123456 redelivered=0 attempts=1 returned=0
    did 4711 1764071000.125678 raise_error
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple


class Run(NamedTuple):
    """One run of one message.

    :ivar began: seconds since the epoch.
    :ivar ended: when its outcome began; None if its process died before.
    :ivar what: the outcome, as ``plan.py`` calls it.
    :ivar facts: of the message, as it was delivered.
    """

    number: int
    pid: int
    began: float
    facts: str
    ended: float | None = None
    what: str = ''

    @property
    def attempts(self) -> int:
        """Which run it was, as the program counts them."""
        return int(self.facts.partition('attempts=')[2].partition(' ')[0])


class Journal:
    """What one process adds.

    :param folder: where the files are.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def begin(self, number: int, message: Any) -> tuple[int, int]:
        """A run begins.

        :returns: the number of the run, counted over all processes; and a descriptor for
            :meth:`did`.
        """
        descriptor = os.open(
            os.path.join(self._folder, str(number)), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        returned = message.headers.get('x-delivery-count', 0)
        line = (f'run {os.getpid()} {time.time():.6f} redelivered={message.redelivered:d} '
                f'attempts={message.attempts} returned={returned}\n')
        os.write(descriptor, line.encode())
        # Where the file ends for this descriptor, even if another process adds to it meanwhile.
        size = os.lseek(descriptor, 0, os.SEEK_CUR)
        return os.pread(descriptor, size, 0).count(b'run '), descriptor

    def did(self, what: str, descriptor: int) -> None:
        """Its outcome begins."""
        os.write(descriptor, f'did {os.getpid()} {time.time():.6f} {what}\n'.encode())
        os.close(descriptor)


def read(folder: str, number: int) -> list[Run]:
    """The runs of a message, in the order in which they began."""
    try:
        with open(os.path.join(folder, str(number))) as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    runs: list[Run] = []
    latest: dict[int, int] = {}
    for line in lines:
        word, process, seconds, rest = line.split(' ', 3)
        pid, when = int(process), float(seconds)
        if word == 'run':
            latest[pid] = len(runs)
            runs.append(Run(number, pid, when, rest))
        else:
            runs[latest[pid]] = runs[latest[pid]]._replace(ended=when, what=rest)
    return runs
