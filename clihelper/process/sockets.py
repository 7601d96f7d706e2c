"""The sockets of ``Daemon.listen``: bound before privileges are dropped, shared by all workers."""

from __future__ import annotations

import errno
import os
import socket
import stat

from clihelper.errors import CannotListen, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BACKLOG = 1024
"""connections that wait to be accepted; the kernel's ``net.core.somaxconn`` is a limit, too"""

MODE = 0o660
"""of a socket in the file system, which belongs to the daemon's user and group"""


class Listening:
    """Listening sockets, to be closed at the end by the process that made them.

    :ivar list sockets: they do not block, and no program that this one starts inherits them.
    """

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._paths: list[tuple[str, os.stat_result]] = []
        self._owner = os.getpid()

    def bind(self, addresses: Iterable[str], uid: int = -1, gid: int = -1) -> None:
        """Listen at all *addresses*.

        :param addresses: ``host:port``, ``[v6]:port``, ``:port`` or ``unix:/path``; a name that
            has several addresses is listened to at all of them.
        :param uid: who is to own sockets in the file system; -1: who makes them.
        :param gid: the same for their group.
        :raises CannotListen: an address is in use, or not of this machine.
        :raises NotPermitted: a port or a folder is not for this user.
        """
        for address in addresses:
            try:
                if address.startswith('unix:'):
                    self._bind_path(address.removeprefix('unix:'), uid, gid)
                else:
                    self._bind_port(address)
            except OSError as error:
                self.close()
                kind = NotPermitted if isinstance(error, PermissionError) else CannotListen
                raise kind(f'Daemon.listen: {address}: {error.strerror or error}') from error

    def take_over(self) -> None:
        """From here on this process is the one that removes files of sockets; after a fork."""
        self._owner = os.getpid()

    def close(self) -> None:
        """Close them; the process that :meth:`bind` was called in removes their files, too."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()
        if self._owner != os.getpid():
            return
        for path, status in self._paths:
            try:
                if os.path.samestat(os.lstat(path), status):
                    os.unlink(path)
            except OSError:  # the daemon's user may not; the next start removes what is stale
                pass
        self._paths.clear()

    def _bind_port(self, address: str) -> None:
        host, _, port = address.rpartition(':')
        found = socket.getaddrinfo(
            host.strip('[]') or None, int(port), type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        for family, kind, protocol, _, place in dict.fromkeys(found):
            try:
                each = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:  # an IPv6 address where there is no IPv6
                    continue
                raise
            self.sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Else :: would take the IPv4 address, too, which has a socket of its own.
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._listen(each, place)

    def _bind_path(self, path: str, uid: int, gid: int) -> None:
        _remove_stale(path)
        each = socket.socket(socket.AF_UNIX)
        self.sockets.append(each)
        umask = os.umask(0o777 & ~MODE)
        try:
            self._listen(each, path)
        finally:
            os.umask(umask)
        self._paths.append((path, os.lstat(path)))
        os.chown(path, uid, gid, follow_symlinks=False)

    def _listen(self, each: socket.socket, place: Any) -> None:
        each.bind(place)
        each.listen(BACKLOG)
        each.setblocking(False)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens to any more; anything else is left to ``bind``."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:  # there is none, or somebody listens
        pass
