"""Listening sockets of Tornado's servers: how they are stopped, and kept over a reload.

A server that ``_setup`` starts with ``app.listen(port)`` binds a socket of its own. If a reload
closed it, clients would be refused until the next ``_setup`` has bound it again. So a duplicate
stays open meanwhile, in which the kernel lets newcomers wait, and the next server that asks for
the same address is given that socket. Sockets of ``Daemon.listen`` need none of this: each round
has its own duplicates.
"""

from __future__ import annotations

import asyncio
import errno
import inspect

import tornado.netutil
import tornado.tcpserver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from socket import socket
    from typing import Any

    from tornado.tcpserver import TCPServer


PAUSE = 0.05
"""seconds after which a worker that left a newcomer to others looks whether it still should"""


class Binder:
    """Stands in for :func:`tornado.netutil.bind_sockets`, and knows what was bound.

    :param bind: the function itself.
    """

    def __init__(self, bind: Callable[..., list[socket]]) -> None:
        self._bind = bind
        self._signature = inspect.signature(bind)
        self._bound: dict[tuple[Any, ...], list[socket]] = {}
        self._kept: dict[tuple[Any, ...], list[socket]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> list[socket]:
        """Return the sockets that were kept for these arguments, or bind new ones."""
        call = self._signature.bind(*args, **kwargs)
        call.apply_defaults()
        address = tuple(call.arguments.values())
        sockets = self._kept.pop(address, None) or self._bind_anew(*args, **kwargs)
        self._bound[address] = sockets
        return sockets

    def _bind_anew(self, *args: Any, **kwargs: Any) -> list[socket]:
        try:
            return self._bind(*args, **kwargs)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not self._kept:
                raise
        self.release()  # they may be in the way, such as that for 127.0.0.1 of one for all
        return self._bind(*args, **kwargs)

    def keep(self) -> None:
        """Keep a duplicate of each socket that is still open."""
        for address, sockets in self._bound.items():
            if all(each.fileno() >= 0 for each in sockets):
                self._kept[address] = [each.dup() for each in sockets]
        self._bound.clear()

    def release(self) -> None:
        """Close what was kept and has not been asked for."""
        for sockets in self._kept.values():
            close(sockets)
        self._kept.clear()


def _binder() -> Binder:
    """Install the process's :class:`Binder`, once.

    Tornado has no hook there. The servers' ``listen`` and ``bind`` look the function up in their
    module; a program that has imported it by name still has the original.
    """
    binder = Binder(tornado.netutil.bind_sockets)
    for module in (tornado.netutil, tornado.tcpserver):
        if hasattr(module, 'bind_sockets'):
            setattr(module, 'bind_sockets', binder)  # noqa: B010 - mypy knows it as a function
    return binder


binder = _binder()


def listening(server: TCPServer, io_loop: Any) -> list[socket]:
    """Return the sockets at which a server listens on this loop.

    A process may have servers on other loops, such as that of a thread. Tornado has no public
    name for the sockets of a server.
    """
    sockets: Iterable[socket] = getattr(server, '_sockets', {}).values()
    return [each for each in sockets if each.fileno() in io_loop.handlers]


def accept_unless(
    is_outdated: Callable[[], bool], sockets: Iterable[socket], io_loop: Any
) -> None:
    """Leave newcomers to the workers with a newer configuration as soon as there are any.

    Otherwise a client whose connection is closed by one old worker might connect to another,
    which will soon close it, too.

    :param is_outdated: whether there are; if a reload is given up, no longer.
    :param sockets: those of ``Daemon.listen``, which all workers share.
    """
    def gate(each: socket, accept: Callable[[Any, int], None]) -> None:
        def resume() -> None:
            if each.fileno() in io_loop.handlers:
                io_loop.update_handler(each, io_loop.READ)

        def accept_or_pause(listening: Any, events: int) -> None:
            if is_outdated():
                io_loop.update_handler(each, 0)
                io_loop.call_later(PAUSE, resume)
            else:
                accept(listening, events)

        io_loop.remove_handler(each)
        io_loop.add_handler(each, accept_or_pause, io_loop.READ)

    for each in sockets:
        if each.fileno() in io_loop.handlers:
            gate(each, io_loop.handlers[each.fileno()][1])


def close(sockets: Iterable[socket], event_loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Close sockets, and take them from the event loop first if it reads them."""
    for each in sockets:
        if event_loop is not None and each.fileno() >= 0:
            event_loop.remove_reader(each)
        each.close()
