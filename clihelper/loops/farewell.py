"""The end of a connection whose client may still be sending."""

from __future__ import annotations

import os
import socket

from clihelper.process.signals import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

FAREWELL = 1.0
"""seconds that a client has to close its side"""

CHUNK = 65536


class Farewell:
    """The end of a connection whose client may still be sending: RFC 9112, section 9.6.

    If a socket is closed with input that nobody has read, the kernel resets the connection, and
    the client may lose the end of the last answer. So its sending side alone is closed, and what
    comes is thrown away until the client has closed its own, or :data:`FAREWELL` is over.

    :param kept: a duplicate of the connection's socket.
    :param farewells: those that have not ended.
    """

    def __init__(
        self, kept: socket.socket, event_loop: asyncio.AbstractEventLoop, farewells: set[Farewell]
    ) -> None:
        self.ended = event_loop.create_future()
        self._event_loop = event_loop
        self._socket = kept
        self._farewells = farewells
        farewells.add(self)
        event_loop.add_reader(kept, self._discard)
        self._timer = event_loop.call_later(FAREWELL, self._end)

    def _discard(self) -> None:
        try:
            if self._socket.recv(CHUNK):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end()

    def _end(self) -> None:
        self._timer.cancel()
        self._event_loop.remove_reader(self._socket)
        self._socket.close()
        self._farewells.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)


def part_slowly(
    stream: Any,
    event_loop: asyncio.AbstractEventLoop,
    farewells: set[Farewell],
    was_answered: Callable[[], bool],
) -> None:
    """Make ``stream.close`` end in a :class:`Farewell` if the client may still be sending."""
    close = stream.close

    def close_slowly(*args: Any, **kwargs: Any) -> None:
        stream.close = close
        kept = None
        if not stream.closed() and (was_answered() or wait_readable((stream.socket.fileno(),), 0)):
            kept = _half_closed(stream)
        close(*args, **kwargs)
        if kept is not None:
            Farewell(kept, event_loop, farewells)

    stream.close = close_slowly


def _half_closed(stream: Any) -> socket.socket | None:
    """Return a duplicate of its socket that sends no more; None if the connection has ended."""
    try:
        kept = socket.socket(fileno=os.dup(stream.socket.fileno()))
    except OSError:  # there is no descriptor left
        return None
    try:
        kept.shutdown(socket.SHUT_WR)
    except OSError:
        kept.close()
        return None
    return kept
