"""The protocols of a service manager: sd_notify(3), and the descriptors of sd_listen_fds(3).

A message is one datagram of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names.
Without such a socket, everything here does nothing.

Sending never waits: a manager that does not read delays nobody. If its socket is full, the
message is dropped, and the method returns False. The environment is left unchanged, so that
programs started by this one see the socket as well; with ``NotifyAccess=main``, the manager
accepts messages from the main process only.
"""

from __future__ import annotations

import os
import time

from clihelper.errors import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

LISTEN_FDS_START = 3
"""the number of the first descriptor that a service manager passes"""

#: Bytes of a status text that are sent; the manager ignores datagrams of more than 4096 bytes.
STATUS_LIMIT = 2048


def listen_fds(environ: Mapping[str, str] = os.environ) -> range:
    """Return the descriptors that a service manager passed to this process: sd_listen_fds(3)."""
    if environ.get('LISTEN_PID') != str(os.getpid()):
        return range(0)
    return range(LISTEN_FDS_START, LISTEN_FDS_START + _number(environ.get('LISTEN_FDS', '')))


def listen_names(passed: range, environ: Mapping[str, str] = os.environ) -> Callable[[int], str]:
    """Return a function from a descriptor of :func:`listen_fds` to the name that it has.

    Without valid names, all are ``unknown``, as in sd_listen_fds_with_names(3).
    """
    text = environ.get('LISTEN_FDNAMES', '')
    names = text.split(':') if text else []
    if len(names) != passed.stop - passed.start:
        return lambda _: 'unknown'
    return lambda descriptor: names[passed.index(descriptor)]


class Notifier:
    """The program's end of the notify socket.

    It opens its one descriptor at once, so that a program that has run out of descriptors can
    still feed its watchdog. It remains usable after a fork.

    :param address: a path, or an abstract address with ``@`` in place of its NUL; if it is empty
        or anything else, nothing is sent.
    :param watchdog_usec: microseconds after which the manager considers the program hung, as in
        ``WATCHDOG_USEC``; 0: never.
    :param watchdog_pid: the process that is watched, as in ``WATCHDOG_PID``; None: every process.
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
        """Make the notifier from ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.

        If a value for the watchdog is not a number, there is no watchdog: sd_watchdog_enabled(3).
        """
        usec = _number(environ.get('WATCHDOG_USEC', ''))
        pid = None
        if 'WATCHDOG_PID' in environ:
            pid = _number(environ['WATCHDOG_PID'])
        return cls(environ.get('NOTIFY_SOCKET', ''), usec, pid)

    @property
    def enabled(self) -> bool:
        """Whether there is a manager to report to."""
        return bool(self._address)

    @property
    def watchdog_interval(self) -> float | None:
        """The seconds within which to call :meth:`watchdog`; None if there is no watchdog.

        After this time the manager considers the program hung, so call it every half of it
        (sd_watchdog_enabled(3)). In a child of the process that is watched it is None.
        """
        if not self.enabled or not self._watchdog_usec:
            return None
        if self._watchdog_pid not in (None, os.getpid()):
            return None
        return self._watchdog_usec / 1_000_000

    def ready(self, status: str = '') -> bool:
        """Report that the start, or the reload announced by :meth:`reloading`, is complete.

        :param status: a status line for people; empty: leave the previous one.
        :returns: whether the message was sent; the same for all methods below.
        """
        return self._send('READY=1', *_status_lines(status))

    def status(self, text: str) -> bool:
        """Set the status line for people; an empty one removes it."""
        return self._send(f'STATUS={_status_line(text)}')

    def reloading(self, status: str = '') -> bool:
        """Report that the configuration is being reloaded; :meth:`ready` must follow.

        The same datagram contains the time, as required by ``Type=notify-reload``.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send('RELOADING=1', f'MONOTONIC_USEC={now}', *_status_lines(status))

    def stopping(self, status: str = '') -> bool:
        """Report that the program has begun to stop."""
        return self._send('STOPPING=1', *_status_lines(status))

    @property
    def service_stops(self) -> bool:
        """Whether a stop of this process is a stop of the service: always, but for workers."""
        return True

    def watchdog(self) -> bool:
        """Report progress; call this twice in each :attr:`watchdog_interval`."""
        return self._send('WATCHDOG=1')

    def retiring(self) -> bool:
        """Do nothing: a process that stops to be replaced is not reported to a service manager."""
        return False

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for more time: starting, stopping or running takes *seconds* longer, from now on.

        If more time is needed, call this again before ``seconds`` are over. The manager applies
        it once its own timeout is exceeded (``EXTEND_TIMEOUT_USEC``).
        """
        return self._send(f'EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}')

    def close(self) -> None:
        """Close the descriptor; nothing is sent from here on."""
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
    """Open a socket for sending; return None while there is no free descriptor."""
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
    """Return a number written by the manager; 0, neither a pid nor a time, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _status_lines(text: str) -> list[str]:
    return [f'STATUS={_status_line(text)}'] if text else []


def _status_line(text: str) -> str:
    return one_line(text).encode(errors='replace')[:STATUS_LIMIT].decode(errors='ignore')
