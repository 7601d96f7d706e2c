"""What a worker leaves behind when it dies: the rest of its process group.

Without workers the service manager ends the whole service when its process dies. Here the
supervisor lives on, and with it would every child of each worker that was killed.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time

from clihelper.process import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger('clihelper.supervisor')

PATIENCE = 2.0
"""seconds that a process has to end after TERM, until it is killed"""

NEVER = float('inf')


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal.

    All processes then stay in one group, the one that the terminal sends signals to, and that may
    read from it.
    """
    try:
        os.close(os.open('/dev/tty', os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Leftovers:
    """The processes that dead workers have left behind, until they have ended.

    :ivar float due: when :meth:`kill` has something to do, in seconds of ``time.monotonic``.
    """

    def __init__(self) -> None:
        self._pidfds: dict[int, float] = {}

    @property
    def due(self) -> float:
        return min(self._pidfds.values(), default=NEVER)

    def end(self, group: int, who: str) -> None:
        """Tell the members of the process group of *who*, a worker that has died, to end."""
        try:
            pidfds = list(_members(group))
        except OSError as error:  # no descriptor is free
            LOGGER.warning('what %s has left behind is not known: %s', who, error.strerror)
            return
        for pidfd in pidfds:
            _send(pidfd, signal.SIGTERM)
            self._pidfds[pidfd] = time.monotonic() + PATIENCE
        if pidfds:
            LOGGER.warning('processes that %s has left behind, now ended: %d', who, len(pidfds))

    def kill(self) -> None:
        """Kill those whose time is over."""
        now = time.monotonic()
        for pidfd in [pidfd for pidfd, due in self._pidfds.items() if due <= now]:
            _send(pidfd, signal.SIGKILL)
            del self._pidfds[pidfd]
            os.close(pidfd)

    def wait(self) -> None:
        """Wait until all have ended, or have been killed."""
        for pidfd, due in self._pidfds.items():
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(max(due - time.monotonic(), 0.0) * 1000)
        self._pidfds = dict.fromkeys(self._pidfds, 0.0)
        self.kill()


def _members(group: int) -> Iterator[int]:
    """Open a pidfd of each living process of a group: its pid may be another's a moment later."""
    for entry in os.listdir('/proc'):
        if entry.isdigit() and _group(entry) == group:
            try:
                pidfd = os.pidfd_open(int(entry))
            except OSError:  # it has ended, or there is no free descriptor
                continue
            if _group(entry) == group:
                yield pidfd
            else:
                os.close(pidfd)


def _group(pid: str) -> int | None:
    """Return the process group of a process; None if it has ended."""
    try:
        state, _, group = proc.fields(pid)[:3]
    except (OSError, ValueError):
        return None
    return None if state in (b'Z', b'X') else int(group)


def _send(pidfd: int, signum: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except OSError:  # it has ended, or is another user's
        pass
