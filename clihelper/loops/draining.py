"""How the servers on an IOLoop finish: what was begun is finished, and nothing else is begun.

- HTTP: the answer in progress says ``Connection: close``, if its headers are not sent yet, and the
  connection is closed after it, whatever the client has pipelined. Connections that wait for a
  request are closed.
- WebSocket: closed with 1001 (going away), after the message in progress.
- Any other TCP: open while its handler works or writes; closed when the handler waits for input
  and none has come for :data:`QUIET`.

Where others serve on (a reload, or the replacement of a worker), a connection that waits for a
request is closed only after :data:`ANNOUNCING`: a client that is just about to send its next
request gets an answer that says ``Connection: close``, not a reset.

All of it is arranged when the stop begins, and costs nothing while requests are served.
"""

from __future__ import annotations

import asyncio
import gc
import logging

from tornado.httputil import HTTPMessageDelegate
from tornado.websocket import WebSocketHandler

from clihelper.loops import listeners
from clihelper.loops.farewell import FAREWELL, Farewell, part_slowly
from clihelper.loops.servers import Found, Handlers, awaits_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from socket import socket
    from typing import Any

    from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
    from tornado.iostream import IOStream
    from tornado.tcpserver import TCPServer
    from tornado.web import RequestHandler

LOGGER = logging.getLogger('clihelper')

ANNOUNCING = 0.5
"""seconds that a kept connection has for one more request, where others serve on"""

QUIET = 0.5
"""seconds without input after which a TCP connection whose handler waits for some is closed"""

GOING_AWAY = 1001
"""the status of a WebSocket that ends because its server does: RFC 6455, 7.4.1"""


class Drain:
    """Finishes what the servers on a loop have in progress.

    :param io_loop: the loop.
    :param is_final: whether nobody serves on: connections without a request are closed at once.
    :param keeps_listening: whether newcomers are to wait for the servers of the next round.
    """

    def __init__(self, io_loop: Any, *, is_final: bool, keeps_listening: bool = False) -> None:
        self._io_loop = io_loop
        self._event_loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
        self._is_final = is_final
        self._keeps_listening = keeps_listening
        self._listening: list[socket] = []
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
        if found.was_frozen and self._keeps_listening:
            self._undo.append(_freeze_again)
        elif found.was_frozen:
            gc.freeze()  # the process ends: what exists is not to be collected one by one
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
        try:
            listeners.binder.keep()
            for server in servers:
                for each in listeners.listening(server, self._io_loop):
                    self._listening.append(each.dup())
        except OSError as error:
            LOGGER.warning('newcomers are refused during the reload: %s', error.strerror)

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
        for undo in reversed(self._undo):
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
        """Make a connection close after the request in progress; close it if there is none."""
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
        """Return whether a connection has no request in progress."""
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
        """Close a WebSocket, but not before the handler is done with the message in progress."""
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


def _stream(handler: RequestHandler) -> object:
    """Return the stream of a handler's request; another object if it is closed or a WebSocket."""
    return getattr(handler.request.connection, 'stream', None)


def _freeze_again() -> None:
    """Exempt what exists from garbage collection, as when the loop was first run."""
    gc.collect()
    gc.freeze()


def ignore(*args: object) -> None:
    """Do nothing."""
