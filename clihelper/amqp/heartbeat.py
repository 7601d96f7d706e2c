"""Heartbeats, sent and missed, by a small thread: also while the main thread is in a handler."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TCP_INFO_SIZE = 56
LAST_DATA_RECEIVED = 52
"""where ``tcpi_last_data_recv``, milliseconds, is in the ``tcp_info`` of tcp(7)"""

LAST_BEAT = 0.1
"""seconds that the thread has for its end"""

MUCH = 32 * 1024
"""bytes that nobody has read, from which on the peer may be kept from sending more"""


class HeartbeatThread:
    """A thread that sends signs of life, and notices when the peer gives none.

    When anything last arrived the kernel knows, no matter whether somebody reads it; so a
    handler that keeps the main thread for long is no reason to take the peer for dead.

    :param sock: the connected socket.
    :param heartbeat: seconds, as agreed with the peer; it is dead when silent for two of them.
    :param beat: sends a sign of life, without waiting.
    :param silent: called once when the peer is dead, with the seconds; the thread ends.
    """

    def __init__(
        self,
        sock: socket.socket,
        heartbeat: float,
        beat: Callable[[], None],
        silent: Callable[[float], None],
    ) -> None:
        self._sock = sock
        self._heartbeat = heartbeat
        self._beat = beat
        self._silent = silent
        self._excused = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name='heartbeat', daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, which takes no time unless it is just writing."""
        self._ended.set()
        # One that woke up while the interpreter ends would load a library for its own end, and
        # abort the process where there is no descriptor left for that.
        self._thread.join(LAST_BEAT)

    def _run(self) -> None:
        due = time.monotonic() + self._heartbeat / 2
        dead = due + 2 * self._heartbeat
        while not self._ended.wait(max(min(due, dead) - time.monotonic(), 0.0)):
            try:
                heard = self._heard()
                now = time.monotonic()
                dead = heard + 2 * self._heartbeat
                if now > dead:
                    self._silent(now - heard)
                    return
                if now >= due:
                    due = now + self._heartbeat / 2
                    self._beat()
            except (OSError, ValueError, AttributeError):
                return  # it is closed, or about to be: the main thread has noticed

    def _heard(self) -> float:
        """When the peer was last heard of, by the monotonic clock."""
        now = time.monotonic()
        if unread(self._sock) >= MUCH:
            self._excused = now  # it may have more to say, and no room for it
        return max(self._excused, now - silence(self._sock))


def silence(sock: socket.socket) -> float:
    """The seconds since anything has arrived on a TCP connection."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    return struct.unpack_from('=I', info, LAST_DATA_RECEIVED)[0] / 1000  # type: ignore[no-any-return]


def unread(sock: socket.socket) -> int:
    """The bytes that have arrived and were not read."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), 'little')
