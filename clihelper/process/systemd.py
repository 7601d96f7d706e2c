"""Telling a service manager how the program is doing: the protocol of sd_notify(3).

A message is one datagram of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names.
Where there is no such socket, everything here does nothing.

Sending never waits: a manager that does not read delays nobody, and a message that its socket
has no room for is dropped, which the method's result tells. The environment is left as it is,
so that programs started by this one see the socket too; with ``NotifyAccess=main``, the
manager listens to the main process only.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

#: Bytes of a status text that are sent; a manager ignores datagrams of more than 4096.
STATUS_LIMIT = 2048


class Notifier:
    """The program's end of the notify socket.

    It holds one descriptor, opened at once, so that a program that has run out of them can
    still feed its watchdog. It goes on working after a fork.

    :param address: a path, or an abstract address with ``@`` in the place of its NUL; where it
        is empty or anything else, nothing is sent.
    :param watchdog_usec: microseconds after which the manager takes the program for hung, as
        ``WATCHDOG_USEC`` has it; 0 for never.
    :param watchdog_pid: the process that is watched, as ``WATCHDOG_PID`` has it; None for
        whoever asks.
    """

    __slots__ = ('_address', '_socket', '_watchdog_pid', '_watchdog_usec')

    def __init__(
        self, address: str = '', watchdog_usec: int = 0, watchdog_pid: int | None = None
    ) -> None:
        self._address = _socket_address(address)
        self._watchdog_usec = watchdog_usec
        self._watchdog_pid = watchdog_pid
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = _open_socket()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """The notifier that ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` describe.

        A watchdog whose numbers are none is no watchdog, as sd_watchdog_enabled(3) has it.
        """
        usec = _number(environ.get('WATCHDOG_USEC', ''))
        pid = None
        if 'WATCHDOG_PID' in environ:
            pid = _number(environ['WATCHDOG_PID'])
        return cls(environ.get('NOTIFY_SOCKET', ''), usec, pid)

    @property
    def enabled(self) -> bool:
        """Whether there is a manager to tell."""
        return bool(self._address)

    @property
    def watchdog_interval(self) -> float | None:
        """The seconds within which to call :meth:`watchdog`; None where nobody watches.

        Past it the manager takes the program for hung, so half of it is the time to keep to
        (sd_watchdog_enabled(3)). In a child of the process that is watched it is None.
        """
        if not self.enabled or not self._watchdog_usec:
            return None
        if self._watchdog_pid not in (None, os.getpid()):
            return None
        return self._watchdog_usec / 1_000_000

    def ready(self, status: str = '') -> bool:
        """The start, or the reload that :meth:`reloading` announced, is complete.

        :param status: a status line for people; empty to leave the one before.
        :returns: whether the message was sent. So for all that follow.
        """
        return self._send('READY=1', *_status_lines(status))

    def status(self, text: str) -> bool:
        """Set the status line for people; an empty one removes it."""
        return self._send(f'STATUS={_one_line(text)}')

    def reloading(self, status: str = '') -> bool:
        """The configuration is being reloaded; :meth:`ready` is to follow.

        The time goes with it, which ``Type=notify-reload`` asks for, in the same datagram.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send('RELOADING=1', f'MONOTONIC_USEC={now}', *_status_lines(status))

    def stopping(self, status: str = '') -> bool:
        """The program has begun to stop."""
        return self._send('STOPPING=1', *_status_lines(status))

    def watchdog(self) -> bool:
        """The program makes progress: to be called twice in each :attr:`watchdog_interval`."""
        return self._send('WATCHDOG=1')

    def retiring(self) -> bool:
        """The process stops and is to be replaced; a service manager is not told."""
        return False

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for time: starting, stopping or running takes so much longer, from now on.

        To be called again before ``seconds`` are over as long as more is needed. The manager
        takes it up once the timeout of its own is exceeded (``EXTEND_TIMEOUT_USEC``).
        """
        return self._send(f'EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}')

    def close(self) -> None:
        """Give the descriptor back; nothing is sent from here on."""
        self._address = b''
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return False
        if self._socket is None:
            self._socket = _open_socket()
            if self._socket is None:
                return False
        message = '\n'.join(lines).encode(errors='replace')
        try:
            self._socket.sendto(message, self._address)
        except OSError:  # the socket is full, or the manager is gone
            return False
        return True


def _open_socket() -> socket.socket | None:
    """A socket to send from, or None while there are no descriptors."""
    import socket

    try:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return None
    sender.setblocking(False)
    return sender


def _socket_address(name: str) -> bytes:
    if name.startswith('@'):
        return b'\0' + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith('/') else b''


def _number(text: str) -> int:
    """A number as the manager writes it; 0 for anything else, which is no process and no time."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _status_lines(text: str) -> list[str]:
    return [f'STATUS={_one_line(text)}'] if text else []


def _one_line(text: str) -> str:
    line = ' '.join(text.splitlines())
    return line.encode(errors='replace')[:STATUS_LIMIT].decode(errors='ignore')
