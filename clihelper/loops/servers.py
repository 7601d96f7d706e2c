"""Which servers, connections and handlers there are on an IOLoop.

Tornado has no list of them, but the garbage collector and asyncio have. So they are looked for
when a stop begins, and nothing is done while requests are served.
"""

from __future__ import annotations

import asyncio
import gc
import inspect

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer
from tornado.web import RequestHandler

from clihelper.loops import listeners
from clihelper.program import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator
    from typing import Any

    from tornado.http1connection import HTTP1ServerConnection


class Found:
    """The servers on a loop, and what belongs to them.

    :ivar bool was_frozen: whether objects were exempt from garbage collection; they no longer are.
    :ivar listening: the servers that listen.
    :ivar asyncio_servers: those of :func:`asyncio.start_server`.
    :ivar tcp_servers: those of another protocol than HTTP, whether they listen or not.
    :ivar exchanges: for each stream, the requests that were read from it and their answers; the
        last one is in progress, or waited for.
    """

    def __init__(self, io_loop: Any) -> None:
        self._io_loop = io_loop
        self.was_frozen = gc.get_freeze_count() > 0
        objects = _instances(TCPServer, HTTP1Connection, IOStream, asyncio.Server)
        servers = [each for each in objects if isinstance(each, TCPServer)]
        self.listening = [each for each in servers if listeners.listening(each, io_loop)]
        self.tcp_servers = [each for each in servers if not isinstance(each, HTTPServer)]
        self.asyncio_servers = [
            each for each in objects
            if isinstance(each, asyncio.Server) and each.get_loop() is io_loop.asyncio_loop]
        self._http_servers = [each for each in servers if isinstance(each, HTTPServer)]
        self._streams = [each for each in objects if isinstance(each, IOStream)
                         and each.io_loop is io_loop and not each.closed()]
        self.exchanges: dict[IOStream, list[HTTP1Connection]] = {}
        for each in objects:
            if isinstance(each, HTTP1Connection) and not each.is_client:
                self.exchanges.setdefault(each.stream, []).append(each)

    def connections(self) -> Iterator[tuple[HTTPServer, list[HTTP1ServerConnection]]]:
        """Yield the HTTP servers of the loop, stopped ones too, and their connections.

        Tornado has no public name for the connections of a server.
        """
        for server in self._http_servers:
            own = [each for each in getattr(server, '_connections', ())
                   if each.stream.io_loop is self._io_loop]
            if own or server in self.listening:
                yield server, own

    def tcp_streams(self) -> Iterator[IOStream]:
        """Yield the streams that servers other than HTTP's have accepted.

        A stream does not know its server, but its own end has the address of the server.
        """
        places = {
            _place(each)
            for server in self.tcp_servers for each in listeners.listening(server, self._io_loop)
        }
        for stream in self._streams:
            if places and _place(stream.socket) in places:
                yield stream


class Handlers:
    """The tasks in which handlers of requests and of TCP connections run.

    Tornado keeps no list of them. They are known by the code that they run; the method of
    :class:`tornado.web.RequestHandler` that calls ``get`` and its like has no public name.
    """

    def __init__(self, event_loop: asyncio.AbstractEventLoop) -> None:
        self._event_loop = event_loop
        self._execute = code_of(getattr(RequestHandler, '_execute', None))
        self._codes = {self._execute}

    def add(self, servers: Iterable[TCPServer]) -> None:
        """Count the handlers of these servers, too."""
        self._codes |= {code_of(type(server).handle_stream) for server in servers}

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return those that are not done; that of a WebSocket runs until it is closed."""
        return [task for task in asyncio.all_tasks(self._event_loop) if _code(task) in self._codes]

    def of_requests(self) -> list[RequestHandler]:
        """Return the handlers of requests that are not done."""
        coroutines: list[Any] = [
            task.get_coro() for task in self.tasks() if _code(task) is self._execute]
        handlers = (inspect.getcoroutinelocals(each).get('self') for each in coroutines)
        return [each for each in handlers if isinstance(each, RequestHandler)]


def _code(task: asyncio.Task[Any]) -> object:
    return getattr(task.get_coro(), 'cr_code', task)




def awaits_request(exchange: HTTP1Connection) -> bool:
    """Return whether the headers of a request have not come yet.

    Tornado has no public name for that: a stream that is reading may also read a body. One that
    is not has read the headers, and is about to begin the request.
    """
    start_line = getattr(exchange, '_request_start_line', None)
    return start_line is None and exchange.stream.reading()


def _instances(*kinds: type[Any]) -> list[Any]:
    """Return all objects of these types that exist."""
    gc.unfreeze()  # get_objects leaves out those that existed when the loop started
    return [each for each in gc.get_objects() if issubclass(type(each), kinds)]


def _place(each: socket.socket) -> object:
    """Return where a socket listens, and a connection that it has accepted is connected to."""
    try:
        name = each.getsockname()
    except OSError:
        return None
    # The port, since a server for all addresses does not know that of the connection.
    return name[1] if isinstance(name, tuple) else name
