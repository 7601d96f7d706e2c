"""How the servers on an IOLoop finish: what was begun is finished, and nothing else is begun.

===================== ============================================================================
HTTP                  The answer in hand says ``Connection: close``, if its headers are not sent
                      yet, and the connection is closed after it, whatever the client has
                      pipelined. Connections that wait for a request are closed.
WebSocket             Closed with 1001 (going away, RFC 6455, 7.4.1), after the message in hand.
any other TCP         Open while its handler works or writes; closed when the handler waits for
                      input and none has come for :data:`QUIET`.
===================== ============================================================================

Where others serve on (a reload, or the replacement of a worker), a connection that waits for a
request is closed only after :data:`ANNOUNCING`: a client that is just about to send its next
request gets an answer that says ``Connection: close``, not a reset.

Nothing of this costs anything while requests are served: the connections are looked for when the
stop begins. Tornado does not list them, but the garbage collector does.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import socket

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from clihelper.loops import listeners
from clihelper.process.signals import wait_readable
from clihelper.program import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from tornado.http1connection import HTTP1ServerConnection

ANNOUNCING = 0.5
"""seconds that a kept connection has for one more request, where others serve on"""

QUIET = 0.5
"""seconds without input after which a TCP connection whose handler waits for some is closed"""

FAREWELL = 1.0
"""seconds that a client has to close its side: of a connection, or of a WebSocket"""

GOING_AWAY = 1001
"""the status of a WebSocket that ends because its server does: RFC 6455, 7.4.1"""

CHUNK = 65536


class Drain:
    """Finishes what the servers on a loop have in hand.

    :param io_loop: the loop.
    :param is_final: whether nobody serves on: connections without a request are closed at once.
    :param keeps_listening: whether newcomers are to wait for the servers of the next round.
    """

    def __init__(self, io_loop: Any, *, is_final: bool, keeps_listening: bool = False) -> None:
        self._io_loop = io_loop
        self._event_loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
        self._is_final = is_final
        self._keeps_listening = keeps_listening
        self._listening: list[socket.socket] = []
        self._open: dict[object, IOStream] = {}
        self._all_closed = asyncio.Event()
        self._exchanges: dict[HTTP1ServerConnection, HTTP1Connection] = {}
        self._farewells: set[Farewell] = set()
        self._tcp: set[IOStream] = set()
        self._handlers = Handlers(self._event_loop)
        self._undo: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Stop the servers, and prepare each connection for its end."""
        found = Found(self._io_loop)
        if not self._keeps_listening:
            gc.freeze()  # again, since the process ends: a collection then would take long
        self._handlers.add(found.tcp_servers)
        streams = list(found.tcp_streams())
        if self._keeps_listening:
            self._keep_listening(found.listening)
        for server in found.listening:
            server.stop()
            for each in listeners.listening(server, self._io_loop):
                self._io_loop.remove_handler(each)  # it was stopped before: stop() did nothing
                each.close()
        for other in found.asyncio_servers:
            other.close()
        for http, connections in found.connections():
            self._hook(http)
            for connection in connections:
                self._prepare(connection, found.exchanges.get(connection.stream, []))
        for stream in streams:
            self._watch(stream)
        self._close_websockets()
        if not self._is_final:
            timer = self._event_loop.call_later(ANNOUNCING, self.hurry)
            self._undo.append(timer.cancel)
        self._check_open()

    def _keep_listening(self, servers: Iterable[TCPServer]) -> None:
        listeners.binder.keep()
        for server in servers:
            for each in listeners.listening(server, self._io_loop):
                self._listening.append(each.dup())

    def refuse(self) -> None:
        """Let newcomers wait no more: the reload has become a stop."""
        listeners.binder.release()
        listeners.close(self._listening)
        self.hurry()

    def hurry(self) -> None:
        """Close the connections that wait for a request, and let none begin any more."""
        self._is_final = True
        for connection in list(self._exchanges):
            if self._is_waiting(connection):
                connection.stream.close()

    async def finished(self) -> None:
        """Wait until all that was begun is finished."""
        await self._all_closed.wait()
        while tasks := self._handlers.tasks():
            await asyncio.wait(tasks)

    async def parted(self) -> None:
        """Wait until the clients have the last answers."""
        if self._farewells:
            await asyncio.wait([each.ended for each in self._farewells])

    def in_progress(self) -> list[str]:
        """Return in words what is not finished, and how old it is."""
        busy = {stream for each, stream in self._open.items() if not self._is_waiting(each)}
        handlers = self._handlers.of_requests()
        ages = [each.request.request_time() for each in handlers]
        requests = len(busy) - len(busy & self._tcp)
        requests += len([each for each in handlers if _stream(each) not in busy])
        others = len(busy & self._tcp)
        words = []
        if requests:
            words.append('1 request' if requests == 1 else f'{requests} requests')
        if ages:
            words[-1] += f', {"" if requests == 1 else "the oldest "}{max(ages):.1f} s old'
        if others:
            words.append('1 connection' if others == 1 else f'{others} connections')
        return words

    def cut(self) -> None:
        """Close all connections, and cancel the handlers."""
        for stream in list(self._open.values()):
            stream.close()
        for task in self._handlers.tasks():
            task.cancel()

    def end(self) -> None:
        """Leave the servers as they were: a program may use them in its next round, too."""
        for undo in self._undo:
            undo()
        self._undo.clear()
        listeners.close(self._listening)

    # HTTP.

    def _hook(self, server: Any) -> None:
        """Learn of each request that begins at a server, and of each connection that ends."""
        params, start, close = server.conn_params, server.start_request, server.on_close
        kept_alive = params.no_keep_alive
        params.no_keep_alive = True  # for the requests whose headers are still to come

        def start_request(connection: Any, exchange: Any) -> Any:
            if self._is_final or exchange.stream.closed():
                exchange.stream.close()
                # Of a stream that is closed, Tornado still reads what is in its buffer.
                return HTTPMessageDelegate()
            self._prepare(connection, [exchange])
            return start(connection, exchange)

        def on_close(connection: Any) -> None:
            close(connection)
            self._note_end(connection)

        def undo() -> None:
            params.no_keep_alive = kept_alive
            del server.start_request, server.on_close

        server.start_request = start_request
        server.on_close = on_close
        self._undo.append(undo)

    def _prepare(
        self, connection: HTTP1ServerConnection, exchanges: Sequence[HTTP1Connection]
    ) -> None:
        """Make a connection close after the request in hand; close it if there is none."""
        if connection not in self._open:
            self._open[connection] = connection.stream
            part_slowly(connection.stream, self._event_loop, self._farewells,
                        lambda: not self._is_waiting(connection))
        for exchange in exchanges:
            # Tornado decides this before it reads the body, and has no public name for it. It
            # also makes write_headers say so. Without it, start_request closes the connection.
            if self._is_final or getattr(exchange, '_response_start_line', None) is None:
                exchange._disconnect_on_finish = True
        if exchanges:
            # Those before the last one may not have been collected yet.
            self._exchanges[connection] = max(exchanges, key=awaits_request)
        if self._is_final and self._is_waiting(connection):
            connection.stream.close()

    def _is_waiting(self, connection: object) -> bool:
        """Return whether a connection has no request in hand."""
        exchange = self._exchanges.get(connection)  # type: ignore[call-overload]
        return exchange is not None and awaits_request(exchange)

    def _note_end(self, connection: HTTP1ServerConnection) -> None:
        self._exchanges.pop(connection, None)
        self._open.pop(connection, None)
        self._check_open()

    # WebSockets.

    def _close_websockets(self) -> None:
        """Close the WebSockets; a handshake in progress fails, for want of a kept connection."""
        for handler in self._handlers.of_requests():
            if isinstance(handler, WebSocketHandler) and handler.ws_connection is not None:
                protocol: Any = handler.ws_connection
                self._close_websocket(handler, protocol.stream)

    def _close_websocket(self, handler: Any, stream: Any) -> None:
        """Close a WebSocket, but not before the handler is done with the message in hand."""
        read = stream.read_bytes

        def close() -> None:
            stream.read_bytes = read
            handler.on_message = ignore
            handler.close(GOING_AWAY, 'going away')
            self._event_loop.call_later(FAREWELL, stream.close)

        def read_bytes(*args: Any, **kwargs: Any) -> Any:
            close()
            return read(*args, **kwargs)

        if stream.reading():
            close()
        else:
            stream.read_bytes = read_bytes

    # Any other TCP.

    def _watch(self, stream: Any) -> None:
        """Close a connection when its handler waits for input that does not come."""
        last = self._event_loop.time()
        read, close = stream.read_from_fd, stream.close

        def read_from_fd(buffer: Any) -> Any:
            nonlocal last
            last = self._event_loop.time()
            return read(buffer)

        def note_close(*args: Any, **kwargs: Any) -> None:
            close(*args, **kwargs)
            self._open.pop(stream, None)
            self._check_open()

        def check() -> None:
            if stream.closed():
                return
            left = last + QUIET - self._event_loop.time()
            if left <= 0 and stream.reading() and not stream.writing():
                stream.close()
            else:
                self._event_loop.call_later(max(left, QUIET / 10), check)

        stream.read_from_fd = read_from_fd
        stream.close = note_close
        self._open[stream] = stream
        self._tcp.add(stream)
        self._event_loop.call_later(QUIET, check)

    def _check_open(self) -> None:
        if not self._open:
            self._all_closed.set()


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


def _stream(handler: RequestHandler) -> object:
    """Return the stream of a handler's request; another object if it is closed or a WebSocket."""
    return getattr(handler.request.connection, 'stream', None)


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


class Found:
    """The servers on a loop, and what belongs to them.

    :ivar listening: the servers that listen.
    :ivar asyncio_servers: those of :func:`asyncio.start_server`.
    :ivar tcp_servers: those of another protocol than HTTP, whether they listen or not.
    :ivar exchanges: for each stream, the requests that were read from it and their answers; the
        last one is in hand, or waited for.
    """

    def __init__(self, io_loop: Any) -> None:
        self._io_loop = io_loop
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


def awaits_request(exchange: HTTP1Connection) -> bool:
    """Return whether the headers of a request have not come yet.

    Tornado has no public name for that; a stream that is reading may also read a body.
    """
    start_line = getattr(exchange, '_request_start_line', exchange)
    return exchange.stream.reading() if start_line is exchange else start_line is None


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


def ignore(*args: object) -> None:
    """Do nothing."""
