"""A double of the service manager's end of sd_notify(3)."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Self

from clihelper.testing.waiting import TIMEOUT, WaitError

LARGEST = 65536
"""The most bytes of a datagram; a real manager ignores those of more than 4096."""


class NotifySocket:
    """A socket that receives what a program reports to a service manager, see sd_notify(3).

    It is bound at once; leaving a ``with`` closes it. Only :meth:`receive` and :meth:`wait_for`
    read it, so a socket that is left alone fills up, like that of a manager that hangs.

    :param path: where to bind it; by default it is an abstract socket (unix(7)), which every user
        of the machine may send to.
    :param watchdog: seconds of the watchdog that :attr:`environ` requests; None for no watchdog.
    :ivar address: the value for ``NOTIFY_SOCKET``.
    :ivar received: every datagram that was read, with its ``NAME=value`` lines as a dictionary.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, watchdog: float | None = None
    ) -> None:
        self.received: list[dict[str, str]] = []
        self._watchdog = watchdog
        self._path = None if path is None else os.fspath(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(self._path or '')  # without a name the kernel chooses one
        except OSError:
            self._socket.close()
            raise
        self.address = self._path or '@' + self._socket.getsockname()[1:].decode('ascii')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def environ(self) -> dict[str, str]:
        """The variables to pass to a program: ``NOTIFY_SOCKET``, and ``WATCHDOG_USEC``."""
        environ = {'NOTIFY_SOCKET': self.address}
        if self._watchdog is not None:
            environ['WATCHDOG_USEC'] = str(round(self._watchdog * 1_000_000))
        return environ

    def receive(self, timeout: float = TIMEOUT) -> dict[str, str]:
        """Return the next datagram.

        :param timeout: seconds to wait for one.
        :raises WaitError: no datagram came in time.
        """
        if not select.select([self._socket], [], [], max(timeout, 0.0))[0]:
            raise WaitError(f'no notification within {timeout:g} s{self._so_far()}')
        return self.take()

    def wait_for(self, name: str, timeout: float = TIMEOUT) -> dict[str, str]:
        """Return the next datagram that contains *name*; those before it are skipped.

        :param name: ``READY``, ``STATUS`` or ``WATCHDOG``, for example.
        :param timeout: seconds to wait for it.
        :raises WaitError: it did not come in time.
        """
        end = time.monotonic() + timeout
        while select.select([self._socket], [], [], max(end - time.monotonic(), 0.0))[0]:
            notification = self.take()
            if name in notification:
                return notification
        raise WaitError(f'no {name} within {timeout:g} s{self._so_far()}')

    def take(self) -> dict[str, str]:
        """Return the next datagram, which must have arrived already.

        :raises BlockingIOError: there is none.
        """
        text = self._socket.recv(LARGEST).decode(errors='replace')
        pairs = (line.partition('=') for line in text.splitlines())
        notification = {name: value for name, separator, value in pairs if separator}
        self.received.append(notification)
        return notification

    def fileno(self) -> int:
        """Return the descriptor, which is readable while a datagram waits."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, and remove its file."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            if self._path is not None:
                os.unlink(self._path)

    def _so_far(self) -> str:
        return ''.join(f'\n{notification}' for notification in self.received)
