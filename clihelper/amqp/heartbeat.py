"""Sends heartbeats and notices missed ones in a thread, also while a handler runs."""

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
"""the offset of ``tcpi_last_data_recv`` (milliseconds) in the ``tcp_info`` of tcp(7)"""

LAST_BEAT = 0.1
"""seconds that the thread has to end"""

MUCH = 32 * 1024
"""unread bytes from which the peer may be unable to send more"""


class HeartbeatThread:
    """A thread that sends heartbeats, and notices if the peer sends nothing.

    The kernel knows when data last arrived, whether or not it has been read. So a handler that
    occupies the main thread for long does not make the peer look dead.

    :param sock: the connected socket.
    :param heartbeat: seconds, as agreed with the peer, which is dead after two silent intervals.
    :param beat: sends a heartbeat, without waiting.
    :param silent: called once when the peer is dead, with the seconds of silence; the thread ends.
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
        """End the thread; this takes no time unless it is writing."""
        self._ended.set()
        # A thread that wakes up while the interpreter exits would load a library in order to end,
        # and abort the process if no descriptor is left for that.
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
                return  # the socket is closed, or about to be: the main thread knows

    def _heard(self) -> float:
        """When the peer last sent something, by the monotonic clock."""
        now = time.monotonic()
        if unread(self._sock) >= MUCH:
            self._excused = now  # it may have more to send, but no buffer space for it
        return max(self._excused, now - silence(self._sock))


def silence(sock: socket.socket) -> float:
    """The seconds since data last arrived on a TCP connection."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    return struct.unpack_from('=I', info, LAST_DATA_RECEIVED)[0] / 1000  # type: ignore[no-any-return]


def unread(sock: socket.socket) -> int:
    """The number of bytes that have arrived and have not been read."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), 'little')
