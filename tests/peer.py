"""A peer that speaks AMQP 0-9-1 by a script, and says what no broker would.

It shakes hands, opens channels, and confirms what is declared and consumed::

    with Peer(tune=(10, 2**32 - 1, 0)) as peer:
        ...                      # a program connects to peer.url
        peer.send(frame(...))    # whatever is to come next
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

from tests.frames import frame, short

START = struct.pack('>HHBBI', 10, 10, 0, 9, 0)

ANSWERS = {
    (20, 10): struct.pack('>HHI', 20, 11, 0),  # channel.open
    (20, 40): struct.pack('>HH', 20, 41),  # channel.close
    (40, 10): struct.pack('>HH', 40, 11),  # exchange.declare
    (50, 10): struct.pack('>HH', 50, 11) + short('q') + bytes(8),  # queue.declare
    (50, 20): struct.pack('>HH', 50, 21),  # queue.bind
    (60, 10): struct.pack('>HH', 60, 11),  # basic.qos
    (60, 110): struct.pack('>HH', 60, 111),  # basic.recover
    (85, 10): struct.pack('>HH', 85, 11),  # confirm.select
    (10, 50): struct.pack('>HH', 10, 51),  # connection.close
}
"""what answers each method, if nothing else does"""


class Peer:
    """Listens on a port of its own, and serves one connection after the other.

    :param tune: channels, bytes of a frame and seconds between heartbeats, as it proposes.
    :param mechanisms: how one may log in, as it says.
    :param on_method: called with the peer, a channel and the payload of each method; the method is
        answered unless it returns true.
    :ivar list methods: the payloads of the methods that have come.
    """

    def __init__(
        self,
        tune: tuple[int, int, int] = (2047, 131072, 0),
        mechanisms: bytes = b'PLAIN',
        on_method=lambda peer, channel, payload: False,
    ) -> None:
        self._tune = tune
        self._mechanisms = mechanisms
        self._on_method = on_method
        self._server = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._server.getsockname()[1]
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._lock = threading.Lock()
        self.consuming = threading.Event()
        self.tag = b''
        self.methods: list[bytes] = []

    @property
    def url(self) -> str:
        return f'amqp://guest:guest@127.0.0.1:{self.port}/%2F'

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._server, self._client):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._thread.join(10)

    def send(self, *frames: bytes) -> None:
        """Say something to the connection of the moment."""
        assert self._client is not None
        with self._lock:  # its own answers come from another thread
            self._client.sendall(b''.join(frames))

    def hang_up(self) -> None:
        """End the connection of the moment, without a word."""
        assert self._client is not None
        self._client.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                self._client, _ = self._server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._client, self._client.makefile('rb') as file:
                self._converse(file)

    def _converse(self, file) -> None:
        assert file.read(8) == b'AMQP\x00\x00\x09\x01'
        long = struct.pack('>I', len(self._mechanisms)) + self._mechanisms
        self.send(frame(1, 0, START + long + struct.pack('>I', 5) + b'en_US'))
        while head := file.read(7):
            kind, channel, size = struct.unpack('>BHI', head)
            payload = file.read(size)
            assert file.read(1) == b'\xce'
            if kind == 1:
                self.methods.append(payload)
                if not self._on_method(self, channel, payload):
                    self._answer(channel, payload)

    def _answer(self, channel: int, payload: bytes) -> None:
        signature = struct.unpack_from('>HH', payload)
        if signature == (10, 11):  # connection.start-ok
            self.send(frame(1, 0, struct.pack('>HHHIH', 10, 30, *self._tune)))
        elif signature == (10, 40):  # connection.open
            self.send(frame(1, 0, struct.pack('>HH', 10, 41) + short('')))
        elif signature == (60, 20):  # basic.consume
            queue = payload[7 : 7 + payload[6]]
            rest = payload[7 + len(queue) :]
            self.tag = rest[1 : 1 + rest[0]]
            self.send(frame(1, channel, struct.pack('>HH', 60, 21) + short(self.tag)))
            self.consuming.set()
        elif signature in ANSWERS:
            self.send(frame(1, channel, ANSWERS[signature]))
