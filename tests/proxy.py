"""A TCP proxy that does to a connection what networks and dying peers do.

It stands between a program and a broker. What it does is changed while connections are up::

    with Proxy(broker.port) as proxy:
        ...                      # the program connects to proxy.url
        proxy.swallow()          # silence, for whoever is connected and whoever comes

A connection is served by two threads, one for each direction.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

CHUNK = 65536

SO_ATTACH_FILTER = 26
BPF_RETURN_NOTHING = struct.pack('HBBI', 0x06, 0, 0, 0)  # linux/filter.h


class Proxy:
    """Listens on a port of its own and passes on what comes, until told otherwise.

    :param port: of the broker, on 127.0.0.1.
    :param host: the address to listen at.
    :ivar int connects: connections that have been accepted.
    :ivar client_gone: set when a client has closed its end, or was closed.
    :ivar alter: what each piece from the broker is turned into before it is passed on.
    :ivar see: called with each piece from a client before it is passed on.
    """

    def __init__(self, port: int, host: str = '127.0.0.1') -> None:
        self.connects = 0
        self.alter: Callable[[bytes], bytes] = lambda data: data
        self.see: Callable[[bytes], None] = lambda data: None
        self.client_gone = threading.Event()
        self._broker = port
        self._server = socket.create_server((host, 0))
        self.port: int = self._server.getsockname()[1]
        self._passing = threading.Event()
        self._passing.set()
        self._closing = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        """The URL of the broker's default virtual host, by way of the proxy."""
        return f'amqp://guest:guest@127.0.0.1:{self.port}/%2F'

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._passing.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    # What can be done to the connections.

    def swallow(self) -> None:
        """Take what both ends send, and pass nothing on: a peer that is silent, and reads."""
        self._passing.clear()

    def resume(self) -> None:
        """Pass on again what comes from now on."""
        self._passing.set()

    def vanish(self) -> None:
        """Have the kernel drop each packet of the client: nothing is acknowledged any more."""
        self._passing.clear()
        for client, _ in self._pairs:
            _drop_packets(client)

    def cut(self) -> None:
        """Close the connections, in order (FIN)."""
        for pair in self._take_pairs():
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Break the connections off (RST)."""
        for client, broker in self._take_pairs():
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            # The thread that reads holds it open: shutting it for reading wakes that one.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)
            client.close()
            with contextlib.suppress(OSError):
                broker.shutdown(socket.SHUT_RDWR)

    def half_close(self) -> None:
        """End what goes to the client, and go on taking what comes from it."""
        for client, _ in self._pairs:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)

    def wait_connects(self, number: int, timeout: float = 20) -> None:
        """Wait until that many connections have been accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connects >= number, timeout), self.connects

    # How it works.

    def _take_pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with self._changed:
                self.connects += 1
                self._changed.notify_all()
            try:
                broker = socket.create_connection(('127.0.0.1', self._broker))
            except OSError:
                client.close()
                continue
            for end in (client, broker):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, broker))
            for source, target, back in ((client, broker, False), (broker, client, True)):
                threading.Thread(
                    target=self._pass, args=(source, target, back), daemon=True
                ).start()

    def _pass(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        try:
            while data := source.recv(CHUNK):
                if not back:
                    self.see(data)
                if self._passing.is_set():
                    self._send(target, self.alter(data) if back else data)
            if self._passing.is_set():
                target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            if not back:
                self.client_gone.set()
            if self._closing or self._passing.is_set():
                with contextlib.suppress(OSError):
                    target.shutdown(socket.SHUT_RDWR)

    def _send(self, target: socket.socket, data: bytes) -> None:
        target.sendall(data)


class Dribble(Proxy):
    """A proxy that passes on one byte at a time.

    :ivar float pause: seconds between two bytes from the broker.
    """

    pause = 0.0

    def _send(self, target: socket.socket, data: bytes) -> None:
        for index in range(len(data)):
            target.sendall(data[index : index + 1])
            if self.pause:
                time.sleep(self.pause)


def _drop_packets(sock: socket.socket) -> None:
    """A filter that lets no packet through to the socket: see socket(7), SO_ATTACH_FILTER."""
    program = ctypes.create_string_buffer(BPF_RETURN_NOTHING, len(BPF_RETURN_NOTHING))
    # struct sock_fprog: the number of instructions, and where they are
    filters = struct.pack('HxxxxxxP', 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)
