"""Looks up a broker's name, and connects to the first of its addresses that answers."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Address = tuple[Any, Any, int, str, tuple[Any, ...]]

STAGGER = 0.25
"""seconds from one attempt to connect to the next, at most (:rfc:`8305`, section 5)"""


def look_up(host: str | bytes, port: int, seconds: float) -> list[Address]:
    """The addresses of a host, as returned by getaddrinfo(3).

    A name is looked up in a thread, so that a signal does not have to wait for the answer.

    :param host: a name or an address.
    :raises TimeoutError: there is no answer within *seconds*; the thread is left behind.
    :raises socket.gaierror: there is no such name.
    """
    try:
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        pass  # it is a name
    found: list[Address] = []
    faults: list[OSError] = []
    done = threading.Event()

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            faults.append(error)
        finally:
            done.set()

    threading.Thread(target=ask, name='look-up', daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError('no answer to the look-up of its address')
    if faults:
        raise faults[0]
    return found


def connect(host: str | bytes, port: int, seconds: float) -> socket.socket:
    """Connect to the address of a host that answers first, as described in :rfc:`8305`.

    Attempts start one after another: each a moment after the one before, or as soon as that has
    failed. Those that have started continue. So a silent address costs only a moment.

    :param seconds: the time for the look-up and all attempts.
    :returns: a non-blocking socket.
    :raises OSError: none answers in time, or the error of the last attempt.
    """
    deadline = time.monotonic() + seconds
    addresses = alternating(look_up(host, port, seconds))
    # At least half of the time is left when the last attempt starts.
    left = deadline - time.monotonic()
    race = _Race(addresses, min(STAGGER, left / 2 / (len(addresses) or 1)))
    try:
        while (winner := race.run(deadline)) is None:
            pass
        return winner
    finally:
        race.end()


def alternating(addresses: Iterable[Address]) -> list[Address]:
    """Addresses, alternating between families, so that an unreachable family does not delay the
    other (:rfc:`8305`, section 4). The first address stays the first.
    """
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    rows = itertools.zip_longest(*families.values())
    return [address for row in rows for address in row if address is not None]


class _Race:
    """Attempts to connect to several addresses; the first to succeed wins.

    :param stagger: the seconds between the starts of two attempts.
    """

    def __init__(self, addresses: list[Address], stagger: float) -> None:
        self._waiting = iter(addresses)
        self._left = len(addresses)
        self._stagger = stagger
        self._next = 0.0  # when the next attempt is due
        self._attempts: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._fault: OSError = TimeoutError('no address')

    def run(self, deadline: float) -> socket.socket | None:
        """Start an attempt if one is due, then wait for the next event.

        :returns: a socket as soon as one is connected, otherwise None.
        :raises OSError: the time is over, or nothing is left to try.
        """
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError('timed out')
        if self._left and now >= self._next:
            self._next = now + self._stagger
            self._begin()
        if not self._attempts and not self._left:
            raise self._fault
        until = min(deadline, self._next) if self._left else deadline
        for descriptor, _ in self._poll.poll(max(until - now, 0.0) * 1000):
            if self._has_connected(descriptor):
                return self._attempts.pop(descriptor)
        return None

    def end(self) -> None:
        """Give up the attempts that are still in progress."""
        for attempt in self._attempts.values():
            attempt.close()

    def _begin(self) -> None:
        self._left -= 1
        family, kind, protocol, _, address = next(self._waiting)
        try:
            attempt = socket.socket(family, kind, protocol)
        except OSError as error:
            self._fail(error)
            return
        attempt.setblocking(False)
        self._attempts[attempt.fileno()] = attempt
        self._poll.register(attempt, select.POLLOUT)
        code = attempt.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._give_up(attempt.fileno(), code)

    def _has_connected(self, descriptor: int) -> bool:
        code = self._attempts[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._give_up(descriptor, code)
        return not code

    def _give_up(self, descriptor: int, code: int) -> None:
        self._poll.unregister(descriptor)
        self._attempts.pop(descriptor).close()
        self._fail(OSError(code, os.strerror(code)))

    def _fail(self, error: OSError) -> None:
        """Note an error, and make the next attempt start at once."""
        self._fault, self._next = error, 0.0
