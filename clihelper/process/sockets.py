"""Listening sockets, shared by all workers: passed by a service manager, or of ``Daemon.listen``.

They are there before privileges are dropped. What a service manager has passed
(systemd.socket(5)) stays open there when this program ends, so that a restart refuses nobody.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from clihelper.errors import CannotListen, NotPermitted
from clihelper.process import systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BACKLOG = 1024
"""connections waiting to be accepted; the kernel's ``net.core.somaxconn`` also limits them"""

MODE = 0o660
"""the mode of a socket in the file system, which belongs to the daemon's user and group"""


class Listening:
    """Listening sockets, closed at the end by the process that made them.

    :ivar list sockets: the sockets; they are non-blocking, and programs that this one starts do
        not inherit them. Those that were passed come first.
    :ivar list names: the names of those that were passed.
    """

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.names: list[str] = []
        self._paths: list[tuple[str, os.stat_result]] = []
        self._owner = os.getpid()

    def inherit(self, passed: range) -> None:
        """Take over the sockets among the descriptors that a service manager passed.

        Any other descriptor among them, such as a FIFO, is left to the program.

        :param passed: see :func:`clihelper.process.systemd.listen_fds`.
        :raises CannotListen: a descriptor is not open.
        """
        name = systemd.listen_names(passed)
        for descriptor in passed:
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    self.sockets.append(_adopted(descriptor))
                    self.names.append(name(descriptor))
            except OSError as error:
                raise CannotListen(
                    f'LISTEN_FDS: descriptor {descriptor}: {error.strerror}'
                ) from error

    def bind(
        self, addresses: Iterable[str], uid: int = -1, gid: int = -1, key: str = 'Daemon.listen'
    ) -> None:
        """Listen on all *addresses*, except where a socket that was passed does already.

        :param addresses: ``host:port``, ``[v6]:port``, ``:port`` or ``unix:/path``; if a
            name has several addresses, all of them are bound.
        :param uid: the owner of sockets in the file system; -1: the current user.
        :param gid: the group of sockets in the file system; -1: the current group.
        :param key: where the addresses are configured, for errors.
        :raises CannotListen: an address is in use, or does not belong to this machine.
        :raises NotPermitted: this user may not use a port or a folder.
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
                raise kind(f'{key}: {address}: {error.strerror or error}') from error

    def take_over(self) -> None:
        """After a fork, make this process the one that removes the files of the sockets."""
        self._owner = os.getpid()

    def leave(self) -> None:
        """Close the sockets, which other processes serve; :meth:`close` removes their files."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def close(self) -> None:
        """Close the sockets; the process that owns them also removes their files."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()
        self.names.clear()
        if self._owner != os.getpid():
            return
        for path, status in self._paths:
            try:
                if os.path.samestat(os.lstat(path), status):
                    os.unlink(path)
            except OSError:  # the daemon's user may not; the next start removes the stale file
                pass
        self._paths.clear()

    def _bind_port(self, address: str) -> None:
        host, _, port = address.rpartition(':')
        found = socket.getaddrinfo(
            host.strip('[]') or None, int(port), type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        for family, kind, protocol, _, place in dict.fromkeys(found):
            if self._is_passed(family, place):
                continue
            try:
                each = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:  # an IPv6 address where there is no IPv6
                    continue
                raise
            self.sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Otherwise :: would also take the IPv4 address, which has its own socket.
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._listen(each, place)

    def _bind_path(self, path: str, uid: int, gid: int) -> None:
        if self._is_passed(socket.AF_UNIX, path):
            return
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

    def _is_passed(self, family: int, place: Any) -> bool:
        """Return whether a socket that was passed already listens at an address."""
        return any(_listens_at(each, family, place) for each in self.sockets[:len(self.names)])

    def _listen(self, each: socket.socket, place: Any) -> None:
        each.bind(place)
        each.listen(BACKLOG)
        each.setblocking(False)


def _adopted(descriptor: int) -> socket.socket:
    adopted = socket.socket(fileno=descriptor)
    adopted.set_inheritable(False)
    adopted.setblocking(False)
    return adopted


def _listens_at(passed: socket.socket, family: int, place: Any) -> bool:
    if passed.type != socket.SOCK_STREAM:
        return False
    own = passed.getsockname()
    if passed.family == family:
        return bool(own == place)
    # A socket of systemd for :: takes the connections to 0.0.0.0 too: BindIPv6Only.
    both = (passed.family, family) == (socket.AF_INET6, socket.AF_INET)
    return (both and (own[0], place[0], own[1]) == ('::', '0.0.0.0', place[1])
            and not passed.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; leave anything else to ``bind``."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:  # there is no socket, or somebody listens on it
        pass
