"""A proxy before the broker, which sees what passes and can fall silent."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable


class Proxy:
    """A TCP proxy on 127.0.0.1, in a thread of its own.

    :param port: of the broker.
    :param seen: called with what a client sends, in that thread, before it is passed on.
    """

    def __init__(self, port: int, seen: Callable[[bytes], None] = lambda data: None) -> None:
        self._broker = port
        self._seen = seen
        self._server = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._server.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._waker, self._woken = socket.socketpair()
        self._silent = self._closing = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing = True
        self._waker.send(b'x')
        self._thread.join()
        for end in (self._server, self._waker, self._woken, *self._peers):
            end.close()

    def url(self) -> str:
        """The URL of the broker through the proxy."""
        return f'amqp://guest:guest@127.0.0.1:{self.port}/%2F'

    def silence(self) -> None:
        """From now on pass nothing and close nothing: connections are taken, and are mute."""
        self._silent = True
        self._waker.send(b'x')

    def _serve(self) -> None:
        while not self._closing:
            watched = [self._server, self._woken]
            readable, _, _ = select.select(
                watched if self._silent else watched + list(self._peers), (), ())
            for end in readable:
                if end is self._server:
                    self._accept()
                elif end is self._woken:
                    end.recv(1)
                elif end in self._peers and not self._silent:
                    self._pass_on(end)

    def _accept(self) -> None:
        client, _ = self._server.accept()
        if self._silent:
            self._peers[client] = client
            return
        try:
            broker = socket.create_connection(('127.0.0.1', self._broker))
        except OSError:
            client.close()
            return
        for end in (client, broker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers |= {client: broker, broker: client}
        self._clients.add(client)

    def _pass_on(self, end: socket.socket) -> None:
        other = self._peers[end]
        try:
            data = end.recv(1 << 20)
            if data and end in self._clients:
                self._seen(data)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for gone in (end, other):
            del self._peers[gone]
            self._clients.discard(gone)
            gone.close()
